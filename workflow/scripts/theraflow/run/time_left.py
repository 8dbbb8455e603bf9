"""How long a run will still take, as far as that can be known."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter


@dataclass(frozen=True)
class Remaining:
    """What is left of one rule.

    Attributes:
        waiting: number of its jobs that have not begun.
        elapsed_s: for each of its jobs that run, for how long they have.
        uses: how much of each limited resource one job takes: `_cores`, `_nodes`, `gpu`, ...
    """

    waiting: int = 0
    elapsed_s: Sequence[float] = ()
    uses: Mapping[str, int] = field(default_factory=dict)

    def work_s(self, mean_s: float) -> float:
        """Duration of all its jobs one after the other; one that runs for longer than the mean counts as nearly over.

        Args:
            mean_s: mean duration of a job.
        """
        return self.waiting * mean_s + sum(max(mean_s - elapsed, 0.0) for elapsed in self.elapsed_s)

    def longest_s(self, mean_s: float) -> float:
        """The time that passes at least, however many jobs run at once."""
        if self.waiting:
            return mean_s
        return max((max(mean_s - elapsed, 0.0) for elapsed in self.elapsed_s), default=0.0)


@dataclass(frozen=True)
class TimeLeft:
    """What can be said of the time left.

    Attributes:
        seconds: None where nothing is known.
        unknown: rules that still have jobs and of which none has ever ended: the time left is at least `seconds`.
    """

    seconds: float | None
    unknown: tuple[str, ...] = ()


def estimate_time_left(
    remaining: Mapping[str, Remaining],
    mean_s: Mapping[str, float],
    limits: Mapping[str, int],
    follows: Iterable[tuple[str, str]],
) -> TimeLeft:
    """The greater of two times below which a run cannot end: that of its scarcest resource, that of its longest chain.

    The first is the work of all jobs, each weighted by its share of the resource, as if that were never idle; the
    second is the longest path through the rules that have jobs left, one job each. Both hold for any order of jobs
    (Graham, SIAM J Appl Math 1969;17:416); what a run takes longer than that is idle time.

    Args:
        remaining: by rule, what is left of it.
        mean_s: by rule, the mean duration of a job that has ended, in s.
        limits: what the run has of each limited resource.
        follows: pairs of rules, the second of which uses what the first makes.
    """
    unknown = tuple(sorted(rule for rule in remaining if rule not in mean_s))
    known = {rule: left for rule, left in remaining.items() if rule in mean_s}
    if not known:
        return TimeLeft(None if unknown else 0.0, unknown)
    work = {rule: left.work_s(mean_s[rule]) for rule, left in known.items()}
    bounds = [
        sum(work[rule] * left.uses.get(resource, 0) for rule, left in known.items()) / limit
        for resource, limit in limits.items()
        if limit  # where a run has none, as by `--resources gpu=0`, no job gets any
    ]
    longest = {rule: left.longest_s(mean_s[rule]) for rule, left in known.items()}
    return TimeLeft(max([*bounds, _longest_chain(longest, follows)]), unknown)


def _longest_chain(seconds: Mapping[str, float], follows: Iterable[tuple[str, str]]) -> float:
    before = defaultdict(set)
    for first, second in follows:
        if first != second:
            before[second].add(first)
    nodes = {*seconds, *before, *(rule for rules in before.values() for rule in rules)}
    try:
        order = list(TopologicalSorter({rule: before[rule] for rule in sorted(nodes)}).static_order())
    except CycleError:  # rules may use each other's results, though jobs never do
        return max(seconds.values())
    ends: dict[str, float] = {}
    for rule in order:
        ends[rule] = seconds.get(rule, 0.0) + max((ends[first] for first in before[rule]), default=0.0)
    return max(ends.values())
