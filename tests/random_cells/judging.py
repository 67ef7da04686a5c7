"""`verdict`: whether a seed's numbers are the same under ``auto`` and under ``eager``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bptt.engine.runtime.compile_cache import Plan

from .uses import Results, Use

SECONDS = 20
"""Of a processor, that one case may take under one backend."""

TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-4}
ROUNDING = 32
"""Units in the last place by which every operator's result is moved: what moves a result of the
whole by as much as it is off tells nothing."""


class TooLong(BaseException):
    """Not an `Exception`, so that nothing takes it for its own."""


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


@dataclass
class Verdict:
    """Of one seed: what differs, if anything; what eager raised, if it did; whether any of it ran
    natively, without which nothing was compared."""

    seed: int
    use: str
    special: list[str]
    difference: str | None
    refused: str | None = None
    native: bool = False


def verdict(seed: int) -> Verdict:
    """Run a seed under both."""
    use = Use(seed, "auto")
    drawn = use.drawn
    with programs_used() as used:
        found = _limited(use)
    expected = _limited(Use(seed, "eager"))
    difference = differs(found, expected, use.dtype, 0.0)
    if difference is not None and "is off by" in difference:
        with Rounding():
            moved = _limited(Use(seed, "eager"))
        if differs(found, expected, use.dtype, spread(moved, expected)) is None:
            difference = None
    error = dict(expected).get("error")
    refused = None if error is None else f"{type(error).__name__}: {error}"
    return Verdict(seed, use.kind, drawn.special, difference, refused, bool(used))


class Rounding(TorchDispatchMode):
    """Every operator's new result is rounded otherwise, as another order of its sums would."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(7)  # no generator of the cell's moves

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if all(r.alias_info is None for r in func._schema.returns):
            for one in made if isinstance(made, tuple) else (made,):
                if type(one) is Tensor and one.is_floating_point():
                    signs = torch.empty(one.shape, dtype=one.dtype, device=one.device)
                    signs.uniform_(-1, 1, generator=self.generator)
                    one.add_(signs.mul_(one).mul_(ROUNDING * torch.finfo(one.dtype).eps))
        return made


@contextmanager
def programs_used() -> Iterator[list[Plan]]:
    """The programs that calls are given within."""
    found: list[Plan] = []
    bound = Plan.bound

    def noted(plan: Plan, *tensors: Any) -> Plan:
        found.append(plan)
        return bound(plan, *tensors)

    Plan.bound = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Plan.bound = bound  # type: ignore[method-assign]


def _limited(use: Use) -> Results:
    before = [signal.signal(s, _too_long) for s in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)  # one that only waits
    try:
        return use.run()
    except TooLong:
        return [("error", TimeoutError(f"more than {SECONDS} s"))]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for s, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(s, handler)


def spread(moved: Results, expected: Results) -> float:
    """How far all results go where every operator's moves by what is nothing."""
    there = dict(moved)
    pairs = [(there[name], value) for name, value in expected if name in there]
    return max((_off(one, other) for one, other in pairs if _comparable(one, other)), default=0.0)


def _comparable(one: Any, other: Any) -> bool:
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return both and one.shape == other.shape and one.is_floating_point() and one.numel() > 0


def _off(one: Tensor, other: Tensor) -> float:
    """The greatest difference, relative to the greatest magnitude (at least 1)."""
    one, other = one.detach().double(), other.detach().double()
    same = (one == other) | (one.isnan() & other.isnan())
    scale = float(torch.nan_to_num(other, posinf=0.0, neginf=0.0).abs().max().clamp(min=1.0))
    gap = torch.where(same, torch.zeros(()), (one - other).abs()) / scale
    return float(torch.nan_to_num(gap, nan=torch.inf).max())


def differs(found: Results, expected: Results, dtype: torch.dtype, allowed: float) -> str | None:
    """The first difference, in words. Where ``eager`` raises, ``auto`` may give numbers."""
    one, other = dict(found), dict(expected)
    raised, wanted = one.pop("error", None), other.pop("error", None)
    if raised is not None and type(raised) is not type(wanted):
        return f"auto raises {raised!r}; eager: {wanted!r}"[:300]
    if wanted is not None:
        return None
    for name, value in other.items():
        if name not in one:
            return f"{name} is missing"
        problem = _unlike(one[name], value, max(allowed, TOLERANCES[dtype]))
        if problem is not None:
            return f"{name} {problem}"
    return next((f"{n} is not zero" for n in one if n not in other and not _nothing(one[n])), None)


def _nothing(value: Any) -> bool:
    """A gradient where ``eager`` has none must be zero."""
    return isinstance(value, Tensor) and not value.any()


def _unlike(one: Any, other: Any, tolerance: float) -> str | None:
    if not isinstance(other, Tensor) or not isinstance(one, Tensor):
        # By what is printed: a number that is not one is unlike itself.
        same = one == other or repr(one) == repr(other)
        return None if same else f"is {one} for {other}"[:200]
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype} {list(one.shape)} for {other.dtype} {list(other.shape)}"
    if type(one) is not type(other):
        return f"a {type(one).__name__} for a {type(other).__name__}"
    if not one.is_floating_point():
        return None if torch.equal(one, other) else "is another"
    off = _off(one, other) if one.numel() else 0.0
    return None if off <= tolerance else f"is off by {off:.1e}"
