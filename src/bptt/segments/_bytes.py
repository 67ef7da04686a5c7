"""Bytes: as people write them, and as PyTorch allocates them."""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bptt.errors import BpttError, OptionError
from bptt.reuse import KEPT

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{letter}IB": 1 << 10 * (power + 1) for power, letter in enumerate("KMGT")
}


def bytes_of(given: object) -> int:
    """A number of bytes out of 256_000_000, "256MB", "1.5 GB" or "512MiB".

    Raises:
        OptionError: it is none of these.
    """
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    if isinstance(given, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", given)
        if found and found[2].upper() in _UNITS and float(found[1]) > 0:
            return int(float(found[1]) * _UNITS[found[2].upper()])
    raise OptionError(
        f"memory must be a number of bytes above 0, or one with its unit, as in memory='256MB' or "
        f"'1.5GiB', not {given!r}."
    )


def readable(count: float) -> str:
    """Three digits and a unit: ``"12.3 MB"``."""
    power = min(int(math.log10(count)) // 3, 4) if count >= 1 else 0
    value = count / 1000**power
    digits = 0 if power == 0 else max(2 - int(math.log10(value)), 0)
    return f"{value:.{digits}f} {['B', 'KB', 'MB', 'GB', 'TB'][power]}"


def peak_of(run: Callable[[], Any]) -> tuple[Any, int, int]:
    """What ``run`` returns, the most bytes that PyTorch held for it at a time beyond those held
    before, and how many it has left behind; see `course_of`."""
    result, course = course_of(run)
    return result, max(course), course[-1]


def course_of(run: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What ``run`` returns, and how many bytes PyTorch held for it beyond those held before: none
    at first, then after every time that it took some or gave some back.

    PyTorch's older profiler is all that reports every allocation, of any device, with its time,
    without printing and without a thread.

    Raises:
        BpttError: another profiler runs.
    """
    config = torch.autograd.ProfilerConfig(  # type: ignore[attr-defined]  # not in its stubs
        torch.autograd.ProfilerState.CPU,  # type: ignore[attr-defined]  # private, and without types
        False,
        True,  # allocations
        False,
        False,
        False,
        torch._C._profiler._ExperimentalConfig(),
    )
    if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]  # private, and without types
        raise BpttError(
            "a memory budget is planned by measuring, which needs PyTorch's profiler, and that is "
            "in use: call method.plan(...) before, or give segment= in place of memory=."
        )
    torch.autograd._enable_profiler_legacy(config)  # type: ignore[attr-defined]  # private, and without types
    collecting = gc.isenabled()
    gc.disable()  # what others left behind is none of this
    try:
        result = run()
    finally:
        if collecting:
            gc.enable()
        threads = torch.autograd._disable_profiler_legacy()  # type: ignore[attr-defined]  # private, and without types
    course = [0]
    for event in _in_order(threads):
        if str(event.kind()) == "memory_alloc":
            course.append(course[-1] + event.cpu_memory_usage() + event.cuda_memory_usage())
    return result, course


def _in_order(threads: list[list[Any]]) -> list[Any]:
    """The events of all threads by their time: a GPU's backward pass has one of its own."""
    events = [event for of_thread in threads for event in of_thread]
    return sorted(events, key=events[0].cpu_elapsed_us) if len(threads) > 1 else events


def resident() -> int:
    """The anonymous memory of this process, in bytes; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, whole, shared, *_ = file.read().split()
    except OSError:
        return 0
    return (int(whole) - int(shared)) * mmap.PAGESIZE


def available(device: torch.device) -> int:
    """The bytes that a device has free.

    Of a GPU, what PyTorch holds and does not use counts. Of the CPU it is what Linux calls
    available, and elsewhere all memory of the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back() -> None:
    """Return freed memory to the system, where the C library can: it keeps what it frees, in pieces
    that do not fit what comes next."""
    if _trim is not None:
        _trim(0)


class Freed:
    """Returns freed memory to the system where more is held than was planned.

    Args:
        most: so many bytes may be held beside those that are held now; None: any number.
    """

    def __init__(self, most: int | None) -> None:
        self._limit: int | None = None
        if most is not None:
            give_back()
            self._limit = resident() + most

    def tidy(self, always: bool = False) -> None:
        """Look, and return what was freed if it is too much, or in any case."""
        if self._limit is not None and (always or resident() > self._limit):
            give_back()
            self._limit = max(self._limit, resident() + KEPT)  # the rest is in use by others


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
