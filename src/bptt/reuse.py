"""Memory that serves one piece of work after another.

Memory asked for anew has to be cleared by the system page by page, which takes up to a fifth of the
time of an unfolding that is over when the memory is given back. Segments of one sequence are all of
one size: each takes the memory of the one before.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor

KEPT = 1 << 21
"""Bytes that the C library may keep of what a thread freed, beside what the thread takes again:
each has a heap of its own, in pieces of which the next request finds some too small."""

LINE = 64
"""Bytes to whose multiples arrays are aligned."""


class Reuse:
    """Hands out blocks of memory, and hands each out again once no tensor refers to it any more.

    What is too small for all that is asked for is given up for something larger, so that no more
    blocks are kept than were in use at a time.

    Args:
        least: the bytes of the smallest block. Where it is known what the largest one will be, all
            are of one size, and none is given up.
    """

    def __init__(self, least: int = 1) -> None:
        self._least = max(least, 1)
        self._free: dict[int, Tensor] = {}  # changed by one operation at a time: threads may meet

    def empty(self, *arrays: tuple[Sequence[int], torch.dtype]) -> list[Tensor]:
        """Arrays of such shapes and types with anything in them, in one block."""
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in arrays]
        ends = list(accumulate(-(-size // LINE) * LINE for size in sizes))
        memory = self._lent(ends[-1])
        return [
            memory[start : start + size].view(dtype).view(*shape)
            for start, size, (shape, dtype) in zip([0, *ends], sizes, arrays, strict=False)
        ]

    def _lent(self, size: int) -> Tensor:
        block = self._taken(size)
        if block is None:
            block = torch.empty(max(size, self._least), dtype=torch.uint8)
        # The tensor's storage holds the array, which ends when the last view of the tensor does.
        array = block.numpy()
        weakref.finalize(array, self._free.setdefault, id(block), block).atexit = False
        return torch.from_numpy(array)

    def _taken(self, size: int) -> Tensor | None:
        """The smallest free block that is large enough; if none is, the largest is given up."""
        free = sorted(self._free.copy().values(), key=lambda block: block.nbytes)
        for block in free:
            if block.nbytes >= size:
                return self._free.pop(id(block))
        if free:
            del self._free[id(free[-1])]
        return None


_HERE = threading.local()


@contextmanager
def reusing(memory: Reuse) -> Iterator[None]:
    """Unfoldings of this thread take their arrays from ``memory``."""
    before = getattr(_HERE, "memory", None)
    _HERE.memory = memory
    try:
        yield
    finally:
        _HERE.memory = before


def lender() -> Reuse | None:
    """The memory from which unfoldings of this thread take their arrays, if there is one."""
    return getattr(_HERE, "memory", None)


def empty(like: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """``like.new_empty`` of each shape, from the memory that is reused if there is one."""
    memory = lender()
    if memory is None:
        return [like.new_empty(shape) for shape in shapes]
    return memory.empty(*[(shape, like.dtype) for shape in shapes])
