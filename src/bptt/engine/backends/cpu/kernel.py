"""The core as a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bptt.engine.backends.cpu.codegen import lower
from bptt.engine.ir.interpreter import Arrays
from bptt.engine.ir.program import StepProgram


class Native:
    """The core as a kernel: a program for inference, one that saves, one in reverse."""

    def __init__(self, program: StepProgram) -> None:
        self._bare = lower(program, program.forward, reverse=False, save=False)
        self.saving = self.backward = self._bare
        if program.backward is not None:
            self.saving = lower(program, program.forward, reverse=False, save=bool(program.saved))
            self.backward = lower(program, program.backward, reverse=True, save=True)
        self.read_back = (*self.backward.matrices, *self.backward.units)

    @property
    def workspace(self) -> int:
        """See `Kernel`."""
        programs = {id(low): low.program for low in (self._bare, self.saving, self.backward)}
        return sum(program.workspace for program in programs.values())

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
        low = self._bare if saved is None else self.saving
        time: list[Tensor | None] = [times[i] for i in low.times]
        if low.saved:
            time.append(saved)
        steps, batch, _ = states[0].shape
        low.program.forward(
            steps - 1,
            batch,
            states,
            time,
            (),
            [given[i] for i in low.units],
            [given[i] for i in low.matrices],
            () if reset is None else initial,
            reset,
            lengths,
            torch.get_num_threads(),
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
        low = self.backward
        time: list[Tensor | None] = [times[i] for i in low.times]
        if low.saved:
            time.append(saved)
        if low.deltas:
            time.append(deltas)
        steps, batch, _ = states[0].shape
        low.program.reverse(
            steps - 1,
            batch,
            states,
            time,
            (),
            [given[i] for i in low.units],
            [given[i] for i in low.matrices],
            () if reset is None else initial,
            reset,
            lengths,
            torch.get_num_threads(),
            clip,
            final_grads,
            step_grads,
            start_grads,
            initial_grads,
        )
