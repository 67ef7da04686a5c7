"""Documents whose every step is a number of its own, in memory and in files of every format."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import bptt

examples = settings(max_examples=30, deadline=None, derandomize=True)
FORMATS = ("csv", "parquet", "npy")
F64 = torch.float64


@dataclass(frozen=True)
class Documents:
    """Sequences of these lengths: input 1 is 1000·document + step, input 2 noise; the target is
    100 times input 1, missing where the mask (step mod 4 = 2) leaves it out; the label step mod 3.
    """

    lengths: tuple[int, ...]

    def inputs(self, index: int) -> np.ndarray:
        step = np.arange(self.lengths[index], dtype=np.float64)
        noise = np.random.default_rng(index).normal(size=len(step))
        return np.stack([1000.0 * index + step, noise], axis=1)

    def targets(self, index: int) -> np.ndarray:
        values = 100.0 * self.inputs(index)[:, :1]
        values[~self.mask(index)] = np.nan
        return values

    def mask(self, index: int) -> np.ndarray:
        return np.arange(self.lengths[index]) % 4 != 2

    def labels(self, index: int) -> np.ndarray:
        return np.arange(self.lengths[index]) % 3

    def all(self, what: str) -> list[np.ndarray]:
        return [getattr(self, what)(index) for index in range(len(self.lengths))]

    def in_memory(self, **options: Any) -> bptt.Stream:
        return bptt.Stream(
            self.all("inputs"),
            self.all("targets"),
            mask=[torch.from_numpy(flags) for flags in self.all("mask")],
            dtype=F64,
            **options,
        )

    def columns(self, indices: list[int] | None = None) -> dict[str, np.ndarray]:
        chosen = range(len(self.lengths)) if indices is None else indices

        def joined(what: str) -> np.ndarray:
            return np.concatenate([getattr(self, what)(index) for index in chosen])

        return {
            "x": joined("inputs")[:, 0],
            "noise": joined("inputs")[:, 1],
            "y": joined("targets")[:, 0],
            "label": joined("labels"),
            "use": joined("mask"),
            "group": np.repeat(list(chosen), [self.lengths[i] for i in chosen]),
        }

    def in_files(
        self, folder: Path, kind: str, one_file: bool = True, **options: Any
    ) -> bptt.Stream:
        """The same data as `in_memory`, one file with a group column or a file each."""
        names = NAMES[kind]
        if one_file:
            paths: Any = write(folder / f"all.{kind}", self.columns())
            options["group"] = names["group"]
        else:
            paths = [
                write(folder / f"{index}.{kind}", self.columns([index]))
                for index in range(len(self.lengths))
            ]
        asked = {
            "inputs": [names["x"], names["noise"]],
            "targets": [names["y"]],
            "mask": names["use"],
            "dtype": F64,
        }
        return bptt.Stream.from_files(paths, **(asked | options))


NAMES: dict[str, dict[str, Any]] = {
    kind: {name: name for name in ("x", "noise", "y", "label", "use", "group")}
    for kind in ("csv", "parquet")
}
NAMES["npy"] = {name: place for place, name in enumerate(NAMES["csv"])}


def write(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """Columns, once, as the file's ending says; absent numbers are empty fields, nulls, or NaN."""
    if path.exists():  # a second stream over the same file
        return path
    if path.suffix == ".npy":
        np.save(path, np.stack([column.astype(np.float64) for column in columns.values()], axis=1))
        return path
    table = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path, row_group_size=7)
    return path


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example of a property test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=7).map(tuple)
formats = st.sampled_from(FORMATS)
chunks = st.sampled_from((1, 2, 3, 5, 16, 1000))


def assert_same_chunks(one: bptt.Chunk, other: bptt.Chunk) -> None:
    """Equal in every bit that a gradient method may read."""
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.reset, other.reset)
    assert one.targets.shape == other.targets.shape
    assert torch.equal(one.targets[one.mask], other.targets[other.mask])
    assert (one.lengths is None) == (other.lengths is None)
    if one.lengths is not None:
        assert torch.equal(one.lengths, other.lengths)


def steps_of(stream: bptt.Stream, window: int = 1000) -> list[tuple[int, int]]:
    """The (document, step) of every counted target, from the targets themselves."""
    seen: list[int] = []
    for batch in stream.batches():
        for start in range(0, batch.length, window):
            chunk = batch.chunk(start, start + window)
            seen += chunk.targets[chunk.mask].flatten().long().tolist()
    return [divmod(value // 100, 1000) for value in seen]


def network(inputs: int = 2, outputs: int = 1, cell: Any = None, **options: Any) -> bptt.Network:
    """A small float64 network, always the same; its own cell is not saturated by the documents'
    large numbers, or no state would depend on the one before."""
    torch.manual_seed(3)
    if cell is None:
        cell = bptt.cells.LSTM(inputs, 3, dtype=F64)
        with torch.no_grad():
            cell.weight_ih[:, 0] *= 1e-3
    readout = torch.nn.Linear(3, outputs, dtype=F64)
    return bptt.Network(cell, readout, backend="eager", **options)


def scaled(prediction: Tensor, target: Tensor) -> Tensor:
    """A loss that keeps the documents' large numbers from saturating anything."""
    return (prediction - 1e-5 * target).square()


def gradients(
    method: Any, stream: bptt.Stream, loss: Any = scaled, **options: Any
) -> list[list[Tensor]]:
    """The gradient of every update, with the weights held fixed."""
    net = network(**options)
    found = []
    for _ in method.updates(net, loss, stream):
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        net.zero_grad()
    return found
