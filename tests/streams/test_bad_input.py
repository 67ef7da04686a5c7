"""Bad files are refused with file and row, and nothing is trained on half a chunk."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.streams.documents import network, scaled

import bptt

ROWS = 2000


def csv(path: Path, rows: int = ROWS, **changed: dict[int, str]) -> Path:
    """A table of a, b and g (a group of 100 rows each), with some fields replaced."""
    lines = ["a,b,g"]
    for row in range(rows):
        fields = {"a": f"{row}.5", "b": f"{-row}.25", "g": f"g{row // 100}"}
        fields |= {name: values[row] for name, values in changed.items() if row in values}
        lines.append(",".join(fields.values()))
    path.write_text("\n".join(lines) + "\n")
    return path


def stream(paths: Any, **options: Any) -> bptt.Stream:
    asked: dict[str, Any] = {"inputs": ["a"], "targets": ["b"], "chunk": 100}
    return bptt.Stream.from_files(paths, **(asked | options))


def read(source: bptt.Stream, window: int = 50) -> int:
    """Read on to the end, or to the error; the steps that came before it."""
    steps = 0
    for batch in source.batches():
        for start in range(0, batch.length, window):
            steps += batch.chunk(start, start + window).steps
    return steps


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"a": {1900: "oops"}}, {}, r"a.csv, row 1900, column 'a': 'oops' is no number"),
        ({"b": {1234: "-"}}, {}, r"a.csv, row 1234, column 'b': '-' is no number"),
        ({"a": {7: "oops"}}, {}, r"a.csv, row 7, column 'a': 'oops' is no number"),
        ({"a": {1900: "nan"}}, {}, r"a.csv, row 1900, column 'a': inputs are nan"),
        ({"a": {1900: ""}}, {"missing": "mask"}, r"row 1900, column 'a': inputs are nan"),
        ({"b": {1900: "inf"}}, {}, r"a.csv, row 1900, column 'b': targets are inf"),
        ({"b": {1900: "1e99"}}, {}, r"a.csv, row 1900, column 'b': targets are inf"),
        ({"b": {1900: ""}}, {}, r"row 1900, column 'b': targets are nan .* missing='mask'"),
        ({"b": {1500: "1,2"}}, {}, r"a.csv, row 1500: 4 fields, but the header names 3"),
        ({"g": {1500: '"x'}}, {}, r"a.csv, row 1500: a quote is not closed"),
        ({"g": {1500: "g3"}}, {"group": "g"}, r"a.csv, row 1500: group 'g3' .* appears again"),
        ({"g": {1500: ""}}, {"group": "g"}, r"a.csv, row 1500: group column 'g' is empty"),
        ({}, {"inputs": ["aa"]}, r"a.csv has no column 'aa'. Did you mean 'a'\?"),
        ({}, {"targets": ["g"]}, r"a.csv, row 0, column 'g': 'g0' is no number"),
        ({"g": dict.fromkeys(range(1999), "1") | {1999: "2"}}, {"mask": "g"}, "neither true"),
        ({"b": {t: str(t) for t in range(1900)}}, {"targets": "b"}, r"row 1900.*no whole number"),
    ],
)
def test_a_bad_field_is_named(changed: Any, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(bptt.BpttError, match=message):
        read(stream(csv(tmp_path / "a.csv", **changed), **options))


def test_nothing_is_trained_on_half_a_chunk(tmp_path: Path) -> None:
    """The updates before the bad row are made, the one that would read it is not."""
    source = stream(
        csv(tmp_path / "a.csv", a={1234: "oops"}), dtype=network(1).cell.weight_hh.dtype
    )
    stops = []
    updates = bptt.Truncated(40).updates(network(1), scaled, source)
    with pytest.raises(bptt.DataError, match="row 1234"):
        stops.extend(update.stop for update in updates)
    # Rows are decoded by the 256: those before the bad row may fall with it.
    assert 1234 - 256 - 100 <= stops[-1] <= 1234
    assert stops == list(range(40, stops[-1] + 1, 40))


@pytest.mark.parametrize("kind", ["csv", "npy", "parquet"])
def test_a_file_that_changes_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    names: dict[str, Any] = {}
    if kind == "csv":
        csv(path)
    elif kind == "npy":
        np.save(path, np.zeros((ROWS, 2)))
        names = {"inputs": [0], "targets": [1]}
    else:
        columns = {"a": np.zeros(ROWS), "b": np.zeros(ROWS)}
        pa.parquet.write_table(pa.table(columns), path)
    source = stream(path, **names)
    batch = next(source.batches())
    batch.chunk(0, 50)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 500)
    with pytest.raises(bptt.DataError, match=rf"a.{kind} changed .* bytes then.*row 500"):
        batch.chunk(500, 600)
    with pytest.raises(bptt.DataError):
        read(source)


def test_a_read_that_ends_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and time of change may lie, as on some network drives."""
    source = stream(csv(tmp_path / "a.csv"))
    monkeypatch.setattr(os, "pread", lambda file, size, at: b"0,0,0\n" * (size // 12))
    with pytest.raises(bptt.DataError, match=r"a.csv ends short near row 0"):
        read(source)


def test_a_bad_row_troubles_only_who_reads_it(tmp_path: Path) -> None:
    """Documents that lie between the same two offsets of the index are decoded together."""
    groups = {t: f"g{t // 5}" for t in range(ROWS)}
    path = csv(tmp_path / "a.csv", g=groups, a={7: "nan"})
    source = stream(path, group="g")._source
    first, third = source.read([(0, 0, 5), (2, 0, 5)])
    assert len(first) == len(third) == 5
    with pytest.raises(bptt.DataError, match=r"a.csv, row 7, column 'a': inputs are nan"):
        source.read([(0, 0, 5), (1, 0, 5), (3, 0, 5)])


def test_a_touched_file_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv")
    source = stream(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(bptt.DataError, match="changed while it was in use; row 0"):
        read(source)


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_an_unfinished_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.zeros((ROWS, 2)))
    else:
        pa.parquet.write_table(pa.table({"a": np.zeros(ROWS), "b": np.ones(ROWS)}), path)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(bptt.DataError, match=rf"a.{kind} is no whole"):
        stream(path, inputs=[0], targets=[1])


def test_files_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    good = csv(tmp_path / "good.csv", 10)
    (tmp_path / "whole.csv").write_text("a,b,g\n1,2,x\n")
    (tmp_path / "other.csv").write_text("a,c\n1,2\n")
    (tmp_path / "empty.csv").write_text("a,b,g\n")
    (tmp_path / "nothing.csv").write_text("")
    for name, options, message in [
        ("whole.csv", {"targets": "b"}, "'b' holds numbers in .*good.csv, but integers in .*whole"),
        ("other.csv", {}, "other.csv has no column 'b'"),
        ("empty.csv", {}, "empty.csv is empty: it has no rows"),
        ("nothing.csv", {}, "nothing.csv is empty"),
        ("absent.csv", {}, "there is no file .*absent.csv"),
    ]:
        with pytest.raises(bptt.DataError, match=message):
            stream([good, tmp_path / name], **options)
    csv(tmp_path / "same.csv", 10)
    with pytest.raises(bptt.DataError, match=r"same.csv, row 0: group 'g0' appears again"):
        stream([good, tmp_path / "same.csv"], group="g")
    pa.parquet.write_table(pa.table({"a": ["1", "2"], "b": [1, 2]}), tmp_path / "text.parquet")
    with pytest.raises(bptt.DataError, match=r"text.parquet, row 0, column 'a': 'string'"):
        stream([good, tmp_path / "text.parquet"])


def test_arrays_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.zeros((4, 3, 2)))
    np.save(tmp_path / "flat.npy", np.zeros((4, 3)))
    np.save(tmp_path / "objects.npy", np.array([None, 1]), allow_pickle=True)
    for name, column, message in [
        ("cube.npy", 0, r"shape \[4, 3, 2\]"),
        ("flat.npy", 3, "has no column 3"),
        ("flat.npy", "a", "has no column 'a'"),
        ("objects.npy", 0, "is no whole .npy file of numbers"),
    ]:
        with pytest.raises(bptt.DataError, match=message):
            stream(tmp_path / name, inputs=[column], targets=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": []}, "inputs must name"),
        ({"targets": None}, "horizon=1"),
        ({"missing": "skip"}, "missing='skip' is unknown"),
        ({"shard": (2, 2)}, "ranks go from 0 to 1"),
        ({"shard": 3}, r"takes \(rank, world\)"),
        ({"shard": (0, 5000)}, "only 2000 steps"),
        ({"batch": 2}, "whole sequences"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"horizon": -1}, "horizon must be at least 0"),
        ({"lanes": 9999}, "more than the 2000 steps"),
    ],
)
def test_unusable_options_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        stream(csv(tmp_path / "a.csv"), **options)
    with pytest.raises(bptt.OptionError, match="none of the formats"):
        stream(tmp_path.joinpath("a.csv").rename(tmp_path / "a.xlsx"))


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(bptt.BpttError, match=r"pip install 'bptt\[cli\]'"):
        stream(csv(tmp_path / "a.csv", 5))
    np.save(tmp_path / "a.npy", np.zeros((5, 2)))
    assert read(stream(tmp_path / "a.npy", inputs=[0], targets=[1])) == 5


def test_odd_but_sound_csv_is_read(tmp_path: Path) -> None:
    """A byte-order mark, \\r\\n, blank lines, quoted fields, no line end at the end, tabs."""
    text = '\ufeff"a", b,g\r\n1,2,"x"\r\n\r\n3,4,"x"\r\n5,6,y'
    (tmp_path / "odd.csv").write_bytes(text.encode())
    source = stream(tmp_path / "odd.csv", group="g", lanes=2, cache=tmp_path / "cache")
    chunk = next(source.batches()).chunk(0, 9)
    assert chunk.inputs.flatten().tolist() == [1, 5, 3, 0]
    assert chunk.targets.flatten().tolist() == [2, 6, 4, 0]
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\n")
    assert read(stream(tmp_path / "a.tsv")) == 1


def test_a_column_that_turns_to_text_at_row_900_000(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("a,b\n" + "1.5,2.5\n" * 900_000 + "oops,2.5\n1.5,2.5\n")
    source = stream(path, chunk=1 << 15)
    with pytest.raises(bptt.DataError, match=r"long.csv, row 900000, column 'a': 'oops'"):
        read(source, 1 << 15)


def test_threads_do_not_parse_the_header_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy parses it with `ast`, which fails now and then if two threads do so at once."""
    np.save(tmp_path / "a.npy", np.asfortranarray(np.arange(60.0).reshape(20, 3)))
    source = stream(tmp_path / "a.npy", inputs=[0], targets=[2])

    def fail(*given: Any, **options: Any) -> None:
        raise AssertionError("the header is read again")

    monkeypatch.setattr(np, "load", fail)
    (batch,) = source.in_order()
    assert batch.chunk(0, 20).inputs.flatten().tolist() == [3.0 * t for t in range(20)]


def test_parquet_whose_row_counts_disagree(tmp_path: Path) -> None:
    """A footer that says of the file, not of its row group, that it has two rows more."""
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"a": np.zeros(60)}), path)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # Thrift's compact protocol: a field after the schema, 64 bits, zigzag: 60 is 120.
    at = data.index(bytes([0x16, 120]), footer)
    data[at + 1] = 124
    path.write_bytes(data)
    with pytest.raises(bptt.DataError, match=r"says that it has 62 rows, and .* have 60"):
        bptt.Stream.from_files(path, inputs=["a"], horizon=1)
