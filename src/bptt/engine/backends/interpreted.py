"""The plain interpreter as a kernel: the oracle between the Python loop and the core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bptt.engine.ir import interpreter
from bptt.engine.ir.interpreter import Arrays
from bptt.engine.ir.program import StepProgram


class Interpreted:
    """The plain interpreter as a kernel."""

    def __init__(self, program: StepProgram) -> None:
        self.program = program
        self.read_back = tuple(range(len(program.matrices) + len(program.units)))

    @property
    def workspace(self) -> int:
        """See `Kernel`."""
        return 0

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
        """See `Kernel`."""
        n = len(self.program.matrices)
        m = n + len(self.program.units)
        interpreter.forward(
            self.program,
            states,
            times,
            _parts(saved, self.program.saved),
            given[n:m],
            given[:n],
            initial,
            reset,
            lengths,
        )

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
        """See `Kernel`."""
        n = len(self.program.matrices)
        m = n + len(self.program.units)
        interpreter.reverse(
            self.program,
            states,
            times,
            _parts(saved, self.program.saved),
            _parts(deltas, self.program.deltas),
            given[n:m],
            given[:n],
            initial,
            reset,
            lengths,
            clip,
            final_grads,
            step_grads,
            start_grads,
            initial_grads,
        )


def _parts(array: Tensor | None, widths: tuple[int, ...]) -> list[Tensor]:
    return [] if array is None else list(torch.split(array, list(widths), dim=2))
