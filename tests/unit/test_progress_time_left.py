"""The time left against the truth: runs that are scheduled here job by job."""

import heapq
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.run.time_left import Remaining, TimeLeft, estimate_time_left

ONE_CORE = {"_cores": 1}


def left(jobs, mean_s, limits, follows=(), uses=ONE_CORE):
    remaining = {rule: Remaining(n, (), uses) for rule, n in jobs.items()}
    return estimate_time_left(remaining, mean_s, limits, follows)


def test_jobs_side_by_side_and_one_after_the_other():
    assert left({"a": 10}, {"a": 3.0}, {"_cores": 2}) == TimeLeft(15.0)
    assert left({"a": 1, "b": 1}, {"a": 3.0, "b": 4.0}, {"_cores": 8}, [("a", "b")]) == TimeLeft(7.0)
    assert left({"a": 1, "b": 1}, {"a": 3.0, "b": 4.0}, {"_cores": 8}) == TimeLeft(4.0)


def test_a_rule_that_is_done_still_joins_those_around_it():
    chain = [("a", "b"), ("b", "c")]
    assert left({"a": 1, "c": 1}, {"a": 3.0, "c": 4.0}, {"_cores": 8}, chain) == TimeLeft(7.0)


def test_the_one_gpu_decides():
    assert left({"organs": 6}, {"organs": 60.0}, {"_cores": 16, "gpu": 1}, uses={"_cores": 1, "gpu": 1}).seconds == 360


def test_a_run_without_a_gpu_lets_jobs_have_none():
    """As Snakemake does under `--resources gpu=0`."""
    limits, uses = {"_cores": 2, "gpu": 0}, {"_cores": 1, "gpu": 0}
    assert left({"organs": 6}, {"organs": 60.0}, limits, uses=uses).seconds == 180


def test_what_runs_counts_for_what_is_left_of_it():
    remaining = {"a": Remaining(0, [1.0, 2.5, 9.0], ONE_CORE)}  # the last one takes longer than it should
    assert estimate_time_left(remaining, {"a": 3.0}, {"_cores": 1}, ()) == TimeLeft(2.5)


def test_what_has_never_ended_is_named_and_the_rest_is_a_lower_bound():
    assert left({"a": 2, "b": 1}, {"a": 3.0}, {"_cores": 2}) == TimeLeft(3.0, ("b",))
    assert left({"b": 1}, {}, {"_cores": 2}) == TimeLeft(None, ("b",))
    assert left({}, {}, {"_cores": 2}) == TimeLeft(0.0)


def test_rules_that_use_each_other_have_no_chain():
    assert left({"a": 1, "b": 1}, {"a": 3.0, "b": 4.0}, {}, [("a", "b"), ("b", "a")]) == TimeLeft(4.0)


@given(
    patients=st.integers(1, 6),
    seconds=st.lists(st.floats(0.5, 60.0), min_size=1, max_size=4),
    cores=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_no_run_ends_earlier_and_none_later_than_graham_allows(patients, seconds, cores):
    """Patients go through the rules one after the other; jobs start as soon as a core is free."""
    waiting = [(0.0, 0)] * patients  # ready at, rule
    free, end = [0.0] * cores, 0.0
    while waiting:
        ready, rule = heapq.heappop(waiting)
        finish = max(ready, heapq.heappop(free)) + seconds[rule]
        heapq.heappush(free, finish)
        end = max(end, finish)
        if rule + 1 < len(seconds):
            heapq.heappush(waiting, (finish, rule + 1))
    names = [f"rule{number}" for number in range(len(seconds))]
    said = left(
        dict.fromkeys(names, patients),
        dict(zip(names, seconds, strict=True)),
        {"_cores": cores},
        list(itertools.pairwise(names)),
    ).seconds
    assert said <= end * (1 + 1e-9)
    assert end <= 2 * said * (1 + 1e-9)  # Graham 1969: work / cores + chain, each of them at most what was said


def test_an_endless_resource_is_no_limit():
    assert left({"a": 10}, {"a": 3.0}, {}).seconds == pytest.approx(3.0)
