"""The server's pure parts: stop strings in a text that grows, and what its settings refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.integrations.server.settings import ServerSettings, is_loopback
from mcts_dpo.integrations.stop_strings import before_stop, certain

texts = st.text("ab\n", max_size=12)
stops = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(st.lists(texts, max_size=6), stops)
def test_what_is_certain_of_a_growing_text_is_never_taken_back(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    cut = before_stop(whole, stops)
    assert whole.startswith(cut)
    assert not any(stop in cut for stop in stops)
    streamed = ""
    for end in range(len(pieces) + 1):
        now = certain("".join(pieces[:end]), stops)
        assert now.startswith(streamed), "streamed text stays"
        assert cut.startswith(now), "only the final text is streamed"
        streamed = now
    longest = max(map(len, stops), default=1)
    assert len(cut) - len(streamed) < longest, "only a possible beginning of a stop string is held back"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a budget of generated tokens"),
        ({"budget": 0}, "budget: 0"),
        ({"budget": 9, "max_budget": 8}, "max_budget 8 is below the budget 9"),
        ({"budget": 9, "host": "0.0.0.0"}, "host '0.0.0.0' can be reached from other machines"),
        ({"budget": 9, "host": "::"}, "needs a key"),
        ({"budget": 9, "host": "example.org"}, "needs a key"),
        ({"budget": 9, "port": 70000}, "port: 70000"),
        ({"budget": 9, "strategy": "mtcs"}, "did you mean 'mcts'"),
    ],
)
def test_settings_that_will_not_do(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(ServerSettings, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_only_this_machine_can_reach() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "localhost.example.org", "")))
    assert load_settings(ServerSettings, {"budget": 9, "host": "0.0.0.0", "key": "k"}).key == "k"
    assert load_settings(ServerSettings, {"strategy": "greedy"}).budget is None
