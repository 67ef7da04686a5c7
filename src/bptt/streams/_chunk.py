"""What a gradient method reads: batches of lanes, by chunks of steps.

`Batch` is the seam to where the data comes from: in memory it slices tensors; a source on disk
needs the same three members.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bptt.reuse import Reuse


@dataclass(frozen=True)
class Chunk:
    """Successive steps of all lanes.

    Attributes:
        inputs: [time, lane, ...].
        targets: [time, lane, ...]; undefined where ``mask`` is false.
        mask: bool [time, lane]: the steps whose loss counts.
        reset: bool [time, lane]: the lane returns to the initial state before this step.
        lengths: int64 [lane], or None: a lane that ends inside this chunk has that many steps in
            it, what follows is padding; None where no lane ends.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    reset: Tensor
    lengths: Tensor | None

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.inputs.shape[0]

    @property
    def any_reset(self) -> Tensor | None:
        """``reset``, or None where nothing is reset."""
        return self.reset if bool(self.reset.any()) else None

    def part(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1`` of this chunk, as views."""
        lengths = self.lengths
        if lengths is not None:
            within = (lengths - start).clamp(0, stop - start)
            lengths = within if bool((within < stop - start).any()) else None
        at = slice(start, stop)
        return Chunk(self.inputs[at], self.targets[at], self.mask[at], self.reset[at], lengths)

    def to(self, device: torch.device) -> Chunk:
        """The same on ``device``."""
        return Chunk(
            self.inputs.to(device),
            self.targets.to(device),
            self.mask.to(device),
            self.reset.to(device),
            None if self.lengths is None else self.lengths.to(device),
        )

    def copied(self, memory: Reuse) -> Chunk:
        """The same in arrays of ``memory``."""
        fields = (self.inputs, self.targets, self.mask, self.reset)
        arrays = memory.empty(*[(field.shape, field.dtype) for field in fields])
        for array, field in zip(arrays, fields, strict=True):
            array.copy_(field)
        return Chunk(arrays[0], arrays[1], arrays[2], arrays[3], self.lengths)


class Batch(Protocol):
    """Lanes that run side by side from their first step to their last."""

    @property
    def length(self) -> int:
        """Steps of the longest lane."""

    @property
    def lanes(self) -> int:
        """How many lanes run side by side."""

    def held(self, steps: int) -> int:
        """The bytes that reading holds beside the chunks that it gives out, at the most, where
        these have ``steps`` steps."""

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``."""


def length_within(batch: Batch, stop: int) -> int:
    """The length of a batch, as far as it matters for what lies before ``stop``: one that is read
    from a live source looks whether it ends there."""
    reach = getattr(batch, "reach", None)
    return batch.length if reach is None else int(reach(stop))


@dataclass(frozen=True)
class TensorBatch:
    """A batch held in memory; the attributes are those of `Chunk`, over all of its steps."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    reset: Tensor
    lengths: Tensor | None

    @property
    def length(self) -> int:
        """Steps of the longest lane."""
        return self.inputs.shape[0]

    @property
    def lanes(self) -> int:
        """How many lanes run side by side."""
        return self.inputs.shape[1]

    def held(self, steps: int) -> int:
        """Nothing: the chunks are views of what the stream was made of."""
        return 0

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``, as views."""
        whole = Chunk(self.inputs, self.targets, self.mask, self.reset, self.lengths)
        return whole.part(start, min(stop, self.length))


def no_flags(steps: int, lanes: int, like: Tensor) -> Tensor:
    """Bool [time, lane], all false, on the device of ``like``."""
    return torch.zeros(steps, lanes, dtype=torch.bool, device=like.device)
