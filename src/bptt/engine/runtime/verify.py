"""Trust, but verify: a program runs beside the Python loop before it is first used.

Three steps of the call's own inputs go both ways, outputs and gradients, in one piece and in
segments of one and of two steps. A program that gives other numbers is not used. Nobody sees
anything of it: no gradient is added anywhere and no hook is called. A step that draws has no
program, so no generator moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from bptt.engine.backends import eager
from bptt.engine.frontend import forget
from bptt.engine.frontend.leaf import step_needs_gradient
from bptt.engine.runtime import batched_segments, native
from bptt.engine.runtime.compile_cache import Plan, plan_for, unseen
from bptt.engine.unsupported import Reason, Unsupported
from bptt.state import State, leaves, map_state

STEPS, ROWS = 3, 2
"""So many steps are run, and so many rows compared."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Relative to the largest number; a mistake is larger, rounding in three steps smaller."""

CHANGES = Reason.CONTEXT, "a cell that changes while it is called"
"""No verdict on a plan: the Python loop gives other numbers after it than before, as it does where
another thread changes what the cell reads."""
CAPTURES = 3
"""So many captures of a step are tried. If another thread changes a value during a capture, the
program may hold the old value and the condition under which it is used the new one."""
UNSTABLE = 20
"""A program is given up when the Python loop's own numbers changed in so many of its calls."""

_PLAIN: dict[str, Any] = {"reset": None, "lengths": None, "return_states": False, "clip": None}
_Run = Callable[[Tensor, State], tuple[Tensor, State]]


def trusted(
    cell: nn.Module, plan: Plan, inputs: Tensor, state: State, initial: State
) -> Plan | Unsupported:
    """A plan that gave what the Python loop gives: this one, or one captured anew."""
    wrong: tuple[Reason, str] | None = None
    for attempt in range(CAPTURES):
        wrong = differs(cell, plan, inputs, state)
        if wrong is None:
            plan.trust.program = bool(len(inputs)) and bool(inputs.shape[1])
            return plan
        if wrong[0] is Reason.CONTEXT:
            plan.trust.unstable += wrong is CHANGES
            if plan.trust.unstable < UNSTABLE:
                return Unsupported(*wrong)
            wrong = Reason.MUTATION, "a step that gives other numbers in each call"
            break
        if attempt < CAPTURES - 1:
            forget(cell)
            found = plan_for(cell, inputs, state, initial)
            if not isinstance(found, Plan) or found.trust.program:
                return found
            plan = found
    assert wrong is not None
    plan.trust.verdict = Unsupported(*wrong)
    return plan.trust.verdict


def trusted_beside(
    cell: nn.Module, plan: Plan, inputs: Sequence[Tensor], states: Sequence[State]
) -> Plan | Unsupported:
    """A plan whose runs of one lane each give side by side what each gives alone."""

    def run(few: Sequence[Tensor], starts: Sequence[State]) -> list[tuple[Tensor, State]]:
        none = [None for _ in few]
        return batched_segments.run(
            cell, few, starts, initials=starts, resets=none, clip=None, plan=plan
        )

    def alone(own: Tensor, start: State) -> tuple[Tensor, State]:
        outputs, last, _ = eager.run(cell, own, start, initial=start, **_PLAIN)
        return outputs, last

    wrong = differs_beside(run, alone, plan, inputs, states)
    plan.trust.beside = wrong is None
    if wrong is None:
        return plan
    if wrong[0] is Reason.CONTEXT:
        return Unsupported(*wrong)
    plan.trust.verdict = Unsupported(*wrong)
    return plan.trust.verdict


