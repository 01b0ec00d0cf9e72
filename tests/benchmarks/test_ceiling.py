"""The ceiling of an engine whose every token costs a known time."""

from pathlib import Path

import pytest

from benchmarks.ceiling import Ceiling, measure
from mcts_dpo.engines import Usage, load_engine
from mcts_dpo.engines.base import Engine
from tests.engines.tiny import save_model


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    # Most of its continuations end at once: the sequences that live to the last token have to be looked for.
    return load_engine(save_model(tmp_path), slots=4, threads=1)


def test_a_clock_that_charges_per_token_gives_those_rates_back(engine: Engine) -> None:
    def clock() -> float:
        return engine.usage.prefill_tokens / 1000 + engine.usage.sampled_tokens / 50

    ceiling = measure(engine, batch_sizes=(4, 1), prefix=90, tokens=6, repeats=1, clock=clock)
    assert ceiling.batch_sizes == (1, 4)
    reading = 1 / 1000 + 1 / 50 / 90  # each passage of 90 tokens pays for the one token that is asked of it
    assert ceiling.prefill == pytest.approx(1 / reading, rel=0.02)  # what two passages share is computed once
    assert ceiling.behind == pytest.approx(1000)  # of a question nothing is sampled
    # Each sequence of a timed batch runs one token of its prefix again, for which it is charged as for reading.
    spare = (reading - 1 / 1000) / 6
    assert ceiling.step_seconds == pytest.approx((1 / 50 - spare, 4 / 50 - 4 * spare), rel=1e-3)
    assert ceiling.decode(1) == pytest.approx(50, rel=0.01)
    assert engine.usage.sampled_tokens > 0


def test_prediction() -> None:
    ceiling = Ceiling((1, 8, 32), (0.010, 0.024, 0.064), prefill=2000.0, behind=1000.0, context=100)
    assert ceiling.decode(1) == pytest.approx(100)
    assert ceiling.decode(32) == ceiling.decode(64) == pytest.approx(500)
    assert ceiling.decode(20) == pytest.approx(20 / 0.044)
    usage = Usage(prompt_tokens=9999, prefill_tokens=4000, sampled_tokens=1000)
    assert ceiling.predict(usage, slots=32) == pytest.approx(4000 / 2000 + 1000 / 500)
    assert ceiling.predict(usage, slots=32, asked=500) == pytest.approx(3500 / 2000 + 500 / 1000 + 1000 / 500)


def test_an_engine_that_cannot_serve_says_why(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="context of 128"):
        measure(engine, batch_sizes=(1,), prefix=200, tokens=4)
