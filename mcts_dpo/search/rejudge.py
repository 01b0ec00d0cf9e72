"""Judges stored trees again: new outcomes, scores, rewards and values, without one generated policy token.

In: files of trees, the settings that judge them, and the problems if anything is scored or verified. Out: files of the
same names and format in another folder. Steps, visits and priors stay as the search left them. If nothing is changed,
every value is reproduced bit by bit: R and r depend on the scores alone, and Q and V on rewards and visits alone.

A reward whose settings are as stored keeps its stored scores, so that it needs no model. A new weight or another
formula needs none either. Everything else is scored by the same rewards as in a search, asynchronously, over one engine
for all files. Only the files that are being judged are in memory. A file that is there already is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, file_digest
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.models.prompts import PromptSettings, Thoughts, thought_opened_by
from mcts_dpo.rewards.base import RewardContext, RewardSettings
from mcts_dpo.rewards.outcome import outcome_settings
from mcts_dpo.rewards.registry import active, make_rewards
from mcts_dpo.search import kernels
from mcts_dpo.search.journal import differing, policy_fingerprint
from mcts_dpo.search.mcts import evaluate, set_rewards, verify
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import NOT_KNOWN, SearchState, TreeState, reference_notes
from mcts_dpo.search.tree import Forest
from mcts_dpo.search.tree_io import made_with, save, tree_infos

CHANGEABLE = ("rewards", "accumulate", "gamma", "backup")
"""The settings of the search that another judgement may change. All others say how the trees were grown."""

OUTCOME = "outcome"


@dataclass(frozen=True, slots=True)
class Judging:
    """The settings for one file. before: those of its search. after: the same with other `CHANGEABLE` settings."""

    before: SearchSettings
    after: SearchSettings
    prompt: PromptSettings


@dataclass(slots=True)
class Rejudged:
    """What came out.

    files:     the written files, in order. kept: how many of them were there already.
    trees:     trees in the files that were judged now.
    scored:    the kinds of rewards that gave new scores.
    outcomes:  solutions whose outcome changed. values: nodes whose V or Q changed.
    unscored:  by kind, paths that a reward could not score.
    """

    files: list[Path] = field(default_factory=list)
    kept: int = 0
    trees: int = 0
    scored: set[str] = field(default_factory=set)
    outcomes: int = 0
    values: int = 0
    unscored: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    """A file that is being judged. before: its outcomes, Q and V as stored. made_with: as `tree_io.save` takes it."""

    target: Path
    state: SearchState
    made_with: dict[str, str]
    before: tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]


def rejudge(
    files: Sequence[Path],
    out: Path,
    settings: Callable[[Path], Judging],
    *,
    problems: Sequence[Problem] | None = None,
    engine: LazyEngine | None = None,
    policy: str = "",
    verifier: str = "",
    again: bool = False,
    progress: Progress = silent,
) -> Rejudged:
    """Judge the trees of `files` again and write them to the folder `out`, under the same names.

    settings: gives the settings for a file.
    problems: those of the trees, found by their ids: outcomes are verified again. None: outcomes stay as stored, and
              no reward can give new scores.
    engine:   of the policy, for rewards that ask it. None: there is no policy.
    policy:   its fingerprint.
    verifier: name of the verifier that compares answers; "": that of each problem.
    again:    True: all rewards give new scores, those with unchanged settings too.

    Raises InputError if something is missing that a reward needs, if a file of `out` has the trees of another
    judgement, or for files that are not trees. Raises EngineDiedError if the engine dies. Finished files are kept then.
    """
    if verifier and problems is None:
        raise InputError(f"--verifier {verifier}: nothing to verify against; accepted: with --problems FILE")
    known = None if problems is None else {one.id: replace(one, verifier=verifier or one.verifier) for one in problems}
    judges = _Judges(settings, known, engine or LazyEngine(None, None), policy, again, Rejudged())
    targets = _targets(files, out)
    todo = deque((file, target) for file, target in targets.items() if not judges.is_done(file, target))
    total = sum(len(tree_infos(file)) for file, _ in todo)
    judges.result.files, judges.result.kept = list(targets.values()), len(targets) - len(todo)
    runner: Runner[None] = Runner(judges.engine)
    open_files: dict[Path, _Open] = {}
    try:
        while todo or runner.busy:
            while todo and runner.has_room:
                opened, coroutines = judges.open(*todo.popleft())
                if coroutines:
                    open_files[opened.target] = opened
                    runner.admit(opened.target, coroutines)
                else:
                    judges.finish(opened)
                progress("rejudge", judges.result.trees, total)
            for ended in runner.step() if runner.busy else ():
                assert isinstance(ended.key, Path)
                judges.finish(open_files.pop(ended.key))
                progress("rejudge", judges.result.trees, total)
    finally:
        runner.close()
    return judges.result


def _targets(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The file to write for each file. Raises InputError if one would be overwritten, or written twice."""
    found: dict[Path, Path] = {}
    names: dict[str, Path] = {}
    for file in files:
        other = names.setdefault(file.name, file)
        if other != file or file in found:
            raise InputError(f"{file}: {out / file.name} is written for {other}; accepted: files of different names")
        if (out / file.name).resolve() == file.resolve():
            raise InputError(f"--out {out}: holds the trees that are judged; accepted: another folder")
        found[file] = out / file.name
    return found


