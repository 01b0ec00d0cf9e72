"""The order in which requests go into a busy engine."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.engines.base import Request
from mcts_dpo.search.shares import Shares


def request(number: int, n: int = 1, size: int = 10) -> Request:
    return Request(number, (1,), n=n, max_tokens=size)


@given(
    st.lists(st.tuples(st.sampled_from("aate"), st.integers(0, 3), st.integers(1, 5)), max_size=60), st.integers(1, 9)
)
def test_nothing_is_lost_and_room_is_kept(acts: list[tuple[str, int, int]], room: int) -> None:
    shares = Shares(room)
    waiting: dict[int, tuple[int, int]] = {}
    inside: dict[int, int] = {}
    for number, (act, share, n) in enumerate(acts):
        if act == "a":
            shares.add(request(number, n), share)
            waiting[number] = (share, n)
        elif act == "t":
            full = sum(inside.values()) >= room
            found = shares.take()
            assert (found is None) == (full or not waiting)
            if found is not None:
                mine, inside[found.id] = waiting.pop(found.id)
                assert all(other > found.id for other, (share, _) in waiting.items() if share == mine), "in order"
        elif act == "e" and (waiting or inside):
            gone = sorted([*waiting, *inside])[share % (len(waiting) + len(inside))]
            shares.end([gone])
            waiting.pop(gone, None)
            inside.pop(gone, None)
    for _ in range(len(waiting)):
        shares.end(list(inside))
        inside.clear()
        found = shares.take()
        assert found is not None
        inside[found.id] = found.n
    assert shares.take() is None


def test_a_share_with_thousands_takes_turns_with_one_of_few() -> None:
    shares = Shares(4)
    for number in range(5000):
        shares.add(request(number), "many")
    inside = []
    for _ in range(100):
        while (found := shares.take()) is not None:
            inside.append(found.id)
        shares.end([inside.pop(0)])
    for number in range(5000, 5020):
        shares.add(request(number), "few")
    order: Counter[str] = Counter()
    for _ in range(45):
        while (found := shares.take()) is not None:
            inside.append(found.id)
            order["few" if found.id >= 5000 else "many"] += 1
        shares.end([inside.pop(0)])
    assert order["few"] == 20, "every other place is theirs"


def test_clients_share_evenly_and_so_do_the_jobs_of_each() -> None:
    shares = Shares(4)
    lines = [("many", job) for job in range(9)] + [("few", "heavy"), ("few", "light")]
    for number in range(len(lines) * 500):
        shares.add(request(number), lines[number % len(lines)])
    taken: Counter[tuple[str, object]] = Counter()
    inside: list[int] = []
    for _ in range(400):
        while (found := shares.take()) is not None:
            inside.append(found.id)
            taken[lines[found.id % len(lines)]] += 1
        shares.end([inside.pop(0)])
    many = [taken["many", job] for job in range(9)]
    assert abs(sum(many) - taken["few", "heavy"] - taken["few", "light"]) <= 2
    assert max(many) - min(many) <= 1
    assert abs(taken["few", "heavy"] - taken["few", "light"]) <= 1


def test_nothing_is_remembered_of_those_who_are_gone() -> None:
    shares = Shares(2)
    for number in range(1000):
        shares.add(request(number), (f"client {number % 7}", number))
        assert shares.take() is not None
        shares.add(request(-1 - number), (f"client {number % 7}", -number))
        shares.end([number, -1 - number])
    assert not any([shares._waiting, shares._had, shares._now, shares._inside, shares._taken])


def test_one_that_waits_is_not_overtaken_by_newcomers_for_ever() -> None:
    """Each newcomer asks for one thing and is gone; what is known of them does not grow."""
    # A client beside theirs has every other turn; a job beside theirs its turn among all that wait by then.
    for share, least in (("always there", 450), (("client", "always there"), 40)):
        shares = Shares(2)
        shares.add(request(-1), share)
        had = 0
        for number in range(1000):
            shares.add(request(number), ("client", number))
            found = shares.take()
            assert found is not None
            shares.end([found.id])
            if found.id == -1:
                had += 1
                shares.add(request(-1), share)
            assert len(shares._had) <= 2 * len(shares._waiting) + 4
        assert had >= least
