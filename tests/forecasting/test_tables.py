import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from bptt.errors import DataError, OptionError
from bptt.forecasting import read_table, select, sunspots


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
    assert table.column("c").tolist() == [2.5, -1000.0]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators(write, mark):
    table = read_table(write(f"a{mark}b\n1{mark}2\n"))
    assert table.column("b").tolist() == [2.0]


def test_a_byte_order_mark_and_quotes(write):
    table = read_table(write('"a","b"\n1,"2"\n', encoding="utf-8-sig"))
    assert table.column("a").tolist() == [1.0]
    assert table.column("b").tolist() == [2.0]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NULL", " n/a "])
def test_what_is_missing(write, cell):
    column = read_table(write(f"a,b\n1,2\n{cell},3\n")).column("a")
    assert np.isnan(column[1])


def test_empty_lines_of_one_column_are_missing_numbers_except_at_the_end(write):
    column = read_table(write("a\n1\n\n3\n\n\n")).column("a")
    assert column[[0, 2]].tolist() == [1.0, 3.0]
    assert np.isnan(column[1])
    assert len(column) == 3


def test_parquet_is_the_same(tmp_path):
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, None], "t": ["x", "y"]}), path)
    table = read_table(path)
    assert table.column("a").tolist() == [1.0, 2.0]
    assert np.isnan(table.column("b")[1])
    with pytest.raises(DataError, match=r"row 1, column 't': 'x' is no number"):
        table.column("t")


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
