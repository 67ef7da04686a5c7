"""Batches that are read as they are asked for, a little ahead of the reader.

A batch is divided into slabs of so many steps. A slab is decoded, converted and laid out in a
thread; while one is worked on, the next two in the direction of travel are made ready, also across
the end of a batch. Windows are views of slabs, or are joined of several. Held are the slabs of the
latest requests and three more, whatever the length of the data. What goes wrong in a thread is
raised where the reader would have got the data, and only if it gets there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from bptt.reuse import KEPT, Reuse
from bptt.streams._chunk import Batch, Chunk
from bptt.streams._layout import Layout, Read, assemble
from bptt.streams._sequences import Sequence

MOST_HELD = 16
"""Requests of more slabs than this are joined slab by slab, without keeping those passed."""


AHEAD = 2
"""Slabs made ready side by side."""

IN_THE_MAKING = 3
"""What a slab that is being made holds beside itself, in slabs: rows as decoded, as converted and
as checked."""


class Worker:
    """Threads that start with the first jobs and end with `close`."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, job: Any, *arguments: Any) -> Future[Chunk]:
        """Queue a job."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="bptt-stream")
        return self._pool.submit(job, *arguments)

    def close(self) -> None:
        """Drop what is queued, and wait for what runs."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


class StreamedBatch:
    """A `Batch` whose chunks are read when asked for, by slabs of ``steps``."""

    def __init__(
        self, read: Read, like: Sequence, layout: Layout, steps: int, worker: Worker
    ) -> None:
        self.following: StreamedBatch | None = None
        self._read, self._like, self._layout = read, like, layout
        self._steps = steps
        self._count = -(-layout.length // steps)
        self._worker = worker
        self._slabs: OrderedDict[int, Future[Chunk]] = OrderedDict()
        self._held = self._kept(0)
        self._memory = Reuse()
        self._newest = 0

    @property
    def length(self) -> int:
        """Steps of the longest lane."""
        return self._layout.length

    @property
    def lanes(self) -> int:
        """How many lanes run side by side."""
        return self._layout.lanes

    def held(self, steps: int) -> int:
        """The bytes of the slabs at hand, and what reading others holds beside them."""
        slab = self._like.step_bytes * min(self._steps, self.length) * self.lanes
        at_hand = min(self._kept(-(-max(steps - 1, 0) // self._steps)), self._count)
        making = slab * IN_THE_MAKING
        return slab * at_hand + (making + min(making, KEPT)) * min(AHEAD, self._count)

    def _kept(self, more: int) -> int:
        """How many slabs are kept where a chunk lies in so many beside its first."""
        return 2 + AHEAD + (more if more <= MOST_HELD else 0)

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``.

        Raises:
            DataError: what the files hold there is unusable, or they changed.
        """
        stop = min(stop, self.length)
        if start >= stop:
            return assemble(self._read, self._like, self._layout, start, start)
        first, last = start // self._steps, (stop - 1) // self._steps
        self._held = max(self._held, self._kept(last - first))
        step = -1 if first < self._newest else 1
        self._newest = first
        if first == last:
            found = self._slab(first, first, step)
            return found.part(start - first * self._steps, stop - first * self._steps)
        return self._joined(start, stop, step)

    def _joined(self, start: int, stop: int, step: int) -> Chunk:
        """A chunk that lies in several slabs, copied one slab after the other."""
        whole: list[Tensor] = []
        counts = torch.zeros(self.lanes, dtype=torch.int64, device=self._like.inputs.device)
        for index in range(start // self._steps, (stop - 1) // self._steps + 1):
            base = index * self._steps
            low, high = max(start, base), min(stop, base + self._steps)
            # Backwards, what comes after this request lies before its first slab.
            turn = step < 0 and high == stop
            edge = (start // self._steps, -1) if turn else (index, 1)
            part = self._slab(index, *edge).part(low - base, high - base)
            fields = (part.inputs, part.targets, part.mask, part.reset)
            whole = whole or [f.new_empty(stop - start, *f.shape[1:]) for f in fields]
            for into, field in zip(whole, fields, strict=True):
                into[low - start : high - start] = field
            counts += part.steps if part.lengths is None else part.lengths
        lengths = counts if bool((counts < stop - start).any()) else None
        return Chunk(whole[0], whole[1], whole[2], whole[3], lengths)

    def _slab(self, index: int, edge: int, step: int) -> Chunk:
        """One slab, while the next ones beyond ``edge``, in direction ``step``, are begun."""
        self.prepare(index)
        for following in range(edge + step, edge + step * (AHEAD + 1), step):
            if 0 <= following < self._count:
                self.prepare(following)
            elif following >= self._count and self.following is not None:
                self.following.prepare(min(following - self._count, self.following._count - 1))
        slab = self._slabs[index]
        try:
            found = slab.result()
        except BaseException:
            self._slabs.pop(index, None)  # another attempt reads again
            raise
        return found

    def prepare(self, index: int) -> None:
        """Begin to read a slab, unless it is there; the one longest unused makes room for it."""
        if index in self._slabs:
            self._slabs.move_to_end(index)
        else:
            while len(self._slabs) >= self._held:
                self._slabs.popitem(last=False)[1].cancel()
            start = index * self._steps
            stop = min(start + self._steps, self.length)
            self._slabs[index] = self._worker.submit(self._made, start, stop)

    def _made(self, start: int, stop: int) -> Chunk:
        """A slab, in memory that served others before: what a thread works in lies apart from what
        stays, and can be used again."""
        chunk = assemble(self._read, self._like, self._layout, start, stop)
        return chunk.copied(self._memory) if chunk.inputs.device.type == "cpu" else chunk

    def release(self) -> None:
        """Let go of all slabs; asked again, they are read again."""
        for slab in self._slabs.values():
            slab.cancel()
        self._slabs.clear()
        self._memory = Reuse()


def batches_ahead(
    read: Read, like: Sequence, layouts: Iterable[Layout], steps: int
) -> Generator[Batch]:
    """A batch for each layout; the thread ends when the generator is done or closed."""
    worker = Worker()
    previous: StreamedBatch | None = None
    try:
        for layout in layouts:
            batch = StreamedBatch(read, like, layout, steps, worker)
            if previous is not None:
                previous.following = batch
                yield previous
                previous.following = None
                previous.release()
            previous = batch
        if previous is not None:
            yield previous
    finally:
        worker.close()
        if previous is not None:  # whoever keeps the batch keeps none of its data
            previous.release()
