import contextlib
import os
import sys
import threading
from decimal import Decimal

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import bptt
from bptt.errors import BpttError, DataError, OptionError
from bptt.forecasting import read_table, select, sunspots
from bptt.streams import Table, _parse


@pytest.fixture
def write(tmp_path):
    def write(text, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_columns_by_name(write):
    table = read_table(write("a,b,c\n1,x,2.5\n3,y,-1e3\n"))
    assert table.names == ("a", "b", "c")
    assert table.columns(["c"])[0].tolist() == [2.5, -1000.0]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators(write, mark):
    table = read_table(write(f"a{mark}b\n1{mark}2\n"))
    assert table.columns(["b"])[0].tolist() == [2.0]


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_without_pyarrow_it_is_named(name, write, monkeypatch):
    path = write("a\n1\n", name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for reading in (read_table, Table.of):
        with pytest.raises(BpttError, match=rf"reading {name} needs pyarrow: pip install"):
            reading(path)


def test_lines_that_are_parsed_in_several_blocks(write, monkeypatch):
    """As those of more than 2 GiB are."""
    monkeypatch.setattr(_parse, "LARGEST", 100)
    rows = [f"{i},{i / 7}," if i % 5 else f"{i},," for i in range(500)]
    table = read_table(write("\n".join(["a,b,c", *rows, ""])))
    first, second = table.columns(["a", "b"])
    assert first.tolist() == list(range(500))
    assert np.isnan(second[::5]).all()
    assert second[1] == 1 / 7
    assert second[499] == 499 / 7
    rows[400] = "400,x,"
    with pytest.raises(DataError, match="row 401, column 'b': 'x' is no number"):
        read_table(write("\n".join(["a,b,c", *rows, ""]))).columns(["b"])


def test_a_byte_order_mark_and_quotes(write):
    table = read_table(write('"a","b"\n1,"2"\n', encoding="utf-8-sig"))
    assert table.columns(["a"])[0].tolist() == [1.0]
    assert table.columns(["b"])[0].tolist() == [2.0]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NULL", " n/a "])
def test_what_is_missing(write, cell):
    column = read_table(write(f"a,b\n1,2\n{cell},3\n")).columns(["a"])[0]
    assert np.isnan(column[1])


def test_empty_lines_of_one_column_are_missing_numbers_except_at_the_end(write):
    column = read_table(write("a\n1\n\n3\n\n\n")).columns(["a"])[0]
    assert column[[0, 2]].tolist() == [1.0, 3.0]
    assert np.isnan(column[1])
    assert len(column) == 3


def test_parquet_is_the_same(tmp_path):
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, None], "t": ["x", "y"]}), path)
    table = read_table(path)
    assert table.columns(["a"])[0].tolist() == [1.0, 2.0]
    assert np.isnan(table.columns(["b"])[0][1])
    with pytest.raises(DataError, match=r"row 1, column 't': 'string' is no number"):
        table.columns(["t"])[0]


def test_masked_targets_are_missing_and_inputs_never(write):
    table = read_table(write("u,y\n1,2\n2,inf\n3,\n"))
    series = select(table, ("u",), "y", "mask")
    assert np.isnan(series.target).tolist() == [False, True, True]
    with pytest.raises(DataError, match="row 2, column 'y': the number is infinite"):
        select(table, ("u",), "y")
    with pytest.raises(DataError, match="row 3, column 'y': the number is missing"):
        select(read_table(write("u,y\n1,2\n2,3\n3,\n", "b.csv")), ("u",), "y", unread=0)
    assert len(select(read_table(write("u,y\n1,2\n2,\n", "c.csv")), ("u",), "y", unread=1)) == 2
    with pytest.raises(DataError, match="row 2, column 'u'"):
        select(read_table(write("u,y\n1,2\n,3\n", "d.csv")), ("u",), "y", "mask")


def test_one_column_needs_no_name_and_several_do(write):
    assert select(read_table(write("y\n1\n2\n"))).target_name == "y"
    with pytest.raises(OptionError, match="has 2 columns: say which one"):
        select(read_table(write("a,b\n1,2\n", "two.csv")))


def test_the_sunspots():
    series = sunspots()
    assert len(series) == 309
    assert (series.axis[0], series.axis[-1]) == (1700, 2008)
    assert (series.target[0], series.target.max(), series.target[-1]) == (5.0, 190.2, 2.9)
    assert series.axis_at(309) == 2009


def rolled(path, first, rows=4000):
    """A file in which both columns are alike, put in place of the one before."""
    made = path.with_suffix(".new")
    made.write_text("u,y\n" + "".join(f"{i},{i}\n" for i in range(first, first + rows)))
    os.replace(made, path)


def test_columns_are_of_one_file_while_another_takes_its_place(tmp_path):
    path, over = tmp_path / "roll.csv", threading.Event()
    rolled(path, 1000)

    def roll():
        first = 1001
        while not over.is_set():
            rolled(path, first)
            first += 1

    other = threading.Thread(target=roll)
    other.start()
    try:
        for _ in range(60):
            with contextlib.suppress(DataError):  # it changed
                series = select(read_table(path), ("u",), "y")
                assert (series.inputs[:, 0] == series.target).all()
    finally:
        over.set()
        other.join()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("how", ["grown", "replaced", "shorter"])
