"""For every test: one thread and one seed, since small networks run fastest so and alike
everywhere; Ctrl-C as a terminal gives it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

os.environ.setdefault("BPTT_STRICT", "1")  # before bptt is imported: no error ends in a warning

import pytest
import torch


@pytest.fixture(autouse=True)
def _alike() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: a second thread only waits
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the engine's own ends in the Python loop, as it does for users."""
    from bptt.engine import unsupported

    monkeypatch.setattr(unsupported, "STRICT", False)


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C is taken in, also where a shell runs the tests in the background and ignores it; and
    so is the end of the terminal, where they outlive it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
