"""The public face of the compiler."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bptt.engine.ir.program import StepProgram
from bptt.engine.runtime.compile_cache import Plan, plan_for
from bptt.engine.unsupported import Unsupported
from bptt.errors import CellError
from bptt.state import State, initial_state


def compile(
    cell: nn.Module, input_size: int | tuple[int, ...], dtype: torch.dtype = torch.float32
) -> StepProgram:
    """The step program of a cell, to be read: ``print(compile(cell, 8))``.

    Args:
        cell: any module with ``forward(input, state) -> state``.
        input_size: features of the input, or the shape of one lane's input: ``()`` for indices.
        dtype: of the input; an integer dtype for a cell that embeds.

    Raises:
        CellError: the cell has no step program; names the operator and its line.
    """
    size = (input_size,) if isinstance(input_size, int) else tuple(input_size)
    example = torch.zeros((1, 3, *size), dtype=dtype)  # several lanes: one may be a special case
    return compile_for(cell, example, initial_state(cell, 3, like=example))


def compile_for(cell: nn.Module, inputs: Tensor, state: State) -> StepProgram:
    """The step program for inputs [T, B, ...] and a state with leaves [B, n].

    Raises:
        CellError: the cell has no step program.
    """
    found = plan_for(cell, inputs, state, state, kernel="interpreted")
    if isinstance(found, Plan):
        return found.program
    assert isinstance(found, Unsupported)
    raise CellError(f"{type(cell).__name__} has no step program: {found}.")
