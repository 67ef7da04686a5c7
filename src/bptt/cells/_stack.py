"""Layers: cells on top of each other, as one cell."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from bptt.errors import CellError
from bptt.state import State, head, initial_state


def output_of(cell: nn.Module, state: State) -> Tensor:
    """The output of a step: ``cell.output(state)`` where the cell defines it, else the state's
    first tensor."""
    own = getattr(cell, "output", None)
    if own is None:
        return head(state)
    result = own(state)
    if not isinstance(result, Tensor):
        raise CellError(
            f"{type(cell).__name__}.output(state) must return a tensor, not a "
            f"{type(result).__name__}."
        )
    return result


def _check_fit(below: nn.Module, above: nn.Module) -> None:
    """Refuse neighbours of known sizes that do not fit."""
    gives, reads = getattr(below, "hidden_size", None), getattr(above, "input_size", None)
    known = isinstance(gives, int) and isinstance(reads, int) and not hasattr(below, "output")
    if known and gives != reads:
        raise CellError(
            f"{type(below).__name__} gives {gives} features, but {type(above).__name__} above it "
            f"reads {reads}: they must agree, as in Stack(GRU(3, 64), GRU(64, 32))."
        )


class Stack(nn.Module):
    """Layers of cells as one cell: each layer's output is the input of the next.

    Args:
        cells: from the bottom to the top; at least one.

    Shapes: input as the first cell's; state is the tuple of the cells' states; the output is the
    top cell's.

    Raises:
        CellError: no cell is given, one is not a module, or two neighbours do not fit.
    """

    def __init__(self, *cells: nn.Module) -> None:
        super().__init__()
        if not cells:
            raise CellError("Stack needs at least one cell: Stack(GRU(3, 64), GRU(64, 64)).")
        for cell in cells:
            if not isinstance(cell, nn.Module):
                raise CellError(f"Stack takes cells (torch.nn.Module), not {cell!r}.")
        for below, above in itertools.pairwise(cells):
            _check_fit(below, above)
        self.cells = nn.ModuleList(cells)
        if isinstance(getattr(cells[0], "input_size", None), int):
            self.input_size = cells[0].input_size

    def initial_state(self, batch: int) -> State:
        """The tuple of the layers' own initial states."""
        return tuple(initial_state(cell, batch) for cell in self.cells)

    def output(self, state: tuple[State, ...]) -> Tensor:
        """The top layer's output."""
        return output_of(self.cells[-1], state[-1])

    def forward(self, input: Tensor, state: tuple[State, ...]) -> State:
        """One step through all layers, bottom first: the tuple of their new states."""
        new = []
        for cell, part in zip(self.cells, state, strict=True):
            part = cell(input, part)
            input = output_of(cell, part)
            new.append(part)
        return tuple(new)
