"""The one warning of a process that runs without the compiled core."""

from __future__ import annotations

import warnings

_told = False


def warn(stacklevel: int) -> None:
    """Say it, unless it was said; ``stacklevel`` as in `warnings.warn`, from the caller."""
    global _told
    if _told:
        return
    _told = True
    warnings.warn(
        "The compiled core of bptt (bptt._core) is missing: recurrences run in PyTorch, most of "
        "them in a Python loop, which gives the same results but is many times slower. Install "
        "bptt from a wheel for this platform, or from its sources where there is a C++20 compiler. "
        "`python -m bptt.info` shows what is installed.",
        stacklevel=stacklevel + 1,
    )