def differs(cell: nn.Module, plan: Plan, inputs: Tensor, state: State) -> tuple[Reason, str] | None:
    """Why a plan cannot be trusted in a call with these inputs [T, B, ...] and state; None if it
    gives what the Python loop gives, and a reason that passes where nothing can be told."""
    if not len(inputs):
        return None
    with torch.inference_mode(False), torch.no_grad():
        few = inputs.detach()[torch.arange(STEPS, device=inputs.device) % len(inputs)]
    few.requires_grad_(step_needs_gradient(inputs))  # without grad mode, too: a step may ask

    def loop(given: Tensor, entering: State) -> tuple[Tensor, State]:
        outputs, last, _ = eager.run(cell, given, entering, initial=entering, **_PLAIN)
        return outputs, last

    def program(given: Tensor, entering: State) -> tuple[Tensor, State]:
        outputs, last, _ = native.run(cell, given, entering, initial=entering, plan=plan, **_PLAIN)
        return outputs, last

    def segments(given: Tensor, entering: State) -> tuple[Tensor, State]:
        first, between = program(given[:1], entering)
        second, last = program(given[1:], between)
        return torch.cat([first, second]), last

    # Without a gradient of the state none flows from one segment to the one before.
    ways = [(program, True), (segments, plan.wanted.state)]
    return _differs(ways, loop, plan, few, state)


def _differs(
    ways: Sequence[tuple[_Run, bool]], loop: _Run, plan: Plan, inputs: Tensor, state: State
) -> tuple[Reason, str] | None:
    """The first difference between what the ways to run a program give and what the loop gives; a
    flag tells whether gradients are compared."""
    values = 1 + len(leaves(state))

    def of_loop() -> list[Tensor | None]:
        try:
            return _numbers(loop, plan, inputs, state)
        except Exception as error:  # which the call's own loop will raise
            raise _LoopFails(type(error).__name__) from error

    with unseen(), torch.autograd.set_detect_anomaly(False):
        try:
            expected = of_loop()
            for way, graded in ways:
                compared = expected if graded else expected[:values]
                wrong = _compared(way, compared, plan, inputs, state)
                if wrong is not None:
                    same = _first_difference(plan, state, of_loop(), expected) is None
                    return wrong if same else CHANGES
        except _LoopFails as failure:
            return Reason.CONTEXT, f"{failure} in the Python loop"
        except Exception as error:
            return _unexpected(error)
    return None


class _LoopFails(Exception):
    """The Python loop raised an error, whose class this names."""


def _unexpected(error: Exception) -> tuple[Reason, str]:
    return Reason.UNEXPECTED, f"{type(error).__name__}: {error}"


def _compared(
    way: _Run, expected: list[Tensor | None], plan: Plan, inputs: Tensor, state: State
) -> tuple[Reason, str] | None:
    """What is wrong with a program's numbers beside those that the loop gave."""
    try:
        found = _numbers(way, plan, inputs, state)
    except Exception as error:
        return _unexpected(error)
    name = _first_difference(plan, state, found, expected)
    return None if name is None else (Reason.WRONG, name)


def _first_difference(
    plan: Plan, state: State, found: Sequence[Tensor | None], expected: Sequence[Tensor | None]
) -> str | None:
    """The name of what is not as expected, from which the gradients may be left out. What is not a
    number may have another gradient, but stands where it is expected to."""
    values = 1 + len(leaves(state))
    for place, name in enumerate(_names(plan, state)[: len(expected)]):
        one, other = found[place], expected[place]
        if place < values and one is not None and other is not None:
            if not torch.equal(torch.isnan(one), torch.isnan(other)):
                return name
        if not _same(one, other):
            return name
    return None


def _names(plan: Plan, state: State) -> list[str]:
    sources = [f"the gradient of {name}" for name in plan.program.sources]
    leaves_ = [f"leaf {j} of the last state" for j in range(len(leaves(state)))]
    starts = [f"the gradient of leaf {j} of the state" for j in range(len(leaves(state)))]
    return ["the outputs", *leaves_, *sources, "the gradient of the inputs", *starts]


