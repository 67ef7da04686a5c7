"""Gradient methods that learn online, and steps by which a learner is fed."""

from __future__ import annotations

import torch

import bptt

METHODS = [
    bptt.SlidingWindow(4),
    bptt.SlidingWindow(3, combine="mean"),
    bptt.Truncated(6, 2),
    bptt.Truncated(5, 5),
    bptt.Truncated(4, 1, loss="all", context="recomputed"),
    bptt.Truncated(6, 3, history="stored"),
]


def fed(learner: bptt.Online, steps: range, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [learner.step(x[t], y[t]) for t in steps]