def test_a_file_that_changes_between_its_names_and_its_columns(kind, how, tmp_path):
    path = tmp_path / f"data.{kind}"

    def write(rows, first=0):
        columns = {name: [float(first + i) for i in range(rows)] for name in ("u", "y")}
        if kind == "parquet":
            parquet.write_table(pyarrow.table(columns), path)
        else:
            lines = zip(*columns.values(), strict=True)
            path.write_text("u,y\n" + "".join(f"{a},{b}\n" for a, b in lines))

    write(50)
    table = read_table(path)
    if how == "replaced":
        os.replace(path, tmp_path / "old")
    write(20 if how == "shorter" else 51 if how == "grown" else 50, 10)
    with pytest.raises(DataError, match="changed while it was in use"):
        select(table, ("u",), "y")


NO_NUMBERS = ["1_0", "\u0663", "0x10", "1d3", "1e", "--1", "\u22121", "1\u00a0", "1 000"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_one_grammar_of_numbers(text, write):
    path = write(f"u,y\n1,2\n3,4\n{text},6\n")
    with pytest.raises(DataError, match=r"row 3, column 'u': .* is no number"):
        read_table(path).columns(["u"])
    stream = bptt.Stream.from_files(path, inputs=["u"], targets=["y"])
    with pytest.raises(DataError, match=r"row 2, column 'u': .* is no number"):
        next(stream.batches()).chunk(0, 3)


@pytest.mark.parametrize("text", ["1", "+1", " 1.0 ", "1.", "10e-1", "1E0", '"1"'])
def test_the_same_number(text, write):
    path = write(f"u,y\n1,2\n3,4\n{text},6\n")
    assert read_table(path).columns(["u"])[0].tolist() == [1, 3, 1]
    stream = bptt.Stream.from_files(path, inputs=["u"], targets=["y"])
    assert next(stream.batches()).chunk(0, 3).inputs.flatten().tolist() == [1, 3, 1]


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_streams_read_what_tables_read(mark, write):
    path = write(f'"a{mark}b"{mark}y\n1{mark}2\n NA{mark}4\n\n', "data.txt")
    first, second = read_table(path).columns([f"a{mark}b", "y"])
    assert np.isnan(first[1])
    stream = bptt.Stream.from_files(path, inputs=[f"a{mark}b"], targets=["y"])
    assert stream.steps == len(second) == 2


def test_an_empty_line_of_one_column_is_missing_in_a_stream_too(write):
    path = write("y\n1\n\n3\n\n")
    assert len(read_table(path).columns(["y"])[0]) == 3
    stream = bptt.Stream.from_files(path, inputs=["y"], horizon=1)
    with pytest.raises(DataError, match="row 1, column 'y': inputs are nan"):
        next(stream.batches()).chunk(0, 3)


BROKEN = {
    "a blank first line": ("\nu,y\n1,2\n", "begins with a blank line"),
    "a quote in the header": ('"u,y\n1,2\n', "a quote in its first line is not closed"),
    "an open quote": ('u,y\n1,2\n3,"4\n5,6\n', "row 2: a quote is not closed"),
    "a long header": ("u" * 3_000_000 + ",y\n1,2\n", "first line of more than"),
    "a long field": ("u,y\n1,2\n" + "3" * 3_000_000 + "x,4\n", "row 2.* longer than"),
    "no UTF-8": ("u,y\n1,2\n1,\udcff\n", "row 2, .*no UTF-8 text"),
    "no UTF-8 in the header": ("\udcff,y\n1,2\n", "not UTF-8"),
    "a row too long": ("u,y\n1,2\n1,2,3\n", "row 2: 3 fields, but the header names 2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_messages_are_our_own_and_short(name, tmp_path):
    content, message = BROKEN[name]
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        read_table(path).columns(["y", "u"])
    assert len(str(caught.value)) < 400
    assert not any(word in str(caught.value) for word in ("CSV parser", "CSV conversion", "limit"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_that_are_no_utf8(kind, tmp_path):
    path = tmp_path / os.fsdecode(b"odd-\xff." + kind.encode())
    if kind == "csv":
        path.write_text("y\n1\n2\n")
    else:
        with open(path, "wb") as file:
            parquet.write_table(pyarrow.table({"y": [1.0, 2.0]}), file)
    series = select(read_table(path))
    assert series.target.tolist() == [1, 2]
    assert series.source == f"odd-\\udcff.{kind}"


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_what_is_no_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / f"data.{kind}"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"is a FIFO"):
        bptt.Stream.from_files(path, inputs=["y"], horizon=1)
    with pytest.raises(DataError, match=r"is a FIFO"):
        bptt.Stream.from_text(path)
    if kind != "npy":
        with pytest.raises(DataError, match=r"is a FIFO"):
            read_table(path)


def test_decimals_of_parquet_are_numbers(tmp_path):
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"y": [Decimal("1.5"), None]}), path)
    (column,) = read_table(path).columns(["y"])
    assert column[0] == 1.5
    assert np.isnan(column[1])
