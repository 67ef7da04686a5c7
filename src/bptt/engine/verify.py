"""Trust, but verify: a program runs beside the Python loop before it is first used.

Three steps of the call's own inputs go both ways, outputs and gradients, and where a program is
made for segments, in segments of one and of two steps. A program that gives other numbers is not
used. Nobody sees anything of it: no generator moves, no gradient is added anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bptt.engine import beside, eager, native
from bptt.engine._torch_compat import generators_kept
from bptt.engine.frontend import forget
from bptt.engine.plans import Plan, plan_for, unseen
from bptt.engine.reasons import Ineligible, Reason
from bptt.state import State, leaves, map_state

STEPS, ROWS = 3, 2
"""So many steps are run, and so many rows compared."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Relative to the largest number; a mistake is larger, rounding in three steps smaller."""

CHANGES = Reason.CONTEXT, "a cell that changes while it is called"
"""No verdict on a plan: the Python loop gives other numbers after it than before, as it does where
another thread changes what the cell reads."""
CAPTURES = 3
"""So many programs, each captured anew, must differ from the Python loop before none is used: what
another thread changes while a step is captured may have been read before the change for the program
and after it for the conditions under which the program holds."""
UNSTABLE = 20
"""In so many calls the Python loop's own numbers may change before a program is never used."""

_PLAIN: dict[str, Any] = {"reset": None, "lengths": None, "return_states": False, "clip": None}
_Run = Callable[[Tensor, State], tuple[Tensor, State]]


def trusted(
    cell: nn.Module, plan: Plan, inputs: Tensor, state: State, initial: State
) -> Plan | Ineligible:
    """A plan that gave what the Python loop gives: this one, or one captured anew."""
    wrong: tuple[Reason, str] | None = None
    for attempt in range(CAPTURES):
        try:
            wrong = differs(cell, plan, inputs, state)
        except Exception as error:  # the Python loop's own, which it raises in its place
            return Ineligible(Reason.CONTEXT, f"{type(error).__name__} in the Python loop")
        if wrong is None:
            plan.trust.program = bool(len(inputs)) and bool(inputs.shape[1])
            return plan
        if wrong is CHANGES:
            plan.trust.unstable += 1
            if plan.trust.unstable < UNSTABLE:  # else something changes that no capture sees
                return Ineligible(*CHANGES)
            wrong = Reason.MUTATION, "a step that gives other numbers in each call"
            break
        if attempt < CAPTURES - 1:
            forget(cell)
            found = plan_for(cell, inputs, state, initial)
            if not isinstance(found, Plan) or found.trust.program:
                return found
            plan = found
    assert wrong is not None
    plan.trust.verdict = Ineligible(*wrong)
    return plan.trust.verdict


def trusted_beside(
    cell: nn.Module, plan: Plan, inputs: Sequence[Tensor], states: Sequence[State]
) -> Plan | Ineligible:
    """A plan whose runs of one lane each give side by side what each gives alone."""

    def run(few: Sequence[Tensor], starts: Sequence[State]) -> list[tuple[Tensor, State]]:
        none = [None for _ in few]
        return beside.run(cell, few, starts, initials=starts, resets=none, clip=None, plan=plan)

    def alone(own: Tensor, start: State) -> tuple[Tensor, State]:
        outputs, last, _ = eager.run(cell, own, start, initial=start, **_PLAIN)
        return outputs, last

    wrong = differs_beside(run, alone, plan, inputs, states)
    plan.trust.beside = wrong is None
    if wrong is None:
        return plan
    if wrong is CHANGES:
        return Ineligible(*CHANGES)
    plan.trust.verdict = Ineligible(*wrong)
    return plan.trust.verdict


