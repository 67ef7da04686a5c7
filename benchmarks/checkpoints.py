"""What saving costs: the share of the training time, and one save of networks of several sizes.

python benchmarks/checkpoints.py --json docs/figures/checkpoints.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bptt
from bptt.training import _checkpoint


def measure(hidden: int, seconds: float, every: str) -> dict[str, Any]:
    """Train for so long, saving as often as the share of 1 % allows."""
    torch.manual_seed(0)
    network = bptt.Network(bptt.cells.GRU(4, hidden), nn.Linear(hidden, 1))
    stream = bptt.Stream(torch.randn(4000, 8, 4), torch.randn(4000, 8, 1))
    costs: list[float] = []
    save = _checkpoint.Saver.save

    def timed(saver: Any, updates: int) -> Path:
        began = time.perf_counter()
        path = save(saver, updates)
        costs.append(time.perf_counter() - began)
        return path

    _checkpoint.Saver.save = timed  # type: ignore[method-assign]  # put in its place, and back
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            bptt.fit(
                network,
                stream,
                method=bptt.Truncated(25),
                optimizer=torch.optim.Adam(network.parameters()),
                epochs=10**9,
                stop=bptt.TimeLimit(seconds),
                checkpoint=bptt.Checkpoint(folder, every=every),
                progress=False,
            )
            whole = time.perf_counter() - began
            newest = max(Path(folder).iterdir())
            size = sum(file.stat().st_size for file in newest.iterdir())
    finally:
        _checkpoint.Saver.save = save  # type: ignore[method-assign]  # put in its place, and back
    regular = costs[1:-1]
    return {
        "hidden": hidden,
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": size,
        "saves": len(regular),
        "median_ms": 1e3 * sorted(costs)[len(costs) // 2],
        "regular_share": sum(regular) / whole,
        "share_with_first_and_last": sum(costs) / whole,
        "seconds": whole,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [measure(hidden, options.seconds, "100ms") for hidden in (16, 128, 1024)]
    for one in found:
        print(one)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
