"""A training run that can be killed at any moment, and started again: it goes on."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import nn

import bptt

METHODS = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(segment=16),
    "carried": lambda: bptt.Truncated(12, 4),
    "stored": lambda: bptt.Truncated(12, 4, history="stored"),
    "recomputed": lambda: bptt.Truncated(12, 4, context="recomputed"),
    "sliding": lambda: bptt.SlidingWindow(8),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=3, history_size=4),
}
EPOCHS = {"full": 16, "segments": 10, "sliding": 1}
"""So that each makes a few dozen updates."""


def train(case: dict[str, Any], callbacks: Any = (), share: float = math.inf) -> str:
    """Train, or go on training, and give the checksum of weights and history."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = bptt.Network(
        bptt.cells.GRU(1, 6), nn.Linear(6, 1), learn_initial_state=True, backend=case["backend"]
    )
    time = torch.arange(56.0)
    lanes = 1 if case["method"] == "sliding" else 2
    stream = bptt.Stream(
        torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time), horizon=1, lanes=lanes
    )
    options: dict[str, Any] = {}
    if case.get("folder"):
        saving = bptt.Checkpoint(case["folder"], every=case["every"], share=share)
        options = {"checkpoint": saving, "resume": True}
    history = bptt.fit(
        network,
        stream,
        method=METHODS[case["method"]](),
        optimizer=OPTIMIZERS[case["optimizer"]](network.parameters()),
        epochs=EPOCHS.get(case["method"], 2),
        validation=0.2,
        stop=bptt.Patience(50, restore_best=True),
        callbacks=callbacks,
        progress=False,
        **options,
    )
    found = hashlib.sha256()
    for parameter in network.parameters():
        found.update(parameter.detach().numpy().tobytes())
    clocks = ("seconds", "steps_per_second")
    kept = [{k: v for k, v in vars(e).items() if k not in clocks} for e in history.epochs]
    found.update(repr((kept, history.best_epoch, history.stop_reason)).encode())
    return found.hexdigest()
