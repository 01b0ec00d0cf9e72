"""Monte Carlo tree search with node objects: slow, obviously right, the oracle of mcts_dpo/search.

Written from the description of the algorithm alone. One problem at a time; nothing is updated incrementally: a tree
remembers its nodes and the list of visits, and every count, value, prior and closure is computed from these whenever
it is asked for. Texts are those of tests/reference/engine.py's tokenizer: each token has its own text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from benchmarks.driving import complete
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine, Request, Sample
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, self_evaluation
from mcts_dpo.rewards import SelfEvaluationSettings
from mcts_dpo.search import SearchSettings
from tests.reference.allocation import ALL_AT_ONCE, ONCE, learn, next_leaf, surprising
from tests.reference.engine import EOS, PIECES, TOKENIZER, shows
from verifiers import extract_answer, states_answer, verify


@dataclass(eq=False)
class Node:
    parent: Node | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    masses: list[float] = field(default_factory=list)  # one per sample that generated this step
    given: float | None = None  # prior mass of a step of the reference solution that nobody sampled first
    value: float = 0.0  # R
    expansions: int = 0
    children: list[Node] = field(default_factory=list)
    expanded: bool = False
    outcome: int = 0
    answer: str | None = None
    confidence: float | None = None

    @property
    def path(self) -> list[Node]:
        return [*(self.parent.path if self.parent else []), self]

    @property
    def text(self) -> str:
        return "".join(PIECES[token] for token in self.tokens if token != EOS)

    @property
    def solution(self) -> list[int]:
        return [token for node in self.path for token in node.tokens]

    @property
    def solution_text(self) -> str:
        return "".join(node.text for node in self.path)

    def key(self, merge: str) -> tuple[object, str]:
        ending = {"": "continues", "length": "cut"}.get(self.finish, "ended")
        if merge == "none":
            return tuple(self.tokens), ending
        words = " ".join(self.text.split())
        while merge == "loose" and words and words[-1] in " .,;:?":
            words = words[:-1]
        return words, ending


@dataclass(eq=False)
class ReferenceTree:
    settings: SearchSettings
    root: Node = field(default_factory=lambda: Node(None))
    seen: list[list[Node]] = field(default_factory=list)  # the path of each visit, in order
    in_flight: list[Node] = field(default_factory=list)  # leaves out for expansion
    generated: int = 0
    simulations: int = 0
    status: str = ""
    moves: list[Node] = field(default_factory=list)
    position: Node | None = None
    noise: int = 0
    chains: list[tuple[Node, list[Node]]] = field(default_factory=list)  # of each leaf of a wave: where, drawn there
    going_on: list[Node] = field(default_factory=list)  # where the iterations of `path` continue
    order: list[Node] = field(default_factory=list)  # all nodes but the root, as they were added
    continued: list[Node] = field(default_factory=list)  # where the continuations of `entropy` were drawn
    observed: list[tuple[Node, float]] = field(default_factory=list)  # of each step drawn: its parent, the belief

    @property
    def here(self) -> Node:
        return self.position or self.root

    def visits(self, node: Node) -> int:
        return sum(node in path for path in self.seen)

    def virtual(self, node: Node) -> int:
        return sum(node in leaf.path for leaf in self.in_flight)

    def reward(self, node: Node) -> float:
        if node is self.root:
            return 0.0
        if self.settings.accumulate == "difference" and node.parent is not None:
            return node.value - node.parent.value
        return node.value

    def v(self, node: Node) -> float:
        counts = [self.visits(child) for child in node.children]
        if sum(counts) == 0:
            return 0.0
        return sum(n * self.q(child) for n, child in zip(counts, node.children, strict=True)) / sum(counts)

    def q(self, node: Node) -> float:
        if node is self.root:
            return 0.0
        if self.settings.backup == "paper" or self.visits(node) == 0:
            return self.reward(node) + self.settings.gamma * self.v(node)
        returns = []
        for path in self.seen:
            if node in path:
                below = path[path.index(node) :]
                value = 0.0
                for step in reversed(below):
                    value = self.reward(step) + self.settings.gamma * value
                returns.append(value)
        return sum(returns) / len(returns)

    def prior(self, node: Node) -> float:
        if node is self.root:
            return 0.0
        assert node.parent is not None
        if self.settings.prior == "raw":
            return self.mass(node)
        return self.mass(node) / sum(self.mass(sibling) for sibling in node.parent.children)

    def mass(self, node: Node) -> float:
        return (node.given or 0.0) + sum(node.masses)

    def exhausted(self, node: Node) -> bool:
        if node.finish:
            return True
        return node.expanded and all(self.exhausted(child) for child in node.children)

    def selectable(self, node: Node) -> bool:
        if node.finish or node in self.in_flight:
            return False
        return not node.expanded or any(self.selectable(child) for child in node.children)

    def score(self, node: Node) -> float:
        assert node.parent is not None
        above = self.visits(node.parent) + self.virtual(node.parent)
        n, out = self.visits(node), self.virtual(node)
        # Each expansion in flight counts as one visit of value -1.
        q = (n * self.q(node) - out) / (n + out) if out else self.q(node)
        if self.settings.selection == "uct" and n + out == 0:
            return math.inf
        if self.settings.selection != "uct":
            return q + self.settings.c_puct * self.prior(node) * math.sqrt(above) / (1 + n + out)
        return q + self.settings.c_puct * math.sqrt(math.log(above) / (n + out))

    def select(self) -> Node | None:
        if not self.selectable(self.here):
            return None
        node = self.here
        if self.settings.selection == "gumbel" and node.expanded:
            node = self.gumbel_child()
        while node.expanded:
            node = max((child for child in node.children if self.selectable(child)), key=self.score)
        return node

    def gumbel_child(self) -> Node:
        """Sequential halving, played through from the start for the number of simulations that have been made."""
        constants, children = self.settings.gumbel, self.root.children
        counts = [child.expansions + self.virtual(child) for child in children]
        values = [self.q(child) for child in children]
        spread = max(max(values) - min(values), 1e-8)
        scores = [
            _gumbel(self.noise, place)
            + math.log(self.prior(child))
            + (constants.c_visit + max(counts)) * constants.c_scale * (value - min(values)) / spread
            for place, (child, value) in enumerate(zip(children, values, strict=True))
        ]
        wanted = _halving(min(constants.considered, len(children)), self.settings.simulations - 1, sum(counts) + 1)[-1]
        able = [place for place, child in enumerate(children) if self.selectable(child)]
        fitting = [place for place in able if counts[place] == wanted]
        return children[max(fitting or able, key=lambda place: scores[place])]

    def move_or_end(self, started: int, base: int, spent: bool) -> int:
        """After a wave: the status, or a step down; returns the new base."""
        settings = self.settings
        while not self.status:
            here = self.here
            if self.exhausted(here) and settings.allocation.kind in ONCE:
                why = "exhausted"
            elif started - base >= settings.simulations:
                why = "simulations"
            elif spent:
                why = "budget"
            elif settings.stop == "decided" and self.decided(settings.simulations - (started - base)):
                why = "decided"
            else:
                return base
            if settings.advance == "none" or why == "budget":
                self.status = why
                return base
            best = max(self.visits(child) for child in here.children)
            leaders = [child for child in here.children if self.visits(child) == best]
            self.position = max(leaders, key=self.q)
            self.moves.append(self.position)
            base = started
            if self.position.finish:
                self.status = "advanced"
        return base

    def decided(self, simulations: int) -> bool:
        children = self.here.children
        if not self.here.expanded:
            return False
        most = max(self.visits(child) for child in children)
        leader = next(child for child in children if self.visits(child) == most)
        each = max(_by_depth(self.settings))
        visits = simulations * each
        if self.settings.budget is not None:
            visits = min(visits, max(0, self.settings.budget - self.generated) + each)
        return all(
            self.visits(child) + visits < most
            for child in children
            if child is not leader and (self.settings.allocation.kind not in ONCE or not self.exhausted(child))
        )


def _by_depth(settings: SearchSettings) -> tuple[int, ...]:
    return (settings.children,) if isinstance(settings.children, int) else settings.children


def _gumbel(seed: int, place: int) -> float:
    """-log(-log u), u from the splitmix64 sequence of `seed`."""
    mask = 2**64 - 1
    z = (seed + (place + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return -math.log(-math.log(((z >> 11) + 0.5) / 2**53))


def _halving(children: int, simulations: int, length: int) -> list[int]:
    """How often a child must have been simulated to be the next one, for the first `length` simulations."""
    if children == 1:
        return list(range(length))
    phases = 0
    while 2**phases < children:
        phases += 1
    wanted: list[int] = []
    survivors, visits = children, 0
    while len(wanted) < length:
        rounds = simulations // (phases * survivors) or 1
        for _ in range(rounds):
            wanted += [visits] * survivors
            visits += 1
        survivors = survivors // 2 if survivors > 3 else 2
    return wanted[:length]


def _reference_steps(problem: Problem, prompt: PromptSettings) -> list[list[int]]:
    """Token ids of the steps of the reference solution, which end with the end of sequence."""
    text = (problem.solution or "").strip()
    if extract_answer(prompt.prefill + text, prompt.answer_style) is None:
        text += f"\nThe answer is {problem.answer}."
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    steps = [[ids[index] for index in piece] for piece in _split(ids, prompt.step_end)]
    steps[-1] = [*steps[-1], EOS]
    return steps


def reference_search(
    problem: Problem, engine: Engine, prompt: PromptSettings, settings: SearchSettings, mode: str = "train"
) -> ReferenceTree:
    """Search one problem; `problem` has a reference answer, which mode "solve" ignores."""
    tree = ReferenceTree(settings, noise=seed_from(settings.seed, "gumbel", problem.id))
    solution = _reference_steps(problem, prompt) if settings.reference_child else []
    along = {tree.root: 0} if solution else {}
    base = 0
    start = list(prompt_tokens(problem, engine.tokenizer, prompt))
    known = {reward.kind: reward for reward in settings.rewards}
    judged = known.get("self_evaluation", SelfEvaluationSettings(weight=0.0))
    suffix: tuple[int, ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()
    longest = 0
    if judged.weight > 0:
        hint = (problem.solution or problem.answer) if judged.hint and mode == "train" else None
        suffix, choices = self_evaluation(engine.tokenizer, prompt, hint)
        longest = max(len(choices[0]), len(choices[1]))
    limit = min(settings.max_tokens, engine.context - len(start) - len(suffix) - longest)
    started = longest_sample = 0
    strict = mode == "solve" and settings.budget is not None
    if strict and settings.budget < 1 + longest:
        tree.status = "budget"
    while not tree.status:
        # Select and ask.
        requests = []
        reserved = 0
        leaves = min(settings.parallel_leaves, settings.simulations - (started - base))
        if strict:  # every leaf draws a token and may ask about it
            leaves = min(leaves, (settings.budget - tree.generated) // (1 + longest))
        for _ in range(leaves):
            leaf = next_leaf(tree, len(requests), problem.id, started)
            if leaf is None:
                break
            tree.in_flight.append(leaf)
            deepest = settings.max_depth  # the steps of a solution
            if settings.depth_from == "advanced":
                deepest += len(tree.here.path) - 1
            whole = settings.expand == "rollout" or len(leaf.path) >= deepest
            room = max(1, limit - len(leaf.solution))
            n = 1
            if settings.allocation.kind in ALL_AT_ONCE:
                n = [*_by_depth(settings), *[_by_depth(settings)[-1]] * len(leaf.path)][len(leaf.path) - 1]
            size = room if whole else min(room, settings.max_step_tokens)
            if strict:
                # The wave's leaves share what is left; each sample may cost questions beside its tokens.
                asked = longest
                if settings.expand == "rollout" and judged.at == "all":
                    asked *= deepest - (len(leaf.path) - 1)
                left = settings.budget - tree.generated - reserved
                share = left // (settings.parallel_leaves - len(requests)) if leaf is not tree.root else left
                n = max(1, min(n, share // (max(1, longest_sample) + asked)))
                size = max(1, min(size, share // n - asked))
                reserved += n * (size + asked)
            requests.append(
                Request(
                    id=len(requests),
                    prefix=(*start, *leaf.solution),
                    n=n,
                    max_tokens=size,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    stop=prompt.stop if whole else (prompt.step_end, *prompt.stop),
                    visible=not whole and "\n\n" not in prompt.stop,
                    seed=seed_from(settings.seed, problem.id, started),
                )
            )
            started += 1
        completions = complete(engine, requests)
        # Grow.
        new: list[Node] = []
        visits: list[list[Node]] = []  # of each leaf: where its samples end
        for leaf, completion in zip(tree.in_flight, completions, strict=True):
            visits.append([])
            for sample in completion.samples:
                tree.generated += len(sample.tokens)
                longest_sample = max(longest_sample, len(sample.tokens))
                node = leaf
                for step in _steps(sample, leaf, prompt, settings, deepest, limit):
                    step.parent = node
                    twin = next(
                        (child for child in node.children if child.key(settings.merge) == step.key(settings.merge)),
                        None,
                    )
                    if twin is None:
                        node.children.append(step)
                        new.append(step)
                    else:
                        twin.masses += step.masses
                    node = twin or step
                visits[-1].append(node)
            tree.simulations += 1
            for above in leaf.path:
                above.expansions += 1
            place = along.get(leaf, len(solution))
            chain = solution[place:]
            most = deepest - (len(leaf.path) - 1)
            if len(chain) > most:
                chain = [*chain[: most - 1], [token for step in chain[most - 1 :] for token in step]]
            ending = len(chain)
            if settings.expand == "step":
                chain = chain[:1]
            if sum(map(len, chain)) > limit - len(leaf.solution):
                chain = []
            node = leaf
            for number, tokens in enumerate(chain, 1):
                step = Node(node, tokens, [math.nan] * len(tokens), "end" if number == ending else "")
                twin = next(
                    (child for child in node.children if child.key(settings.merge) == step.key(settings.merge)), None
                )
                if twin is None:
                    others = [tree.mass(child) for child in node.children]
                    step.given = sum(others) / len(others) if others else 1.0
                    node.children.append(step)
                    new.append(step)
                node = twin or step
                along[node] = place + number
        tree.order += new
        # Judge.
        for node in new:
            if node.finish:
                text = node.solution_text
                node.answer = None if node.finish == "length" else extract_answer(text, prompt.answer_style)
                if node.answer is None:
                    node.outcome = -1
                elif mode == "train":
                    node.outcome = 1 if verify(problem.answer, node.answer) else -1
            node.value = known["outcome"].weight * node.outcome
            if judged.weight > 0 and (node.finish or judged.at == "all"):
                said = [token for token in node.solution if token != EOS]
                (answer,) = complete(engine, [Request(id=0, prefix=(*start, *said, *suffix), choices=choices)])
                node.confidence = answer.probabilities[0]
                node.value += judged.weight * node.confidence
                tree.generated += longest
        # Back up.
        for leaf in tree.in_flight:
            leaf.expanded = True
        leaves, tree.in_flight = tree.in_flight, []
        tree.seen += [end.path for ends in visits for end in ends]
        spent = settings.budget is not None and tree.generated + (longest if strict else 0) >= settings.budget
        for slot, (leaf, ends) in enumerate(zip(leaves, visits, strict=True)):
            learn(tree, slot, leaf, ends)
        base = tree.move_or_end(started, base, spent)
    return tree


def _steps(
    sample: Sample, leaf: Node, prompt: PromptSettings, settings: SearchSettings, deepest: int, limit: int
) -> list[Node]:
    """The chain of steps of one sample, not yet linked."""
    if settings.expand == "step":
        pieces = [list(range(len(sample.tokens)))]
    else:
        pieces = _split(sample.tokens, prompt.step_end)
        if settings.allocation.kind == "entropy":
            pieces = surprising(sample.tokens, sample.logprobs, pieces, settings.allocation.cuts)
        most = deepest - (len(leaf.path) - 1)
        pieces = [*pieces[: most - 1], [index for piece in pieces[most - 1 :] for index in piece]]
        pieces = [piece for piece in pieces if piece]
    steps = []
    for piece in pieces:
        logprobs = [sample.logprobs[index] for index in piece]
        mass = math.exp(sum(logprobs) / len(logprobs) ** settings.length_penalty)
        steps.append(Node(None, [sample.tokens[index] for index in piece], logprobs, "", [mass]))
    steps[-1].finish = sample.finish
    if settings.expand == "step" and sample.finish == "stop" and len(leaf.path) < deepest:
        # The engine stopped at the end of the step or of the solution: which was it?
        before, text = leaf.solution_text, steps[-1].text
        first_new = len(before) + 1
        whole = before + text
        ended = any(whole[:end].endswith(stop) for stop in prompt.stop for end in range(first_new, len(whole) + 1))
        if ended:
            steps[-1].finish = "stop"
        elif states_answer(text, prompt.answer_style, before=prompt.prefill + before):
            steps[-1].finish = "answer"
        elif len(leaf.solution) + len(sample.tokens) >= limit:
            steps[-1].finish = "length"
        else:
            steps[-1].finish = ""
    return steps


def _split(tokens: tuple[int, ...], step_end: str) -> list[list[int]]:
    """Indices of the tokens of each step; steps that show nothing join the one before, or the first one after."""
    pieces: list[list[int]] = [[]]
    for index, token in enumerate(tokens):
        pieces[-1].append(index)
        if PIECES[token] == step_end:
            pieces.append([])
    joined: list[list[int]] = []
    for piece in pieces:
        alone = any(shows(tokens[index]) for index in piece)
        if joined and (not alone or not any(shows(tokens[index]) for index in joined[-1])):
            joined[-1] += piece
        else:
            joined.append(list(piece))
    return joined
