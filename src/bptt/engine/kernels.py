"""What runs the loop over time: the core, or the plain interpreter. Both take the same arrays.

A `Kernel` is bound to one step program. ``forward`` fills the states (and what is saved),
``reverse`` the deltas and the gradients of the start and of what resets return to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bptt.engine import interpret
from bptt.engine.interpret import Arrays
from bptt.engine.lower import lower
from bptt.engine.program import StepProgram


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
        interpret.forward(
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
        interpret.reverse(
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
