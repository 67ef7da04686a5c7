"""Running segments forward: the states that enter them, and their unfoldings."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from bptt.errors import CellError
from bptt.segments._draws import Draws
from bptt.state import State, map_state


class Entry(NamedTuple):
    """What a segment starts from: the state (None: the initial one), and the random numbers."""

    state: State | None
    draws: Draws


def kept(state: State) -> State:
    """A state to keep: detached, and not a view that keeps more than itself."""
    return map_state(_own, state)


def _own(leaf: Tensor) -> Tensor:
    leaf = leaf.detach()
    return leaf.clone() if leaf.untyped_storage().nbytes() > leaf.nbytes else leaf


def entering(state: State) -> State:
    """The same state as leaves that gather gradient."""
    return map_state(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), state)


class Unchanged:
    """Refuses cells that write to their own buffers, which running them twice would do twice."""

    def __init__(self, cell: nn.Module) -> None:
        self._cell, self._before = cell, _versions(cell)

    def check(self) -> None:
        """Look again.

        Raises:
            CellError: a buffer was changed.
        """
        after = _versions(self._cell)
        for name, (buffer, version) in self._before.items():
            if name not in after or after[name][0] is not buffer or after[name][1] != version:
                raise CellError(
                    f"{type(self._cell).__name__} changes its buffer {name!r} as it runs: in "
                    "segments it would do so twice. Use Full() without segments, or a cell without "
                    "such buffers (LayerNorm in place of batch statistics)."
                )


def _versions(cell: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """Each buffer, and how often it was written to."""
    return {name: (buffer, buffer._version) for name, buffer in cell.named_buffers()}
