"""How a sequence is cut into segments so that a sweep fits a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

from bptt.errors import OptionError
from bptt.reuse import KEPT
from bptt.segments._bytes import course_of, readable
from bptt.segments._revolve import advances, repetitions
from bptt.state import State, leaves

ENOUGH_BYTES, ENOUGH_STEPS = 1 << 24, 128
"""Segments larger than both save no time: what a call costs beside its steps is spread out, and
memory that small is used again instead of being asked for."""

FEW_STEPS = 512
"""Shorter segments gain nothing by being unfolded side by side: most of it goes into calls."""

SPARE = 0.1
"""The share of a budget that a plan leaves over, for what it does not foresee."""

OF_A_TENSOR = 640
"""Bytes that a small tensor takes beside its elements."""


class Line(NamedTuple):
    """Bytes as a function of the steps: ``fixed + steps * each``."""

    fixed: float
    each: float

    def __call__(self, steps: int) -> int:
        return max(round(self.fixed + self.each * steps), 0)

    @classmethod
    def through(cls, one: tuple[int, int], other: tuple[int, int]) -> Line:
        """The line through two (steps, bytes)."""
        each = (other[1] - one[1]) / (other[0] - one[0])
        return cls(one[1] - each * one[0], each)


NOTHING = Line(0.0, 0.0)


class Peak(tuple[Line, ...]):
    """Bytes as a function of the steps where one of several lines is the highest: what is held at
    the most is held at one moment of a short run, and at another of a long one."""

    __slots__ = ()

    def __call__(self, steps: int) -> int:
        return max(line(steps) for line in self)

    @property
    def each(self) -> float:
        """By how much it grows with a step, when it is high."""
        return max(line.each for line in self)

    def higher(self, each: float) -> Peak:
        """With so many bytes more for each step."""
        return Peak(line._replace(each=line.each + each) for line in self)

    def __or__(self, other: Peak) -> Peak:
        """The higher one of two."""
        found: list[Line] = []
        for line in sorted({*self, *other}, reverse=True):
            if all(line.each > known.each for known in found):  # else it is never the highest
                found.append(line)
        return Peak(found)


FLAT = Peak([NOTHING])


@dataclass(frozen=True)
class Costs:
    """What a sweep holds, in bytes.

    Attributes:
        sweep: at the most, unfolding a segment of so many steps and going back over it.
        unfold: at the most, unfolding it alone.
        advance: at the most, running it without a gradient.
        state: a kept state.
        gradients: of the parameters.
        core: what the core works in, with the packed weights.
        arrays: of an unfolding, the part that it takes at once.
        data: read ahead of their use, where segments have so many steps.
        chunk: a step of the data themselves, where they are read for each segment.
        on_cpu: whether that is memory of the C library's.
    """

    sweep: Peak
    unfold: Peak
    advance: Peak
    state: int
    gradients: int = 0
    core: int = 0
    arrays: Line = NOTHING
    data: Callable[[int], int] = lambda steps: 0
    chunk: float = 0.0
    on_cpu: bool = True

    def fixed(self, segment: int) -> int:
        """Whatever is at work; two more states are on their way."""
        return self.gradients + self.core + self.data(segment) + 2 * self.state

    def working(self, segment: int, ahead: bool = False, beside: int = 1) -> int:
        """For the segments at work: two of them where the next one is unfolded ahead, and as many
        as are unfolded side by side."""
        others = beside - 1 + ahead
        chunks = round(self.chunk * segment * (2 * beside if beside > 1 else 1 + ahead))
        swept = self.sweep(segment) + others * (self.unfold(segment) + self.state)
        return chunks + max(swept, self.advance(segment))


def state_bytes(state: State) -> int:
    """What one kept state takes."""
    return sum(leaf.nbytes + OF_A_TENSOR for leaf in leaves(state))


def peaks(run: Callable[[int], Iterable[Callable[[], object]]], steps: int) -> list[Peak]:
    """The peaks of a run over its steps, measured at ``steps`` and half as many.

    ``run(steps)`` gives its parts, to be called one after the other. Peak i is the most that is
    held at a time until part i is done. Where both runs take memory equally often, every moment of
    one has its like in the other, and a line goes through each pair; else one goes through their
    peaks.
    """
    few, many = max(steps // 2, 1), max(steps, 2)
    for part in (*run(1), *run(1)):  # what is traced, compiled and kept once is no part of it
        part()
    found, highest = [], FLAT
    for one, other in zip(_courses(run(few)), _courses(run(many)), strict=True):
        alike = len(one) == len(other)
        pairs = zip(one, other, strict=True) if alike else [(max(one), max(other))]
        highest |= Peak(Line.through((few, a), (many, b)) for a, b in pairs)
        found.append(highest)
    return found


def _courses(parts: Iterable[Callable[[], object]]) -> Iterator[list[int]]:
    """Of each part, what is held from the first part on."""
    held = 0
    for part in parts:
        course = [held + now for now in course_of(part)[1]]
        held = course[-1]
        yield course


@dataclass(frozen=True)
class SegmentPlan:
    """A sweep's segments, and what they cost; ``print`` shows it.

    Attributes:
        steps: of the whole sequence.
        lanes: that run side by side.
        segment: the steps of a segment; the last may have fewer.
        kept: how many states are kept at a time, the first among them.
        ahead: whether a second core unfolds the next segment while one is swept.
        beside: how many segments are unfolded side by side.
        budget: in bytes, or None.
        costs: as they were measured, or None.
    """

    steps: int
    lanes: int
    segment: int
    kept: int
    ahead: bool = False
    beside: int = 1
    budget: int | None = None
    costs: Costs | None = None

    @property
    def segments(self) -> int:
        """How many there are."""
        return max(-(-self.steps // self.segment), 1)

    @property
    def recomputed(self) -> int:
        """How many steps are run in addition to one forward pass."""
        # The last segment, which may be shorter, is never advanced.
        return advances(self.segments, self.kept) * self.segment

    @property
    def repetitions(self) -> int:
        """How often a step is run in addition to the first time, at the most."""
        return repetitions(self.segments, self.kept)

    @property
    def peak(self) -> int:
        """The bytes held at the most, as predicted."""
        assert self.costs is not None
        if self.segments == 1:
            return self.costs.fixed(self.segment) + self.costs.working(self.segment)
        held = self.costs.fixed(self.segment) + self.kept * self.costs.state
        return held + self._working + self.freed

    @property
    def _working(self) -> int:
        assert self.costs is not None
        return self.costs.working(self.segment, self.ahead, self.beside)

    @property
    def arrays(self) -> int:
        """The bytes that segments unfolded together take at once; 0: not known."""
        return 0 if self.costs is None else self.beside * self.costs.arrays(self.segment)

    @property
    def freed(self) -> int:
        """The bytes that the C library may keep of what segments freed."""
        assert self.costs is not None
        if self.segments == 1 or not self.costs.on_cpu:
            return 0
        return min(self.costs.working(self.segment), KEPT) * (1 + self.ahead)

    def __str__(self) -> str:
        times = {0: "none", 1: "each once"}.get(
            self.repetitions, f"none more than {self.repetitions} times"
        )
        shown = {
            "sequence": f"{self.steps:,} steps on {self.lanes} lane{'s' * (self.lanes != 1)}",
            "segments": f"{self.segments:,} of {self.segment:,} steps",
            "kept states": f"{self.kept:,}",
            "recomputed steps": f"{self.recomputed:,}, {times}",
        }
        if self.costs is not None:
            shown["kept states"] += f" of {readable(self.costs.state)}"
            within = "" if self.budget is None else f" of {readable(self.budget)}"
            shown["predicted peak"] = f"{readable(self.peak)}{within}"
            shown[""] = self._parts()
        width = max(map(len, shown))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())

    def _parts(self) -> str:
        costs = self.costs
        assert costs is not None
        several = self.segments > 1
        ahead = self.ahead and several
        beside = self.beside if several else 1
        one = costs.working(self.segment)
        others = costs.working(self.segment, ahead, beside) - one
        parts = {
            "segment": one,
            "another, unfolded ahead by a second core": others if ahead else 0,
            f"{beside - 1} more, unfolded side by side": 0 if ahead else others,
            "freed and kept for the next": self.freed,
            "states": (self.kept + 2) * costs.state,
            "gradients": costs.gradients,
            "packed weights and workspace": costs.core,
            "data read ahead": costs.data(self.segment),
        }
        return ", ".join(f"{name} {readable(size)}" for name, size in parts.items() if size)


def choose(
    costs: Costs, steps: int, lanes: int, budget: int, idle_core: bool = False, beside: int = 1
) -> SegmentPlan:
    """The plan that runs the fewest steps again within ``budget`` bytes; where it can be, a second
    core that is idle unfolds ahead, or else ``beside`` segments are unfolded side by side.

    Everything in one piece where that fits; else two levels, with segments that are large enough
    to lose no time; else fewer kept states than segments, and Revolve's schedule. A little of the
    budget is left over where it can be: predictions are seldom more than that too low.

    Raises:
        OptionError: nothing fits; says what would.
    """
    whole = SegmentPlan(steps, lanes, steps, 1, budget=budget, costs=costs)
    for within in (budget - round(SPARE * budget), budget):
        found = _best(replace(whole, budget=within), idle_core, beside)
        if found is not None:
            return replace(found, budget=budget)
    raise OptionError(_impossible(whole, budget))


def _best(plan: SegmentPlan, idle_core: bool, beside: int) -> SegmentPlan | None:
    """The plan to choose within its budget, None if there is none."""
    assert plan.budget is not None
    if plan.peak <= plan.budget:
        return plan
    sizes = _sizes(plan.steps)
    if idle_core or beside > 1:
        faster = replace(plan, ahead=True) if idle_core else replace(plan, beside=beside)
        fewest = 1 if idle_core else FEW_STEPS
        simple = [p for n in sizes if n >= fewest and (p := _filled(faster, n)) and _is_simple(p)]
        if simple:
            return max(simple, key=lambda p: p.segment)
    fitting = [p for n in sizes if (p := _filled(plan, n))]
    simple = [p for p in fitting if _is_simple(p)]
    if simple:
        return max(simple, key=lambda p: p.segment)
    return min(fitting, key=lambda p: (p.recomputed, -p.segment), default=None)


def _sizes(steps: int) -> list[int]:
    """Segments to choose from, each about a fifth longer than the one before."""
    sizes = takewhile(lambda n: n < steps, (round(2 ** (i / 4)) for i in range(4 * 64)))
    return sorted(set(sizes))


def _is_simple(plan: SegmentPlan) -> bool:
    """Whether it has two levels, and segments no longer than serves."""
    assert plan.costs is not None
    enough = plan.segment <= ENOUGH_STEPS or plan.costs.sweep(plan.segment) <= ENOUGH_BYTES
    return plan.kept >= plan.segments - 1 and enough


def _filled(plan: SegmentPlan, segment: int) -> SegmentPlan | None:
    """The plan with segments of this size, and as many kept states as are of use and fit."""
    assert plan.costs is not None
    assert plan.budget is not None
    found = replace(plan, segment=segment, kept=0)
    kept = (plan.budget - found.peak) // plan.costs.state
    return replace(found, kept=min(kept, max(found.segments - 1, 1))) if kept > 0 else None


def _impossible(plan: SegmentPlan, budget: int) -> str:
    least = replace(plan, segment=1, kept=1)
    sizes = [1, *_sizes(plan.steps)]
    levels = [replace(plan, segment=n, kept=max(-(-plan.steps // n) - 1, 1)) for n in sizes]
    easy = min(levels, key=lambda p: p.peak)
    needed = 0 if least.costs is None else least.costs.fixed(1)
    return (
        f"memory={readable(budget)} is too little for {plan.steps:,} steps on {plan.lanes} "
        f"lane(s): the least possible is {_up(least.peak)}, which runs every step up to "
        f"{least.repetitions:,} times again; with {_up(easy.peak)} none is run more than once "
        f"again. Of that, {readable(needed)} is needed whatever the segments: {least._parts()}."
    )


def _up(count: int) -> str:
    """Rounded up, so that it is enough if it is given."""
    step = 10 ** max(len(str(count)) - 3, 0)
    return readable(-(-count // step) * step)
