"""Two segments at a time: one swept here, the next unfolded by an idle core."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_END = object()


def one_ahead(items: Iterator[T]) -> Generator[T]:
    """The same items; from the second on, each is made in a thread while the one before is in use.

    Meanwhile PyTorch works on one core on either side. Close the generator when done with it.
    """
    first = next(items, _END)
    if first is _END:
        return
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "bptt-segments", initializer=torch.set_num_threads, initargs=(1,))
    try:
        torch.set_num_threads(1)
        item = first
        del first
        while item is not _END:
            coming = pool.submit(next, items, _END)
            yield item  # type: ignore[misc]  # no end, as was just asked
            del item
            item = coming.result()
            del coming
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(cores)