def _numbers(run: _Run, plan: Plan, inputs: Tensor, state: State) -> list[Tensor | None]:
    """Outputs, last state, and the gradients of sources, inputs and state."""
    wanted = plan.wanted
    given = inputs.detach().requires_grad_(step_needs_gradient(inputs))
    entering = map_state(Tensor.detach, state)
    if wanted.state:
        entering = map_state(_as_it_is, entering, state)
    outputs, last = run(given, entering)
    results = [outputs, *leaves(last)]
    compared = [outputs[:, :ROWS], *(leaf[:ROWS] for leaf in leaves(last))]
    numbers: list[Tensor | None] = [part.detach() for part in compared]
    asked = [*plan.tensors, given, *leaves(entering)]
    flags = [*wanted.sources, wanted.input, *(wanted.state for _ in leaves(entering))]
    parts = [c for r, c in zip(results, compared, strict=True) if r.requires_grad]
    if not wanted.any or not parts:
        return [*numbers, *(None for _ in asked)]
    cost = sum((c * _weights(c)).sum() for c in map(_real, parts))
    assert isinstance(cost, Tensor)
    of = [t for t, flag in zip(asked, flags, strict=True) if flag]
    with _unhooked(asked):
        found = iter(torch.autograd.grad(cost, of, allow_unused=True))
    return [*numbers, *(next(found) if flag else None for flag in flags)]


def _as_it_is(values: Tensor, leaf: Tensor) -> Tensor:
    """Values that need a gradient, computed where ``leaf`` was: a step may ask."""
    given = values.clone().requires_grad_()
    return given if leaf.is_leaf else given.clone()


@contextmanager
def _unhooked(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Without the hooks of tensors, in this thread: another one may go back meanwhile."""
    here, replaced = get_ident(), []
    for hooks in [t._backward_hooks for t in tensors if t._backward_hooks]:
        for number, hook in list(hooks.items()):
            replaced.append((hooks, number, hook))
            hooks[number] = partial(_elsewhere, here, hook)
    try:
        yield
    finally:
        for hooks, number, hook in reversed(replaced):
            if number in hooks:  # nobody has removed it
                hooks[number] = hook


def _elsewhere(thread: int, hook: Callable[[Tensor], Any], grad: Tensor) -> Any:
    return None if get_ident() == thread else hook(grad)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _weights(like: Tensor) -> Tensor:
    """Numbers that are all different, drawn from nowhere."""
    places = torch.arange(like.numel(), dtype=like.dtype, device=like.device)
    return torch.cos(1.0 + places.reshape(like.shape))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        present = one if other is None else other
        return present is None or not bool(present.any())
    if not (one.is_floating_point() or one.is_complex()) or one.dtype is not other.dtype:
        return torch.equal(one, other)
    one, other = _real(one), _real(other)
    finite = torch.isfinite(other)
    if not bool(finite.any()):
        return True
    one, other = one[finite], other[finite]
    bound = TOLERANCE.get(other.dtype, 1e-3) * float(other.abs().max().clamp_min(1e-6))
    return bool(((one - other).abs() <= bound).all())


def differs_beside(
    run: Callable[[Sequence[Tensor], Sequence[State]], list[tuple[Tensor, State]]],
    alone: _Run,
    plan: Plan,
    inputs: Sequence[Tensor],
    states: Sequence[State],
) -> tuple[Reason, str] | None:
    """The same for runs of one lane each that go side by side: each must be as it is alone."""
    few = [own[:STEPS] for own in inputs[:ROWS]]
    starts = list(states[:ROWS])
    place = 0

    def together(given: Tensor, entering: State) -> tuple[Tensor, State]:
        runs = [given if i == place else own.detach() for i, own in enumerate(few)]
        begin = [
            entering if i == place else map_state(Tensor.detach, own)
            for i, own in enumerate(starts)
        ]
        return run(runs, begin)[place]

    for place in range(len(few)):
        wrong = _differs([(together, True)], alone, plan, few[place], starts[place])
        if wrong is not None:
            reason, name = wrong
            return (reason, f"{name}, of segments side by side" if reason is Reason.WRONG else name)
    return None
