"""Sequences held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Any

import torch

from bptt.errors import ShapeError
from bptt.streams._chunk import Batch, TensorBatch
from bptt.streams._layout import Layout, assemble
from bptt.streams._sequences import Sequence, prepare, refuse_mixed, to_tensor, with_feature
from bptt.streams._source import Kind


@dataclass(frozen=True)
class MemorySource:
    """Tensors of every sequence; see `bptt.streams._source.Source`."""

    kind: Kind
    sequences: list[Sequence]
    resident: bool = True

    @property
    def lengths(self) -> list[int]:
        """The steps of every sequence."""
        return [len(sequence) for sequence in self.sequences]

    @property
    def lanes(self) -> int:
        """How many lanes the data came with."""
        return int(self.sequences[0].mask.shape[1]) if self.kind == "laned" else 1

    def like(self) -> Sequence:
        """No steps, but the features and dtypes of all."""
        return self.sequences[0].part(0, 0)

    def read(self, parts: Ordered[tuple[int, int, int]]) -> list[Sequence]:
        """Views of the stretches asked for."""
        return [self.sequences[index].part(start, stop) for index, start, stop in parts]

    def take(self, chosen: Ordered[int]) -> MemorySource:
        """The whole sequences of these numbers."""
        return MemorySource(self.kind, [self.sequences[index] for index in chosen])

    def cut(self, start: int, stop: int) -> MemorySource:
        """The steps ``start`` to ``stop - 1`` of the one series."""
        return MemorySource(self.kind, [self.sequences[0].part(start, stop)])

    def fingerprint(self) -> str:
        """Of inputs, targets and mask, and how long each sequence is."""
        found = hashlib.sha256(repr(self.lengths).encode())
        for sequence in self.sequences:
            for tensor in (sequence.inputs, sequence.targets, sequence.mask):
                found.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
                found.update(memoryview(_bytes(tensor)))
        return found.hexdigest()

    def batches(self, layouts: Ordered[Layout]) -> Generator[Batch]:
        """Each laid out at once; its chunks are views."""
        for layout in layouts:
            yield self._laned(layout) if self.kind == "laned" else self._laid(layout)

    def _laid(self, layout: Layout) -> TensorBatch:
        whole = assemble(self.read, self.like(), layout, 0, layout.length)
        return TensorBatch(whole.inputs, whole.targets, whole.mask, whole.reset, whole.lengths)

    def _laned(self, layout: Layout) -> TensorBatch:
        whole = self.sequences[0]
        # Of data that come with their lanes, a piece's number is that of its lane.
        first = layout.pieces[0].sequence if layout.pieces else 0
        own = slice(first, first + layout.lanes)
        inputs, targets, mask = whole.inputs[:, own], whole.targets[:, own], whole.mask[:, own]
        mask, reset = mask.clone(), torch.zeros_like(mask)
        layout.mark(mask, reset, 0, layout.pieces)
        lengths = layout.lengths(0, layout.length, mask.device)
        return TensorBatch(inputs, targets, mask & bool(layout.pieces), reset, lengths)


def _bytes(tensor: torch.Tensor) -> Any:
    """The numbers of a tensor, whatever their type, as NumPy's bytes."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def from_memory(
    inputs: Any,
    targets: Any,
    mask: Any,
    horizon: int,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> MemorySource:
    """The source that a user's tensors, arrays or lists of them make, checked and shifted."""
    if isinstance(inputs, (list, tuple)) and len(inputs) > 0 and not _is_number(inputs[0]):
        found = _read_list(list(inputs), targets, mask, horizon, dtype, device)
        return MemorySource("sequences", found)
    features = to_tensor(inputs, "inputs", dtype, device)
    laned = features.dim() == 3
    goals = to_tensor(targets, "targets", dtype, device, laned)
    if features.dim() not in (1, 2, 3):
        raise ShapeError(
            "inputs must be [time, feature], [time, lane, feature] or a list of sequences "
            f"[time, feature], not of the shape {list(features.shape)}."
        )
    rank = 3 if laned else 2
    counted = None if mask is None else to_tensor(mask, "mask", None, device)
    sequence = prepare(
        with_feature(features, rank), with_feature(goals, rank), counted, horizon, laned, "the data"
    )
    return MemorySource("laned" if laned else "series", [sequence])


def _read_list(
    inputs: list[Any],
    targets: Any,
    mask: Any,
    horizon: int,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> list[Sequence]:
    for name, other in (("targets", targets), ("mask", mask)):
        if other is not None and (
            not isinstance(other, (list, tuple)) or len(other) != len(inputs)
        ):
            given = len(other) if isinstance(other, (list, tuple)) else type(other).__name__
            raise ShapeError(
                f"inputs are a list of {len(inputs)} sequences, so {name} must be a list of as "
                f"many, not {given}."
            )
    masks = [None] * len(inputs) if mask is None else mask
    sequences = []
    for index, (one, goal, counted) in enumerate(zip(inputs, targets, masks, strict=True)):
        name = f"sequence {index}"
        features = with_feature(to_tensor(one, f"{name}: inputs", dtype, device), 2)
        goals = with_feature(to_tensor(goal, f"{name}: targets", dtype, device), 2)
        if features.dim() not in (1, 2):
            raise ShapeError(
                f"{name} must be [time, feature], not of the shape {list(features.shape)}."
            )
        flags = None if counted is None else to_tensor(counted, f"{name}: mask", None, device)
        sequences.append(prepare(features, goals, flags, horizon, False, name))
    refuse_mixed(sequences)
    return sequences


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