@dataclass(slots=True)
class _Judges:
    """How all files are judged (see `rejudge`). problems: by id; None: outcomes stay as stored."""

    settings: Callable[[Path], Judging]
    problems: Mapping[str, Problem] | None
    engine: LazyEngine
    policy: str
    again: bool
    result: Rejudged

    def is_done(self, file: Path, target: Path) -> bool:
        """Whether `target` is there already. Raises InputError if it is of another judgement."""
        if not target.exists():
            return False
        other = differing(made_with(target), self._made_with(file, self.settings(file)))
        if other:
            raise InputError(
                f"{target}: trees of another judgement ({', '.join(other)} differ); give another folder, or delete it"
            )
        return True

    def open(self, file: Path, target: Path) -> tuple[_Open, list[Coroutine[None]]]:
        """Read a file. Returns it with the coroutines that verify and score its trees."""
        judging, forest = self.settings(file), Forest.load(file)
        self._check_tokenizer(forest, file)
        before = (forest.outcome.copy(), forest.q.copy(), forest.v.copy())
        kept, new = _kept_scores(forest, judging, self.again), self._scored(judging)
        forest.settings = forest.settings | {"search": judging.after.model_dump(mode="json")}
        forest.set_scores(
            {one.kind: kept.get(one.kind, np.full(len(forest), np.nan)) for one in active(judging.after.rewards)}
        )
        state = SearchState(forest, [], self.engine, judging.prompt, judging.after, self._thoughts(judging, ""))
        opened = _Open(target, state, self._made_with(file, judging), before)
        self.result.scored |= {one.kind for one in new}
        if self.problems is None:
            return opened, []
        for index, info in enumerate(forest.trees):
            problem = self._problem(info.problem_id, file)
            context = RewardContext(problem, self.engine.tokenizer, judging.prompt, judging.after.seed)
            state.trees.append(TreeState(index, problem, info, 0, make_rewards(new, context)))
            if index == 0:
                state.thoughts = self._thoughts(judging, _opened_thought(info.prompt_text, problem, judging.prompt))
        return opened, [self.engine.loading(_judge(state, tree)) for tree in state.trees]

    def _thoughts(self, judging: Judging, opened: str) -> Thoughts:
        return Thoughts(self.engine.tokenizer, judging.prompt, opened, None)

    def finish(self, opened: _Open) -> None:
        """Compute rewards and values, and write the file."""
        state = opened.state
        forest, settings = state.forest, state.settings
        if OUTCOME in forest.scores:
            forest.scores[OUTCOME][:] = np.where(forest.outcome == 0, np.nan, forest.outcome)
        set_rewards(forest, settings, np.flatnonzero(forest.depth > 0))
        kernels.recompute(forest, kernels.PAPER if settings.backup == "paper" else kernels.MEAN, settings.gamma)
        save(forest, opened.target, opened.made_with)
        outcome, q, v = opened.before
        self.result.trees += len(forest.trees)
        self.result.outcomes += int((forest.outcome != outcome).sum())
        self.result.values += int(((forest.q != q) | (forest.v != v)).sum())
        for info in forest.trees if self.problems is not None else ():
            for kind, count in info.unscored.items():
                self.result.unscored[kind] = self.result.unscored.get(kind, 0) + count

    def _scored(self, judging: Judging) -> list[RewardSettings]:
        """The rewards that give new scores. Raises InputError if they cannot."""
        wanted = [
            one
            for one in active(judging.after.rewards)
            if one.kind != OUTCOME and (self.again or not _is_stored(one, judging.before))
        ]
        if self.problems is not None:
            return wanted
        noise = [outcome_settings(one.rewards).model_copy(update={"weight": 1.0}) for one in _both(judging)]
        if noise[0] != noise[1]:
            raise InputError("search.rewards.outcome: its noise needs new outcomes; accepted: with --problems FILE")
        if wanted:
            raise InputError(
                f"search.rewards.{wanted[0].kind}: the trees hold no scores of these settings; "
                "accepted: with --problems FILE, the problems of the trees"
            )
        return []

    def _check_tokenizer(self, forest: Forest, file: Path) -> None:
        from mcts_dpo.models.loading import tokenizer_digest  # imported late, because it imports torch

        if self.policy and forest.tokenizer != tokenizer_digest(self.engine.tokenizer):
            raise InputError(
                f"{file}: the policy has another tokenizer than its trees; accepted: a policy with the same tokenizer"
            )

    def _problem(self, name: str, file: Path) -> Problem:
        assert self.problems is not None
        if name not in self.problems:
            raise InputError(f"{file}: its problem {name!r} is not in --problems; accepted: all problems of the trees")
        return self.problems[name]

    def _made_with(self, file: Path, judging: Judging) -> dict[str, str]:
        """What the file that was made of `file` depends on, by name (see `journal.identity`)."""
        new = self._scored(judging)
        found = {"search settings": digest(judging.after.model_dump(mode="json")), "trees": file_digest(file)}
        if self.problems is not None:
            names = [info.problem_id for info in tree_infos(file)]
            found["problems"] = digest([asdict(self._problem(name, file)) for name in names])
        if new:
            found["judges"] = digest([one.kind for one in new], self.policy)
        for one in new:
            found |= {f"{one.kind} at {path}": policy_fingerprint(str(path)) for path in one.files()}
        return made_with(file) | found


