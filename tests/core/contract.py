"""Every gradient method, and a stream for it: what the tests of their contract go through."""

from __future__ import annotations

import pytest

import bptt

from .helpers import data, ragged

METHODS = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(3),
    "carried": lambda: bptt.Truncated(4, 2),
    "detached": lambda: bptt.Truncated(3),
    "gap": lambda: bptt.Truncated(2, 3, "last"),
    "all": lambda: bptt.Truncated(4, 2, "all"),
    "mean": lambda: bptt.Truncated(4, 2, combine="mean"),
    "recomputed": lambda: bptt.Truncated(4, 2, context="recomputed"),
    "stored": lambda: bptt.Truncated(4, 2, history="stored"),
    "stored mean": lambda: bptt.Truncated(4, 2, "last", history="stored", combine="mean"),
    "sliding": lambda: bptt.SlidingWindow(3),
}


def stream_for(name: str) -> bptt.Stream:
    if name == "sliding":
        return bptt.Stream(data(9, 2, 2), data(9, 2, 1), horizon=1)
    return ragged([5, 3, 6, 2], lanes=2)


every_method = pytest.mark.parametrize("name", METHODS)
kinds = pytest.mark.parametrize("kind", ["Elman", "LSTM", "OwnStart", "Nested"])
