"""Memory of a long run: millions of online updates, and what the process holds meanwhile.

python benchmarks/soak.py [--updates N]
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import torch
from torch import nn

import bptt


def resident() -> float:
    """Megabytes that the process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, depth = 100_000, 10
    series = torch.arange(steps + depth).mul(0.1).sin()
    net = bptt.Network(bptt.cells.Elman(1, 32), nn.Linear(32, 1))
    seen: list[tuple[int, float]] = []

    def look(progress: bptt.Progress) -> None:
        if progress.epoch % 5 == 0:
            gc.collect()
            seen.append((progress.updates, resident()))

    began = time.perf_counter()
    history = bptt.fit(
        net,
        bptt.Stream(series, horizon=1),
        method=bptt.SlidingWindow(depth),
        optimizer=lambda p: torch.optim.SGD(p, 1e-3),
        epochs=max(1, options.updates // steps),
        callbacks=[look],
        progress=False,
    )
    seconds = time.perf_counter() - began
    made = sum(epoch.updates for epoch in history.epochs)
    for updates, megabytes in seen:
        print(f"{updates:>12,} updates  {megabytes:8.1f} MB")
    grown = seen[-1][1] - seen[0][1] if seen else 0.0
    print(
        f"{made:,} updates in {seconds:.0f} s, {seconds / made * 1e6:.2f} us each; {grown:+.1f} MB"
    )


if __name__ == "__main__":
    main()
