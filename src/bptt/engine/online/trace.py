"""A cell, or a readout, traced whole: nothing is hoisted into PyTorch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bptt.engine._torch_compat import alone, generators_kept
from bptt.engine.frontend import Form, Found, find
from bptt.engine.frontend.builtin import Twin, is_built_in, known_of, named_tensors
from bptt.engine.frontend.module_state import HOOKS
from bptt.engine.ir.program import StepProgram
from bptt.engine.ir.wanted import Wanted
from bptt.engine.passes.pipeline import derive
from bptt.engine.runtime.compile_cache import check_plain
from bptt.engine.unsupported import Reason, Refusal
from bptt.state import State, leaves

_ROW_WISE = (
    nn.Linear,
    nn.Identity,
    nn.LayerNorm,
    nn.Tanh,
    nn.Sigmoid,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    nn.ELU,
    nn.LeakyReLU,
)


class _AsCell(nn.Module):
    """A readout as a recurrent function that ignores its state."""

    def __init__(self, readout: nn.Module) -> None:
        super().__init__()
        self.readout = readout

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        result: Tensor = self.readout(input)
        return result


@dataclass(frozen=True, eq=False)
class Unit:
    """A traced module: its program and tensors; ``current`` tells whether they still are those of a
    cell that is not built in, which must be asked."""

    program: StepProgram
    tensors: list[Tensor]
    output: int | None
    current: Callable[[], bool] | None = None


def trace(module: nn.Module, example: Tensor, state: State) -> Unit:
    """Trace the step of a cell, forward and backward.

    Raises:
        Refusal: it has no step program, or needs PyTorch around it.
    """
    found = find(module, example, state)
    unit = _unit(found.form, found.tensors, example, state, input_too=False)
    return (
        unit
        if found.form.built_in
        else replace(unit, current=_question(module, found, example, state))
    )


def _question(cell: nn.Module, found: Found, example: Tensor, state: State) -> Callable[[], bool]:
    known = weakref.ref(cell)

    def current() -> bool:
        own = known()
        assert own is not None  # it is being trained
        try:
            with torch.enable_grad():
                now = find(own, example, state)
        except Refusal:
            return False
        return now.form is found.form and all(map(_is_same, now.tensors, found.tensors))

    return current


def _is_same(one: Tensor, other: Tensor) -> bool:
    """The same tensor, or a number of Python's with the same value."""
    return one is other or (one.dim() == 0 and not one.requires_grad and bool(one == other))


def _unit(
    form: Form, tensors: list[Tensor], example: Tensor, state: State, *, input_too: bool
) -> Unit:
    for tensor in tensors:
        check_plain(tensor)
    with alone(), generators_kept():
        traced, parts = form.traced(hoist=False)
        output = form.output()
        held = [*tensors, *traced.constants]
        flags = tuple(t.requires_grad for t in held)
        wanted = Wanted(flags, input_too, True, False)
        dtype = leaves(state)[0].dtype
        program = derive(form.name, traced.names, parts.step, dtype, wanted)
    _check(program, traced.names, held)
    return Unit(program, held, output if isinstance(output, int) else None)


def _check(program: StepProgram, names: tuple[str, ...], tensors: list[Tensor]) -> None:
    assert program.after is not None
    if program.hoisted is not None or any(g.source is None for g in program.params):
        raise Refusal(Reason.OPERATOR, "a part that runs before the loop")
    dtype = getattr(torch, program.dtype)
    for given in program.params:
        assert given.source is not None
        tensor, name = tensors[given.source], names[given.source]
        if tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.numel():
            raise Refusal(Reason.DTYPE, f"{name}, which is not contiguous {program.dtype}")
        if tensor.requires_grad and not isinstance(tensor, nn.Parameter):
            raise Refusal(Reason.CAPTURED, name)
    for given in program.times:
        if given.source != -1 or len(given.shape) != 1:
            raise Refusal(Reason.RANK, "an input that is not [time, lane, feature]")


def trace_readout(readout: nn.Module, width: int, dtype: torch.dtype) -> Unit:
    """A readout of outputs [..., width] as the step of a cell that does not look at its state.

    Raises:
        Refusal: it is more than linear maps, normalisations and pointwise functions.
    """
    for path, module in readout.named_modules():
        if known_of(type(module)) not in (*_ROW_WISE, nn.Sequential):
            raise Refusal(Reason.READOUT, f"{type(module).__name__} in the readout")
        if any(module.__dict__.get(kind) for kind in HOOKS):
            where = ".".join(filter(None, ("readout", path)))
            raise Refusal(Reason.READOUT, f"hooks of {where}")
    if not is_built_in(readout):
        raise Refusal(Reason.READOUT, f"a changed {type(readout).__name__}")
    with torch.no_grad():
        made = readout(torch.zeros(1, 1, width, dtype=dtype))
    if made.dim() != 3:
        raise Refusal(Reason.RANK, f"predictions of {made.dim()} dimensions")
    cell = _AsCell(readout)
    state = torch.zeros(1, made.shape[2], dtype=dtype)
    example = torch.zeros(1, 1, width, dtype=dtype)
    twin = Twin(cell)
    name = type(readout).__name__
    form = Form(name, lambda: twin.step(example[0], state), lambda: 0, True, built_in=True)
    tensors = list(named_tensors(cell).values())
    unit = _unit(form, tensors, example, state, input_too=True)
    if any(space == "state" for space, _ in used_spaces(unit.program)):
        raise Refusal(Reason.READOUT, type(readout).__name__)
    return unit


def used_spaces(program: StepProgram) -> set[tuple[str, int]]:
    """Which outer values a program reads."""
    steps = [program.forward] + ([program.backward] if program.backward else [])
    read = [o.value for s in steps for i in s.instructions for o in i.operands()]
    read += [o.value for s in steps for w in s.writes for o in w.operands()]
    return {(v.space, v.index) for v in read if v.space != "temp"}