def _both(judging: Judging) -> tuple[SearchSettings, SearchSettings]:
    return judging.before, judging.after


def _is_stored(entry: RewardSettings, before: SearchSettings) -> bool:
    """Whether trees of these settings hold the scores of a reward. Its weight does not matter, if it had one."""
    return any(
        one.model_copy(update={"weight": entry.weight}) in (entry, entry.model_copy(update={"at": "all"}))
        for one in active(before.rewards)
        if type(one) is type(entry)
    )


def _kept_scores(forest: Forest, judging: Judging, again: bool) -> dict[str, NDArray[np.float64]]:
    """The stored scores that stay, by kind. Of scores of every step, a reward `at: terminal` keeps those of ends."""
    kept = {}
    for one in active(judging.after.rewards):
        if one.kind == OUTCOME or (not again and _is_stored(one, judging.before)):
            stored = forest.scores.get(one.kind, np.full(len(forest), np.nan))
            kept[one.kind] = stored.copy() if one.at == "all" else np.where(forest.terminal, stored, np.nan)
    return kept


def _opened_thought(prompt: str, problem: Problem, settings: PromptSettings) -> str:
    """As `prompts.opened_thought`, from the prompt as the tree holds it, so that no tokenizer is needed."""
    tail = prompt.removesuffix(settings.prefill).rpartition(problem.question)[2]
    return thought_opened_by(tail, settings.thought_marks)


def _judge(state: SearchState, tree: TreeState) -> Coroutine[None]:
    """Verify and score all nodes of a tree."""
    info = tree.info
    nodes = state.forest.nodes(tree.index)[1:].tolist()
    info.mode = "train"
    notes = [note for note in info.notes if not note.endswith(NOT_KNOWN)]
    info.notes[:] = [*reference_notes(tree.problem, info.mode), *notes]
    info.unanswered = info.unverified = 0
    scored = {reward.settings.kind for reward in tree.rewards}
    info.unscored = {kind: count for kind, count in info.unscored.items() if kind not in scored}
    yield from verify(state, tree, nodes)
    yield from evaluate(state, tree, nodes)
