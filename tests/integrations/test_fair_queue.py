"""The fair queue: places are shared by work, and no job is forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.integrations.fair_queue import FairQueue, extra_places

acts = st.lists(
    st.tuples(st.sampled_from("atedx"), st.integers(0, 7), st.integers(1, 5), st.integers(1, 900)), max_size=60
)


@given(acts, st.integers(1, 9), st.integers(1, 300))
def test_places_are_never_overdrawn_and_nothing_is_forgotten(
    acts: list[tuple[str, int, int, int]], places: int, unit: int
) -> None:
    jobs: FairQueue[str] = FairQueue(places, unit)
    budgets: dict[str, list[int]] = {}
    active: set[tuple[str, int]] = set()
    waiting: set[tuple[str, int]] = set()

    def start() -> bool:
        found = jobs.take()
        if found is None:
            return False
        waiting.remove(found)
        active.add(found)
        return True

    for number, (act, who, count, budget) in enumerate(acts):
        if act == "a":
            job = f"{who}-{number}"
            budgets[job] = [budget] * count
            jobs.add(job, str(who % 3), budgets[job])
            waiting |= {(job, index) for index in range(count)}
        elif act == "t":
            start()
        elif act == "e" and active:
            one = sorted(active)[who % len(active)]
            active.remove(one)
            jobs.end(*one)
            jobs.end(*one)  # twice is no error
        elif act == "d" and budgets:
            job = sorted(budgets)[who % len(budgets)]
            left, running = jobs.drop(job)
            assert left == sum(one[0] == job for one in waiting)
            assert {(job, index) for index in running} == {one for one in active if one[0] == job}
            waiting, active = ({one for one in some if one[0] != job} for some in (waiting, active))
        assert (jobs.waiting, jobs.active) == (len(waiting), len(active))
        assert jobs.active <= places + extra_places(places)
        assert set(jobs.jobs) == {job for job, _ in waiting | active}
        assert all(jobs.running(*one) for one in active)
    while waiting or active:  # every waiting search starts in the end
        if not start():
            assert active, "nothing runs and nothing starts"
            one = active.pop()
            jobs.end(*one)
    assert jobs.jobs == []


@pytest.mark.parametrize("clients", [("one", "other"), ("same", "same")])
def test_work_is_shared_by_tokens(clients: tuple[str, str]) -> None:
    jobs: FairQueue[str] = FairQueue(8, 100)
    jobs.add("heavy", clients[0], [400] * 500)
    jobs.add("light", clients[1], [50] * 4000)
    work: Counter[str] = Counter()
    running: list[tuple[str, int]] = []
    for _ in range(600):
        while (found := jobs.take()) is not None:
            running.append(found)
            work[found[0]] += 400 if found[0] == "heavy" else 50
        jobs.end(*running.pop(0))
    assert abs(work["heavy"] - work["light"]) <= 900


def test_a_late_client_gets_its_share_from_its_arrival_on() -> None:
    jobs: FairQueue[str] = FairQueue(4, 100)
    jobs.add("old", "a", [100] * 1000)
    running = []
    for _ in range(300):
        while (found := jobs.take()) is not None:
            running.append(found)
        jobs.end(*running.pop(0))
    jobs.add("new", "b", [100] * 1000)
    work: Counter[str] = Counter()
    for _ in range(200):
        while (found := jobs.take()) is not None:
            running.append(found)
            work[found[0]] += 1
        jobs.end(*running.pop(0))
    assert abs(work["old"] - work["new"]) <= 4


def test_many_small_requests_do_not_starve_a_large_one() -> None:
    jobs: FairQueue[str] = FairQueue(4, 100)
    jobs.add("large", "a", [100] * 200)
    running: list[tuple[str, int]] = []
    started = 0
    for number in range(2000):
        jobs.add(f"small {number}", "a", [100])
        while (found := jobs.take()) is not None:
            running.append(found)
            started += found[0] == "large"
        jobs.end(*running.pop(0))
    assert started >= 20