def differs(cell: nn.Module, plan: Plan, inputs: Tensor, state: State) -> tuple[Reason, str] | None:
    """Why a plan cannot be trusted in a call with these inputs [T, B, ...] and state; None if it
    gives what the Python loop gives, and `CHANGES` where nothing can be told.

    Raises:
        Exception: what the Python loop raises.
    """
    if not len(inputs):
        return None

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

    ways = [program, segments] if plan.wanted.state and len(inputs) > 1 else [program]
    with generators_kept(), unseen(), torch.autograd.set_detect_anomaly(False):
        expected = _numbers(loop, plan, inputs, state)
        for way in ways:
            wrong = _compared(way, loop, expected, plan, inputs, state)
            if wrong is not None:
                return wrong
    return None


def _compared(
    program: _Run,
    loop: _Run,
    expected: list[Tensor | None],
    plan: Plan,
    inputs: Tensor,
    state: State,
) -> tuple[Reason, str] | None:
    """What is wrong with a program's numbers beside those that the loop gave; `CHANGES` where the
    loop no longer gives them."""
    try:
        found = _numbers(program, plan, inputs, state)
        name = _first_difference(plan, state, found, expected)
        wrong = None if name is None else (Reason.WRONG, name)
    except Exception as error:
        wrong = Reason.UNEXPECTED, f"{type(error).__name__}: {error}"
    if wrong is None:
        return None
    again = _numbers(loop, plan, inputs, state)
    return wrong if _first_difference(plan, state, again, expected) is None else CHANGES


def _first_difference(
    plan: Plan, state: State, found: Sequence[Tensor | None], expected: Sequence[Tensor | None]
) -> str | None:
    """The name of what is not as expected. What is not a number may have another gradient, but
    stands where it is expected to."""
    values = 1 + len(leaves(state))
    for place, name in enumerate(_names(plan, state)):
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
    given = inputs[:STEPS].detach()
    if wanted.input:
        given.requires_grad_()
    entering = map_state(Tensor.detach, state)
    if wanted.state:
        entering = map_state(_as_it_is, entering, state)
    outputs, last = run(given, entering)
    results = [outputs, *leaves(last)]
    compared = [outputs[:, :ROWS], *(leaf[:ROWS] for leaf in leaves(last))]
    numbers: list[Tensor | None] = [part.detach() for part in compared]
    asked = [*plan.tensors, given, *leaves(entering)]
    flags = [*wanted.sources, wanted.input, *(wanted.state for _ in leaves(entering))]
    if not wanted.any or any(t._backward_hooks for t in asked):
        return [*numbers, *(None for _ in asked)]
    pairs = [(r, c) for r, c in zip(results, compared, strict=True) if r.requires_grad]
    if not pairs:
        return [*numbers, *(None for _ in asked)]
    cost = sum((c * _weights(c)).sum() for _, c in pairs)
    assert isinstance(cost, Tensor)
    of = [t for t, flag in zip(asked, flags, strict=True) if flag]
    found = iter(torch.autograd.grad(cost, of, allow_unused=True))
    return [*numbers, *(next(found) if flag else None for flag in flags)]


def _as_it_is(values: Tensor, leaf: Tensor) -> Tensor:
    """Values that need a gradient, computed where ``leaf`` was: a step may ask."""
    given = values.clone().requires_grad_()
    return given if leaf.is_leaf else given.clone()


def _weights(like: Tensor) -> Tensor:
    """Numbers that are all different, drawn from nowhere."""
    places = torch.arange(like.numel(), dtype=like.dtype).reshape(like.shape)
    return torch.cos(1.0 + places)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        present = one if other is None else other
        return present is None or not bool(present.any())
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

    with generators_kept(), unseen(), torch.autograd.set_detect_anomaly(False):
        for place in range(len(few)):
            expected = _numbers(alone, plan, few[place], starts[place])
            wrong = _compared(together, alone, expected, plan, few[place], starts[place])
            if wrong is not None:
                reason, name = wrong
                aside = ", of segments side by side" if reason is Reason.WRONG else ""
                return wrong if wrong is CHANGES else (reason, name + aside)
    return None
