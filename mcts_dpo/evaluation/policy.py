"""Measures a policy on problems: greedy pass@1, sampled pass@1, pass@k and majority@k, with confidence intervals.

In: problems with reference answers, and an engine. Out: an `Evaluation` with one row per problem. It can be saved as
Parquet and summarised as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, seed_from, write_table
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.settings import Settings
from mcts_dpo.common.statistics import (
    PairedComparison,
    area_under_roc,
    bootstrap_mean,
    compare_paired,
    pass_at_k,
    proportion,
)
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Completion, Engine, Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, call, gather
from mcts_dpo.environments import EnvironmentSettings, environment_of, instructed
from mcts_dpo.environments.none import NoneSettings
from mcts_dpo.models.prompts import PromptSettings, Thoughts, prompt_tokens, self_evaluation, thoughts_of
from mcts_dpo.rewards.verification import verdict
from mcts_dpo.search.acting import Acting
from mcts_dpo.search.drawing import Ask, Drawing, Drawn
from mcts_dpo.search.runner import run
from mcts_dpo.solve.budgets import StrategySettings
from verifiers import Verdict, extract_answer, grouped


class EvaluationSettings(Settings):
    """What an evaluation measures.

    samples:     sampled solutions per problem besides the greedy one; 0 measures greedy only.
    temperature: of the sampled solutions, > 0.
    top_p:       nucleus of the sampled solutions.
    max_tokens:  longest solution, in tokens. An answer before the cut counts here. (In the search a cut solution is
                 wrong, because the search trains on whole solutions.) `cut_by_length` is the fraction of cut ones.
    k:           the values of k in pass@k and majority@k; those above `samples` are left out.
    confidence:  also ask the policy whether its greedy solution is right, and report the AUC of its P(yes).
    chunk:       problems submitted together.
    seed:        of the samples, with each problem's id.
    strategies:  settings of `evaluate_strategies` other than the budget. The search's settings say how it samples.
    """

    samples: int = Field(0, ge=0)
    temperature: float = Field(0.8, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    k: tuple[int, ...] = (1, 4, 8, 16)
    confidence: bool = False
    chunk: int = Field(128, ge=1)
    seed: int = Field(0, ge=0)
    strategies: StrategySettings = StrategySettings()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one problem.

    problem_id, reference: id and reference answer of the problem.
    text, answer, correct: the greedy solution, the answer extracted from it (None: it states none), and the verdict.
    cut:                   whether the greedy solution was cut at `max_tokens`.
    confidence:            P(yes) of the self-evaluation of the greedy solution. None if it was not asked.
    sample_answers:        the answers of the sampled solutions, in sampling order.
    sample_correct:        the verdicts on these answers.
    majority_correct:      for each k of `Evaluation.ks`, the verdict on the vote of the first k samples.
    error:                 why the engine could not serve this problem, which then counts as wrong. None otherwise.
    undecided:             number of solutions, the greedy one included, without a verdict. They count as wrong.
    undecided_pairs:       number of pairs of classes of sampled answers that the vote could not compare in time.
    """

    problem_id: str
    reference: str
    text: str
    answer: str | None
    correct: bool
    cut: bool
    confidence: float | None
    sample_answers: tuple[str | None, ...]
    sample_correct: tuple[bool, ...]
    majority_correct: tuple[bool, ...]
    error: str | None
    undecided: int = 0
    undecided_pairs: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation.

    outcomes: one per problem, in the order of the problems. ks: the values of k that were measured. sampled_tokens: the
    number of tokens that the engine sampled.
    """

    outcomes: tuple[Outcome, ...]
    ks: tuple[int, ...]
    sampled_tokens: int

    @property
    def correct(self) -> list[bool]:
        """The verdicts on the greedy solutions, in the order of the problems."""
        return [outcome.correct for outcome in self.outcomes]

    def summary(self) -> dict[str, Any]:
        """Return the metrics as JSON: counts, and fractions with 95 % intervals.

        `greedy`, `stated_answer`, `greedy_if_stated` and majority@k have Wilson intervals. `sampled` and pass@k have
        bootstrap intervals over problems. `cut_by_length` and `self_evaluation_auc` have no interval.
        """
        outcomes = self.outcomes
        stated = [outcome for outcome in outcomes if outcome.answer is not None]
        metrics: dict[str, Any] = {
            "problems": len(outcomes),
            "greedy": proportion(sum(self.correct), len(outcomes)).as_dict(),
            "stated_answer": proportion(len(stated), len(outcomes)).as_dict(),
            "cut_by_length": sum(outcome.cut for outcome in outcomes) / len(outcomes),
            "failed": sum(outcome.error is not None for outcome in outcomes),
            "undecided": sum(outcome.undecided for outcome in outcomes),
            "undecided_pairs": sum(outcome.undecided_pairs for outcome in outcomes),
            "sampled_tokens": self.sampled_tokens,
        }
        if stated:
            metrics["greedy_if_stated"] = proportion(sum(o.correct for o in stated), len(stated)).as_dict()
        if any(outcome.sample_correct for outcome in outcomes):
            counts = [(len(o.sample_correct), sum(o.sample_correct)) for o in outcomes]
            metrics["sampled"] = bootstrap_mean([right / total if total else 0.0 for total, right in counts]).as_dict()
            for index, k in enumerate(self.ks):
                passes = [pass_at_k(total, right, k) if total else 0.0 for total, right in counts]
                votes = [bool(o.majority_correct) and o.majority_correct[index] for o in outcomes]
                metrics[f"pass@{k}"] = bootstrap_mean(passes).as_dict()
                metrics[f"majority@{k}"] = proportion(sum(votes), len(votes)).as_dict()
        judged = [o for o in outcomes if o.confidence is not None]
        if judged:
            scores = [o.confidence for o in judged if o.confidence is not None]
            metrics["self_evaluation_auc"] = area_under_roc(scores, [o.correct for o in judged])
        return metrics

    def save(self, path: Path) -> None:
        """Write a Parquet file with one row per problem, whole or not at all."""
        rows = [asdict(outcome) for outcome in self.outcomes]
        metadata = {"ks": ",".join(map(str, self.ks)), "sampled_tokens": str(self.sampled_tokens)}
        write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA).replace_schema_metadata(metadata))

    @staticmethod
    def load(path: Path) -> Evaluation:
        """Read a file that `save` wrote. Raises InputError if the file is missing or of another kind."""
        table = read_table(path)
        metadata = table.schema.metadata or {}
        first_edition = _SCHEMA.names[:-2]  # older files have no counts of undecided verdicts
        if table.schema.names not in (_SCHEMA.names, first_edition) or b"ks" not in metadata:
            raise InputError(f"{path}: not an evaluation (columns {', '.join(table.schema.names)})")
        rows: list[dict[str, Any]] = table.to_pylist()
        lists = ("sample_answers", "sample_correct", "majority_correct")
        outcomes = tuple(Outcome(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows)
        ks = tuple(int(part) for part in metadata[b"ks"].decode().split(",") if part)
        return Evaluation(outcomes, ks, int(metadata[b"sampled_tokens"]))


_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("reference", pa.string()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("cut", pa.bool_()),
        ("confidence", pa.float64()),
        ("sample_answers", pa.list_(pa.string())),
        ("sample_correct", pa.list_(pa.bool_())),
        ("majority_correct", pa.list_(pa.bool_())),
        ("error", pa.string()),
        ("undecided", pa.int64()),
        ("undecided_pairs", pa.int64()),
    ]
)


def compare(before: Evaluation, after: Evaluation) -> PairedComparison:
    """Compare the greedy accuracy of two policies on the same problems. Raises InputError if the problems differ."""
    if [o.problem_id for o in before.outcomes] != [o.problem_id for o in after.outcomes]:
        raise InputError("the two evaluations are of different problems; compare evaluations of one problem set")
    return compare_paired(before.correct, after.correct)


def evaluate(
    problems: Sequence[Problem],
    engine: Engine,
    *,
    prompt: PromptSettings,
    settings: EvaluationSettings | None = None,
    environment: EnvironmentSettings = NoneSettings(),  # noqa: B008  (frozen)
    progress: Progress = silent,
) -> Evaluation:
    """Solve every problem greedily and, if `settings.samples` > 0, by sampling. Verify every answer.

    environment: replies to the steps of solutions (`SearchSettings.environment`).

    The result is deterministic for a given engine state: seeds come from the settings' seed and the problem's id.
    Raises InputError if there is no problem, or if a problem has no reference answer.
    """
    settings = settings or EvaluationSettings()
    if not problems:
        raise InputError("no problems to evaluate")
    for problem in problems:
        if problem.answer is None:
            raise InputError(f"problem {problem.id}: no reference answer, so it cannot be evaluated")
    ks = tuple(k for k in settings.k if 1 <= k <= settings.samples)
    sampled_before = engine.usage.sampled_tokens
    outcomes: list[Outcome] = []

    def report(chunk: Sequence[bool]) -> None:
        """Report progress. chunk: the greedy verdicts that are known of the chunk in progress."""
        done = len(outcomes) + len(chunk)
        figures = {"tokens": float(engine.usage.sampled_tokens - sampled_before)}
        if done:
            figures["accuracy"] = (sum(outcome.correct for outcome in outcomes) + sum(chunk)) / done
        progress("evaluate", done, len(problems), **figures)

    report(())
    for start in range(0, len(problems), settings.chunk):
        verdicts: list[bool] = []

        def heard(verdict: bool, verdicts: list[bool] = verdicts) -> None:
            verdicts.append(verdict)
            report(verdicts)

        chunk = problems[start : start + settings.chunk]
        measured = run([measure(one, engine, prompt, settings, ks, heard, environment) for one in chunk], engine)
        outcomes += [one for one in measured if isinstance(one, Outcome)]
        report(())
    return Evaluation(tuple(outcomes), ks, engine.usage.sampled_tokens - sampled_before)


def measure(
    problem: Problem,
    engine: Engine,
    prompt: PromptSettings,
    settings: EvaluationSettings,
    ks: tuple[int, ...],
    on_verdict: Callable[[bool], None] = lambda _: None,
    environment: EnvironmentSettings = NoneSettings(),  # noqa: B008  (frozen)
) -> Coroutine[Outcome]:
    """Measure one problem: its greedy solution, its samples, and P(yes) of the greedy solution if the settings ask.

    ks: the values of k for majority@k. on_verdict: called with the verdict on the greedy solution.
    """
    prompt = instructed(prompt, environment)
    prefix = prompt_tokens(problem, engine.tokenizer, prompt)
    greedy = Request(0, prefix, 1, settings.max_tokens, temperature=0.0, stop=prompt.stop)
    seed = seed_from("evaluate", settings.seed, problem.id)
    sampled = Request(
        0, prefix, settings.samples, settings.max_tokens, settings.temperature, settings.top_p, prompt.stop, seed
    )
    # Send both together, so that the engine computes their common prefix once.
    thoughts = thoughts_of(engine.tokenizer, prompt)
    asks = [Ask(one, (), True, settings.max_tokens) for one in ([greedy, sampled] if settings.samples else [greedy])]
    replies = environment_of(environment)
    acting = None if replies is None else Acting(replies, problem.without_answer())
    back = yield from Drawing(thoughts, acting).draw(asks)
    answer = _answers(back[0], thoughts)[0] if back[0].completion.samples else None
    (judged,) = yield from call(_verdicts, [(problem, answer)])
    on_verdict(bool(judged))
    confidence = (yield from _confidence(engine, thoughts, prefix, back[0].completion)) if settings.confidence else None
    more = back[1] if settings.samples else None
    return _outcome(problem, back[0], (answer, judged), more, confidence, thoughts, ks)


def _verdicts(items: Sequence[tuple[Problem, str | None]]) -> list[Verdict]:
    return [verdict(problem, answer) for problem, answer in items]


def _confidence(
    engine: Engine, thoughts: Thoughts, prefix: tuple[int, ...], greedy: Completion
) -> Coroutine[float | None]:
    """Ask the policy whether its greedy solution is right. Returns P(yes), or None without an answer of the engine.

    The question follows the solution in the same context, so that the engine can reuse its prefix cache.
    """
    if not greedy.samples:
        return None
    suffix, choices = self_evaluation(engine.tokenizer, thoughts.settings)
    sample = greedy.samples[0]
    # The question continues the text of the same turn. The suffix ends the turn, so the solution's own end is cut.
    tokens = sample.tokens[:-1] if sample.finish == "end" else sample.tokens
    closing = thoughts.closing(thoughts.settings.prefill + sample.text)[1]
    (answer,) = yield from gather([Request(0, (*prefix, *tokens, *closing, *suffix), choices=choices)])
    return answer.probabilities[0] if answer.probabilities else None


def _outcome(
    problem: Problem,
    greedy: Drawn,
    judged: tuple[str | None, Verdict],
    sampled: Drawn | None,
    confidence: float | None,
    thoughts: Thoughts,
    ks: tuple[int, ...],
) -> Outcome:
    """Collect the results of one problem.

    judged: the answer of the greedy solution, and the verdict on it.
    """
    given = greedy.completion.samples
    first = given[0] if given else Sample((), "", (), "length")
    answer, found = judged
    answers = _answers(sampled, thoughts) if sampled else ()
    each = [verdict(problem, one) for one in answers]
    verdicts = tuple(map(bool, each))
    vote = grouped(answers)
    return Outcome(
        problem_id=problem.id,
        reference=problem.answer or "",
        text=first.text,
        answer=answer,
        correct=bool(found),
        cut=first.finish == "length",
        confidence=confidence,
        sample_answers=answers,
        sample_correct=verdicts,
        majority_correct=tuple(_majority(vote.classes, k, verdicts) for k in ks) if answers else (),
        error=greedy.completion.error or (sampled.completion.error if sampled else None),
        undecided=sum(one.undecided for one in (found, *each)),
        undecided_pairs=vote.undecided,
    )


def _answers(drawn: Drawn, thoughts: Thoughts) -> tuple[str | None, ...]:
    """The answers that the policy states in some samples; replies of an environment do not count."""
    found = []
    for index in range(len(drawn.completion.samples)):
        given = drawn.acted[index].answer if drawn.acted else None
        text = thoughts.stated(thoughts.settings.prefill + drawn.own_text(index))
        found.append(extract_answer(text, thoughts.settings.answer_style) if given is None else given)
    return tuple(found)


def _majority(voted: Sequence[Sequence[int]], k: int, verdicts: Sequence[bool]) -> bool:
    """The verdict on the majority vote of the first k samples.

    The largest class of mathematically equal answers wins. Ties go to the class that was sampled first.

    voted: the classes of all samples, as indices. verdicts: of all samples.
    """
    classes = [first for members in voted if (first := [index for index in members if index < k])]
    if not classes:
        return False
    winner = max(classes, key=lambda members: (len(members), -members[0]))
    return verdicts[winner[0]]
