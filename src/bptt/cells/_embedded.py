"""Indices in place of measurements: a cell behind an embedding."""

from __future__ import annotations

from torch import Tensor, nn

from bptt.cells._stack import output_of
from bptt.errors import CellError
from bptt.state import State, initial_state


class Embedded(nn.Module):
    """A cell that reads indices: ``cell(embedding(index), state)``.

    Args:
        embedding: any module from indices [lane] to features [lane, feature], usually
            `torch.nn.Embedding`.
        cell: any cell that reads such features.

    Shapes: input int64 [lane]; state and output are the cell's.

    Raises:
        CellError: one of the two is no module, or they do not fit. While running: an index is
            outside the embedding.
    """

    def __init__(self, embedding: nn.Module, cell: nn.Module) -> None:
        super().__init__()
        for name, module in (("embedding", embedding), ("cell", cell)):
            if not isinstance(module, nn.Module):
                raise CellError(f"{name} must be a torch.nn.Module, not {module!r}.")
        width, reads = getattr(embedding, "embedding_dim", None), getattr(cell, "input_size", None)
        if isinstance(width, int) and isinstance(reads, int) and width != reads:
            raise CellError(
                f"the embedding gives {width} features, but {type(cell).__name__} reads {reads}."
            )
        self.embedding = embedding
        self.cell = cell

    def initial_state(self, batch: int) -> State:
        """The cell's own."""
        return initial_state(self.cell, batch)

    def output(self, state: State) -> Tensor:
        """The cell's own."""
        return output_of(self.cell, state)

    def forward(self, input: Tensor, state: State) -> State:
        """One step: the cell's new state."""
        try:
            features = self.embedding(input)
        except IndexError:
            rows = getattr(self.embedding, "num_embeddings", "fewer")
            raise CellError(
                f"an index is outside the embedding: they run from {int(input.min())} to "
                f"{int(input.max())} (counted from 0), and it has {rows} rows."
            ) from None
        new: State = self.cell(features, state)
        return new
