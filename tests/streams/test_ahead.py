"""The thread that reads ahead ends when its pass does, and memory stays flat."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.streams.documents import network, scaled

import bptt

BEFORE: set[threading.Thread] = set()


def every_reader() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("bptt-stream")}


def readers() -> set[threading.Thread]:
    """Those of the present test: one that another left may live on in its traceback."""
    return every_reader() - BEFORE


@pytest.fixture
def stream(tmp_path: Path) -> bptt.Stream:
    BEFORE.clear()
    BEFORE.update(every_reader())
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(600, 2)))
    return bptt.Stream.from_files(
        tmp_path / "a.npy", inputs=[0], targets=[1], chunk=32, dtype=network().cell.weight_hh.dtype
    )


@pytest.mark.parametrize("method", [bptt.Truncated(10), bptt.Full(segment=50)])
def test_the_thread_ends_with_the_pass(method: Any, stream: bptt.Stream) -> None:
    for _ in method.updates(network(1), scaled, stream):
        pass
    assert not readers()


def test_the_thread_ends_with_a_pass_that_ends_early(stream: bptt.Stream) -> None:
    updates = bptt.Truncated(10).updates(network(1), scaled, stream)
    next(updates)
    assert readers()
    updates.close()  # type: ignore[attr-defined]  # a generator
    assert not readers()
    for _ in bptt.Truncated(10).updates(network(1), scaled, stream):
        break
    gc.collect()
    assert not readers()


def test_the_thread_ends_with_a_pass_that_fails(stream: bptt.Stream) -> None:
    net = network(1)
    updates = bptt.Truncated(10).updates(net, scaled, stream)
    next(updates)
    net.readout.forward = None  # type: ignore[union-attr, assignment]  # the next window fails
    with pytest.raises(TypeError):
        next(updates)
    assert not readers()


def test_a_batch_can_be_read_after_its_pass(stream: bptt.Stream) -> None:
    (batch,) = stream.in_order()
    assert batch.chunk(500, 700).steps == 100
    assert batch.chunk(700, 800).steps == 0
    del batch
    gc.collect()


def test_nothing_is_read_twice_going_forward_or_back(
    stream: bptt.Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bptt.streams._npy import NpyTable

    read: list[tuple[int, int]] = []
    original = NpyTable.read

    def counting(table: NpyTable, start: int, stop: int) -> Any:
        read.append((start, stop))
        return original(table, start, stop)

    monkeypatch.setattr(NpyTable, "read", counting)
    slabs = sorted((start, min(start + 32, 600)) for start in range(0, 600, 32))
    passes = {
        "windows": bptt.Truncated(20, 5),
        "deep windows": bptt.Truncated(150, 10, context="recomputed"),
    }
    for name, method in passes.items():
        read.clear()
        for _ in method.updates(network(1), scaled, stream):
            pass
        assert sorted(read) == slabs, name
    read.clear()
    (batch,) = stream.in_order()
    for start in range(560, -1, -40):
        batch.chunk(start, start + 40)
    assert sorted(read) == slabs


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_memory_is_bounded_by_chunks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen times the data, the same memory."""
    # The block of bytes that indexing reads at a time is to be small beside the smaller file too.
    monkeypatch.setattr("bptt.streams._csv.BLOCK", 1 << 16)
    peaks = []
    for number, rows in enumerate((10_000, 160_000)):
        path = tmp_path / f"{number}.{kind}"
        values = np.random.default_rng(0).normal(size=(rows, 4)).round(3)
        if kind == "npy":
            np.save(path, values)
        else:
            np.savetxt(path, values, delimiter=",", header="0,1,2,3", comments="", fmt="%.3f")
        names: list[Any] = [0, 1, 2, 3] if kind == "npy" else list("0123")
        peaks.append(_peak(path, names))
    assert peaks[1] < 1.5 * peaks[0] + 200_000


def _peak(path: Path, names: list[Any]) -> int:
    """Bytes of Python and NumPy at the worst moment of indexing and reading."""
    tracemalloc.start()
    stream = bptt.Stream.from_files(path, inputs=names, horizon=1, lanes=2, chunk=500)
    for batch in stream.batches():
        for start in range(0, batch.length, 100):
            batch.chunk(start, start + 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak
