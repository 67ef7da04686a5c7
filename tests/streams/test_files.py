"""Files give what the same data give in memory: pairs, masks, resets, lengths, gradients."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.streams.documents import (
    F64,
    FORMATS,
    NAMES,
    Documents,
    assert_same_chunks,
    chunks,
    examples,
    folder,
    formats,
    gradients,
    lengths,
    steps_of,
    write,
)

import bptt
from bptt.streams import _parquet


@examples
@given(st.data())
def test_chunks_are_those_of_memory(data: st.DataObject) -> None:
    documents = Documents(data.draw(lengths))
    many = len(documents.lengths)
    options: dict[str, Any] = {"horizon": data.draw(st.integers(0, 3))}
    options["burn_in"] = data.draw(st.integers(0, 4))
    options["shuffle"] = data.draw(st.sampled_from((None, 5)))
    how = data.draw(st.sampled_from(("lanes", "batch")))
    options[how] = data.draw(st.integers(1, many))
    kind, one_file, chunk = data.draw(formats), data.draw(st.booleans()), data.draw(chunks)
    memory = documents.in_memory(**options)
    with folder() as place:
        files = documents.in_files(place, kind, one_file, chunk=chunk, **options)
        assert (files.steps, files.input_size) == (memory.steps, memory.input_size)
        assert files.counted == memory.counted
        for _ in range(2):
            for one, other in zip(files.batches(), memory.batches(), strict=True):
                assert (one.length, one.lanes) == (other.length, other.lanes)
                for _ in range(4):  # in any order: backwards, over and over, past the end
                    start = data.draw(st.integers(0, one.length - 1))
                    stop = data.draw(st.integers(start + 1, one.length + 3))
                    assert_same_chunks(one.chunk(start, stop), other.chunk(start, stop))


@examples
@given(st.data())
def test_every_step_is_counted_once(data: st.DataObject) -> None:
    """Over all shards, whatever the lanes and chunks, in every epoch."""
    documents = Documents(data.draw(lengths))
    world = data.draw(st.integers(1, len(documents.lengths)))
    horizon = data.draw(st.integers(0, 3))
    window = data.draw(st.integers(1, 50))
    expected = Counter(
        (index, step)
        for index, length in enumerate(documents.lengths)
        for step in range(horizon, length)
        if step % 4 != 2
    )
    with folder() as place:
        kind = data.draw(formats)
        parts = [
            documents.in_files(
                place,
                kind,
                shard=(rank, world),
                lanes=1,
                horizon=horizon,
                shuffle=rank,
                chunk=data.draw(chunks),
            )
            for rank in range(world)
        ]
        for _ in range(2):
            seen = Counter(step for part in parts for step in steps_of(part, window))
            assert seen == expected


@examples
@given(st.integers(1, 90), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), formats, chunks)
def test_one_series_is_cut_into_shards_and_lanes(
    steps: int, world: int, lanes: int, horizon: int, kind: str, chunk: int
) -> None:
    documents = Documents((steps,))
    world = min(world, steps)
    lanes = min(lanes, steps // world)
    with folder() as place:
        path = write(place / f"one.{kind}", documents.columns())
        names = NAMES[kind]
        parts = [
            bptt.Stream.from_files(
                path,
                inputs=[names["x"]],
                targets=[names["y"]],
                missing="mask",
                horizon=horizon,
                lanes=lanes,
                shard=(rank, world),
                chunk=chunk,
                dtype=F64,
            )
            for rank in range(world)
        ]
        seen = sorted(step for part in parts for step in steps_of(part))
    assert seen == [(0, t) for t in range(horizon, steps) if t % 4 != 2]


@examples
@given(st.data())
def test_resets_stand_on_first_steps(data: st.DataObject) -> None:
    documents = Documents(data.draw(lengths))
    lanes = data.draw(st.integers(1, len(documents.lengths)))
    with folder() as place:
        stream = documents.in_files(
            place, data.draw(formats), lanes=lanes, shuffle=1, chunk=data.draw(chunks)
        )
        for batch in stream.batches():
            chunk = batch.chunk(0, batch.length)
            firsts = chunk.inputs[..., 0][chunk.reset]
            assert bool((firsts % 1000 == 0).all())
            starts = chunk.inputs[0, :, 0]
            assert sorted(torch.cat([firsts, starts]).tolist()) == [
                1000.0 * index for index in range(len(documents.lengths))
            ]


METHODS = {
    "full": lambda: bptt.Full(),
    "in segments": lambda: bptt.Full(segment=4),
    "carried": lambda: bptt.Truncated(7, 3),
    "recomputed": lambda: bptt.Truncated(5, 2, context="recomputed"),
    "stored": lambda: bptt.Truncated(6, 4, history="stored"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", METHODS)
def test_chunk_boundaries_change_no_gradient(name: str, kind: str, tmp_path: Path) -> None:
    documents = Documents((13, 4, 22, 1, 9))
    reference = gradients(METHODS[name](), documents.in_memory(lanes=2, horizon=1))
    for chunk in (1, 5, 1000):
        stream = documents.in_files(tmp_path, kind, lanes=2, horizon=1, chunk=chunk)
        found = gradients(METHODS[name](), stream)
        assert len(found) == len(reference)
        for one, other in zip(found, reference, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_lone_columns_of_whole_numbers_are_indices(kind: str, tmp_path: Path) -> None:
    documents = Documents((9, 5))
    columns = documents.columns()
    if kind == "npy":  # one dtype serves all columns: fields have their own
        record = np.empty(14, dtype=[("x", "f8"), ("label", "i4"), ("group", "i8")])
        for name in record.dtype.names or ():
            record[name] = columns[name]
        np.save(tmp_path / "a.npy", record)
    else:
        write(tmp_path / f"a.{kind}", columns)
    memory = bptt.Stream(
        [x[:, :1] for x in documents.all("inputs")], documents.all("labels"), lanes=2, dtype=F64
    )
    files = bptt.Stream.from_files(
        tmp_path / f"a.{kind}", inputs=["x"], targets="label", group="group", lanes=2, dtype=F64
    )
    one, other = next(files.in_order()), next(memory.in_order())
    assert_same_chunks(one.chunk(0, 9), other.chunk(0, 9))
    assert one.chunk(0, 9).targets.dtype == torch.int64
    listed = bptt.Stream.from_files(
        tmp_path / f"a.{kind}", inputs=["x"], targets=["label"], group="group"
    )
    assert next(listed.in_order()).chunk(0, 2).targets.shape == (2, 1, 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_of_a_split_know_their_past(kind: str, tmp_path: Path) -> None:
    steps = np.arange(50.0)
    write(tmp_path / f"a.{kind}", {"x": np.sin(steps), "y": np.cos(steps)})
    x, y = ("x", "y") if kind != "npy" else (0, 1)
    files = bptt.Stream.from_files(
        tmp_path / f"a.{kind}", inputs=[x], targets=[y], horizon=1, dtype=F64, chunk=7
    )
    memory = bptt.Stream(np.sin(steps), np.cos(steps), horizon=1, dtype=F64)
    net = bptt.Network(bptt.cells.GRU(1, 2, dtype=F64), torch.nn.Linear(2, 1, dtype=F64))
    for one, other in zip(files.split(0.5, 0.2), memory.split(0.5, 0.2), strict=True):
        assert bptt.evaluate(net, one).loss == bptt.evaluate(net, other).loss
        assert torch.equal(bptt.predict(net, one), bptt.predict(net, other))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_file_whose_name_is_not_utf8_is_closed(tmp_path: Path) -> None:
    """pyarrow leaves open what Python opened for it."""
    import pyarrow
    from pyarrow import parquet

    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet"))
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0, 3.0]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(path)
    before = len(os.listdir("/proc/self/fd"))
    file = _parquet._open(path)
    _parquet._close(file)
    assert len(os.listdir("/proc/self/fd")) == before
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(bptt.DataError, match="no whole Parquet file") as refused:
        _parquet._open(path)
    assert len(os.listdir("/proc/self/fd")) == before, refused
