"""Which tensors the gradient of a result reaches, as autograd finds it in the Python loop.

What reaches nothing that needs a gradient needs none itself, and what the loss does not reach has
the gradient None, not zeros: an optimizer passes over the one, and lets the other decay. Sets of
leaves and of primals are the bits of whole numbers: some cells have them asked for in every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bptt.engine.runtime.loop import Call

_KEPT = 64
"""So many answers are kept; what they depend on seldom changes."""


class Reach:
    """What the leaves of a program's new state reach.

    Args:
        primals: of each leaf, the primals that its gradient reaches within the step.
        states: of each leaf, the leaves of the state before that it reaches.
        count: how many primals there are.
        inline: see `bptt.engine.passes.prologue_epilogue.Frame`.
    """

    __slots__ = ("_answers", "_carries", "_count", "_meets", "_primals", "_states")

    def __init__(
        self, primals: tuple[int, ...], states: tuple[int, ...], count: int, inline: bool
    ) -> None:
        self._primals, self._states, self._count = primals, states, count
        # What runs outside may make something that needs no gradient of what needs one.
        self._carries = inline and all(primals)
        # Whether the gradient of any leaf reaches all that any other's does.
        self._meets = len({*primals}) == 1 and {*states} == {(1 << len(primals)) - 1}
        self._answers: dict[Any, Any] = {}

    def quiet(self, call: Call, needed: Sequence[bool]) -> tuple[int, ...]:
        """The numbers of the results that need no gradient; ``needed`` tells which primals, and
        start and initial leaves if any of them does, need one."""
        if self._carries and call.steps:
            return ()
        key = (call.steps, _shortest(call), call.exposed, tuple(needed), _resets(call, needed))
        found: tuple[int, ...] | None = self._answers.get(key)
        if found is None:
            found = self._keep(key, self._quiet(*key))
        return found

    def received(self, call: Call, needed: Sequence[bool], grads: Sequence[Any]) -> Sequence[bool]:
        """Which of what is ``needed`` (see `quiet`) the results that have gradients reach; the same
        object if all of it."""
        state = call.plan.wanted.state
        if self._meets and call.steps and not (state and call.reset is not None):
            for grad in grads:
                if grad is not None:
                    return needed
        last = over = 0
        for j, grad in enumerate(grads[len(call.exposed) :]):
            last |= 0 if grad is None else 1 << j
        for j, grad in zip(call.exposed, grads, strict=False):
            over |= 0 if grad is None else 1 << j
        key = (call.steps, _shortest(call), last, over, _resets(call, needed))
        reached: tuple[bool, ...] | None = self._answers.get(key)
        if reached is None:
            reached = self._keep(key, self._reached(*key)[: len(needed)])
        if all(reached):
            return needed
        return tuple([need and r for need, r in zip(needed, reached, strict=False)])

    def always(self, steps: int, needed: Sequence[bool]) -> bool:
        """Whether the gradient of each last leaf alone, without resets and lengths, reaches all
        that is ``needed`` (see `quiet`) but for what resets return to."""
        n = len(self._primals)
        for j in range(n):
            reached = self._reached(steps, steps, 1 << j, 0, False)[: self._count + n]
            if any(need and not r for need, r in zip(needed, reached, strict=False)):
                return False
        return True

    def _quiet(
        self,
        steps: int,
        shortest: int,
        exposed: tuple[int, ...],
        needed: tuple[bool, ...],
        resets: bool,
    ) -> tuple[int, ...]:
        n = len(self._primals)
        results = [*((0, 1 << j) for j in exposed), *((1 << j, 0) for j in range(n))]
        found = []
        for number, (last, over) in enumerate(results):
            reached = self._reached(steps, shortest, last, over, resets)
            if not any(r and need for r, need in zip(reached, needed, strict=False)):
                found.append(number)
        return tuple(found)

    def _reached(
        self, steps: int, shortest: int, last: int, over: int, resets: bool
    ) -> tuple[bool, ...]:
        """Which primals, start and initial leaves the gradients of the ``last`` leaves, and of the
        leaves ``over`` all steps, reach."""
        primals, start, entered = self._walk(steps, shortest, last, over)
        initial = entered if resets else 0
        n = len(self._primals)
        sets = ((primals, self._count), (start, n), (initial, n))
        return tuple(bool(bits >> i & 1) for bits, count in sets for i in range(count))

    def _walk(self, steps: int, shortest: int, last: int, over: int) -> tuple[int, int, int]:
        """Back through the steps: the primals, the leaves of the start, and those of any state that
        a step was given."""
        primals = entered = 0
        at = last
        for t in reversed(range(steps)):
            at |= over
            # Where lanes have ended, the state after the step is the one before as well.
            entering = at if t >= shortest else 0
            for j, (own, before) in enumerate(zip(self._primals, self._states, strict=True)):
                if at >> j & 1:
                    primals |= own
                    entering |= before
            entered |= entering
            settled = t < shortest and entering | over == at
            at = entering
            if settled:
                break
        return primals, at, entered

    def _keep(self, key: Any, answer: Any) -> Any:
        if len(self._answers) >= _KEPT:
            self._answers.clear()
        self._answers[key] = answer
        return answer


def _shortest(call: Call) -> int:
    """The steps that all lanes have."""
    lengths = call.lengths
    return call.steps if lengths is None or not len(lengths) else int(lengths.min())


def _resets(call: Call, needed: Sequence[bool]) -> bool:
    """Whether any lane returns to the initial state, if that needs a gradient: only then may a
    mask be read."""
    initial = needed[len(needed) - len(call.initial) :] if call.plan.wanted.state else ()
    return call.reset is not None and True in initial and bool(call.reset.any())
