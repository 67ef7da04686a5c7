"""Timing side by side: every contestant in turn, round after round, medians and ratios.

Machines are shared and noisy. Contestants that take turns see the same noise, so their ratio is
worth more than either time; the fraction of what the machine's multiply-adds can do at all,
measured in the same run, says how much is left.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bptt import _core


@dataclass
class Timing:
    """Seconds a call, over the rounds."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def time_in_turn(
    contestants: dict[str, Callable[[], Any]], rounds: int = 7, target: float = 0.15
) -> dict[str, Timing]:
    """Each contestant ``rounds`` times, each time for about ``target`` seconds, in turn.

    One call warms up (compilation, tracing), a second tells how many calls fill the time.
    """
    calls = {}
    for name, call in contestants.items():
        call()
        started = time.perf_counter()
        call()
        calls[name] = max(1, int(target / max(time.perf_counter() - started, 1e-7)))
    timings = {name: Timing() for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            call()  # its own caches and threads are warm again
            started = time.perf_counter()
            for _ in range(calls[name]):
                call()
            timings[name].seconds.append((time.perf_counter() - started) / calls[name])
    return timings


def with_threads(threads: int, call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` under ``torch.set_num_threads(threads)``."""

    def run() -> Any:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return call()

    return run


def matmul_peak(threads: int, size: int = 1024, rounds: int = 9) -> float:
    """GFLOP/s of the best of several float32 matrix products [size, size] on ``threads``."""
    torch.set_num_threads(threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def raw_peak(threads: int, rounds: int = 5) -> float:
    """GFLOP/s of multiply-adds in registers alone, in the instruction set that the core uses: what
    no program exceeds."""
    count = 2_000_000

    def once(_: int) -> float:
        return _core.multiply_adds(count)

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            started = time.perf_counter()
            done = sum(pool.map(once, range(threads)))
            best = max(best, 2 * done / (time.perf_counter() - started))
    return best / 1e9


def machine() -> dict[str, Any]:
    """What a reader needs to know about where figures come from."""
    name = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": name,
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "isa": _core.isa(),
        "peak_1": raw_peak(1),
        "peak_2": raw_peak(2),
        "product_1": matmul_peak(1),
        "product_2": matmul_peak(2),
    }


def headline(found: dict[str, Any]) -> str:
    """The machine in a line."""
    return (
        "{cpu}, {isa}: {peak_1:.0f} GFLOP/s of multiply-adds on one core, {peak_2:.0f} on two; "
        "PyTorch's best product {product_1:.0f} and {product_2:.0f}".format(**found)
    )


def write(path: str | None, content: Any) -> None:
    """JSON to ``path``, if one is given."""
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1, default=asdict) + "\n")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, columns aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    return "\n".join(
        [line(header), "|" + "|".join("-" * (w + 2) for w in widths) + "|"]
        + [line(row) for row in rows]
    )


def readable(seconds: float) -> str:
    """Milliseconds with three digits."""
    return f"{seconds * 1e3:.3g}"
