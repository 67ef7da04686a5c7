"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path


def available() -> int:
    """Bytes that the machine has free: what Linux calls available, elsewhere all of its memory."""
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def readable(size: float) -> str:
    """Bytes as ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
