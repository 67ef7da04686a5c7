"""Batches whose chunks go to the device where the work is done, as they are read."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch

from bptt.streams._chunk import Batch, Chunk
from bptt.streams._stream import Stream


class MovedBatch:
    """A `Batch` somewhere else: there is never more of it on ``device`` than the chunks at work."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self._batch, self._device = batch, device

    @property
    def length(self) -> int:
        """Steps of the longest lane."""
        return self._batch.length

    @property
    def lanes(self) -> int:
        """How many lanes run side by side."""
        return self._batch.lanes

    def held(self, steps: int) -> int:
        """Nothing on the device beside the chunks."""
        return 0

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``, copied."""
        return self._batch.chunk(start, stop).to(self._device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._batch, name)  # what a live source knows beside


def copies(batch: Batch) -> bool:
    """Whether chunks take memory of their own on the device, and are no views of what is there."""
    return isinstance(batch, MovedBatch) or batch.held(1) > 0


def on_device(
    stream: Stream, batches: Generator[Batch], device: torch.device | None
) -> Generator[Batch]:
    """The batches of ``stream``, read to ``device``; None: as they are."""
    if device is None or device == stream.device:
        return batches
    return _moved(batches, device)


def _moved(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            yield MovedBatch(batch, device)
