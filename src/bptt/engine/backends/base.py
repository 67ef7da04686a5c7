"""What runs the loop over time: the core, or the plain interpreter. Both take the same arrays.

A `Kernel` is bound to one step program. ``forward`` fills the states (and what is saved),
``reverse`` the deltas and the gradients of the start and of what resets return to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from bptt.engine.ir.interpreter import Arrays


class Kernel(Protocol):
    """Runs a step program over time, forward and in reverse, on arrays allocated by the caller.

    ``read_back`` are the numbers, among matrices and units, that the reverse loop reads.
    """

    read_back: tuple[int, ...]

    @property
    def workspace(self) -> int:
        """The bytes that it keeps to work in, from the latest runs."""

    def forward(
        self,
        states: Sequence[Tensor],
        times: Sequence[Tensor],
        saved: Tensor | None,
        given: Sequence[Tensor],
        initial: Arrays,
        reset: Tensor | None,
        lengths: Tensor | None,
    ) -> None:
        """``states`` [T + 1, B, n] with the start filled in; ``saved`` [T, B, all widths] or None;
        ``given`` are the matrices, then the units."""

    def reverse(
        self,
        states: Sequence[Tensor],
        times: Sequence[Tensor],
        saved: Tensor | None,
        deltas: Tensor | None,
        given: Sequence[Tensor],
        initial: Arrays,
        reset: Tensor | None,
        lengths: Tensor | None,
        clip: float | None,
        final_grads: Arrays,
        step_grads: Arrays,
        start_grads: Arrays,
        initial_grads: Arrays,
    ) -> None:
        """Gradients of the last state and of each step's in, those of the start out."""
