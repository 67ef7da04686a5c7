"""Columns of times: how they are read, which steps are regular, and what comes after the last."""

import calendar
import datetime as dt
import warnings

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bptt.errors import DataError, OptionError
from bptt.forecasting import read_table, select
from bptt.forecasting.data._times import parsed, uneven


def times(*texts):
    return parsed(texts, "data.csv", "when")


def step(*texts):
    return str(times(*texts).step())


def others(*texts):
    return times(*texts).step().others.tolist()


def next_ones(count, *texts):
    found = times(*texts)
    return [found.after(k) for k in range(1, count + 1)]


@pytest.fixture
def table(tmp_path):
    def write(text, name="data.csv"):
        path = tmp_path / name
        path.write_text(text)
        return read_table(path)

    return write


AFTER = {
    "days": (("2024-02-28", "2024-02-29"), ["2024-03-01", "2024-03-02"]),
    "into a leap year": (("2023-12-30", "2023-12-31"), ["2024-01-01", "2024-01-02"]),
    "months": (("2023-11-01", "2023-12-01"), ["2024-01-01", "2024-02-01"]),
    "month ends": (("2023-12-31", "2024-01-31"), ["2024-02-29", "2024-03-31"]),
    "ends of February": (("2022-02-28", "2023-02-28"), ["2024-02-29", "2025-02-28"]),
    "28 February": (("2023-02-28", "2024-02-28"), ["2025-02-28", "2026-02-28"]),
    "the 30th": (("2023-12-30", "2024-01-30"), ["2024-02-29", "2024-03-30"]),
    "quarters": (("2023-06-30", "2023-09-30"), ["2023-12-31", "2024-03-31"]),
    "years of leap days": (("2016-02-29", "2020-02-29"), ["2024-02-29", "2028-02-29"]),
    "no day": (("1700-11", "1700-12"), ["1701-01", "1701-02"]),
    "hours": (("2024-12-31T22", "2024-12-31T23"), ["2025-01-01T00", "2025-01-01T01"]),
    "minutes": (("2024-01-01 23:30", "2024-01-01 23:45"), ["2024-01-02 00:00", "2024-01-02 00:15"]),
    "tenths": (("2024-01-01T00:00:00.8", "2024-01-01T00:00:00.9"), ["2024-01-01T00:00:01.0"]),
    "commas": (("2024-01-01T00:00:00,8", "2024-01-01T00:00:00,9"), ["2024-01-01T00:00:01,0"]),
    "zone": (("2024-01-01T22:00+01:00", "2024-01-01T23:00+01:00"), ["2024-01-02T00:00+01:00"]),
    "UTC": (("2024-01-01T22:00Z", "2024-01-01T23:00Z"), ["2024-01-02T00:00Z"]),
    "basic": (("20241230", "20241231"), ["20250101"]),
    "basic times": (("20241231T2200", "20241231T2300"), ["20250101T0000"]),
    "weeks": (("2024-W51-1", "2024-W52-1"), ["2025-W01-1"]),
    "far": (("9999-12-30", "9999-12-31"), ["10000-01-01"]),
    "far weeks": (("9999-W51-5", "9999-W52-5"), ["10000-01-07"]),
    "the first": (("0001-01-01", "0001-01-02"), ["0001-01-03"]),
    "years": (("2007", "2008"), ["2009", "2010"]),
    "decimals": (("0.1", "0.2", "0.3"), ["0.4", "0.5"]),
    "nanoseconds": (("1700000000000000001", "1700000000000000003"), ["1700000000000000005"]),
}


@pytest.mark.parametrize("name", AFTER)
def test_what_comes_next_is_written_as_the_last_one(name):
    given, expected = AFTER[name]
    assert next_ones(len(expected), *given) == expected


def test_one_row_has_no_step():
    assert times("2024-01-01").step() is None
    assert next_ones(2, "2024-01-01") == ["2024-01-01 + 1 step", "2024-01-01 + 2 steps"]


STEPS = {
    "1 day": ("2024-01-01", "2024-01-02"),
    "7 days": ("2024-01-01", "2024-01-08"),
    "1 month": ("2024-01-31", "2024-02-29"),
    "3 months": ("2024-01-01", "2024-04-01"),
    "1 year": ("1700-01-01", "1701-01-01"),
    "2 years": ("1700-01-01", "1702-01-01"),
    "1 hour": ("2024-01-01T00:00", "2024-01-01T01:00"),
    "15 minutes": ("2024-01-01T00:00", "2024-01-01T00:15"),
    "1 second": ("2024-01-01T00:00:00", "2024-01-01T00:00:01"),
    "0.5 seconds": ("2024-01-01T00:00:00.0", "2024-01-01T00:00:00.5"),
    "2": ("1", "3"),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_in_words(name):
    assert step(*STEPS[name]) == name


def test_calendar_steps_are_regular():
    ends = [dt.date(y, m, calendar.monthrange(y, m)[1]) for y in (2023, 2024) for m in range(1, 13)]
    assert others(*map(str, ends)) == []
    assert others(*map(str, ends[2::3])) == []
    firsts = [dt.date(y, 1, 1) for y in range(1890, 1910)]  # 1900 is no leap year
    assert others(*map(str, firsts)) == []
    assert step(*map(str, firsts)) == "1 year"


def test_a_month_that_is_missing_is_a_gap():
    assert others("2024-01-31", "2024-02-29", "2024-04-30", "2024-05-31") == [2]


def test_the_first_gap_is_told():
    found = times("2024-01-01", "2024-01-02", "2024-01-04", "2024-01-05", "2024-01-09")
    assert uneven(found, [slice(0, 5)], "when") == (
        "the steps of 'when' are not all equal: 2 of 4 are other than 1 day, the first from "
        "2024-01-02 to 2024-01-04. Each row counts as one step."
    )
    assert uneven(found, [slice(0, 2), slice(2, 4), slice(4, 5)], "when") is None


BERLIN = [
    *(f"2024-03-{d}T00:00+01:00" for d in (29, 30, 31)),
    *(f"2024-04-0{d}T00:00+02:00" for d in (1, 2)),
]


def test_days_in_local_time_are_regular_where_the_clock_changes():
    assert others(*BERLIN) == []
    assert step(*BERLIN) == "1 day"


def test_hours_with_zones_are_those_of_utc():
    autumn = ["2024-10-27T01:00+02:00", "2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"]
    autumn.append("2024-10-27T03:00+01:00")
    assert others(*autumn) == []
    assert next_ones(1, *autumn) == ["2024-10-27T04:00+01:00"]


def write_rows(texts):
    return "when,y\n" + "".join(f"{text},{i}\n" for i, text in enumerate(texts))


def test_the_hour_that_comes_twice_without_a_zone_is_refused(table):
    texts = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    with pytest.raises(DataError, match=r"row 3, column 'when': .* also the time of row 2"):
        select(table(write_rows(texts)))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2024-01-02", "2024-01-01"], r"row 2, column 'when': 2024-01-01 comes after 2024-01-02"),
        (["2024-01-01", "2024-01-02", "2024-01-02"], r"row 3, .* also the time of row 2"),
        (["1", "2", "2"], r"row 3, .* also the time of row 2"),
        (["2024-01-01", "31.12.2024"], r"row 2, .*'31.12.2024' is neither a date, such as"),
        (["2024-01-01", "2024-02-30"], r"row 2, .*'2024-02-30' is no date: day is out of range"),
        (["2024-01-01", ""], r"row 2, .*the time is missing"),
        (["1", "nan"], r"row 2, .*'nan' is no time"),
        (["2024-01-01T00:00", "2024-01-01T01:00Z"], r"row 2, .* has a zone, and row 1 has none"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], r"row 2, .* has no zone, and row 1 has one"),
        (["2024-01-01T00:00:00.0000001"], r"row 1, .*finer than a microsecond"),
        (["1", "2024-01-01"], r"row 1, column 'when': '1' is neither a date"),
        (["2024-01-01T00:00:61"], r"row 1, .* is no date: second must be in"),
    ],
)
def test_bad_times_are_told_with_their_row(texts, message, table):
    with pytest.raises(DataError, match=message):
        select(table(write_rows(texts)), target="y", time="when")


def test_gaps_warn_and_equal_steps_do_not(table):
    with pytest.warns(UserWarning, match="1 of 3 is other than 1 day, the first from 2024-01-02"):
        select(table(write_rows(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select(table(write_rows(["2024-01-31", "2024-02-29", "2024-03-31"])))


def test_dates_need_no_option_and_two_columns_no_target(table):
    series = select(table(write_rows(["2024-01-01", "2024-01-02"])))
    assert (series.axis_name, series.target_name, series.input_names) == ("when", "y", ())
    assert series.axis.dtype == "datetime64[us]"
    assert [series.place(row) for row in range(3)] == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_what_is_no_date_or_not_alone_is_not_taken(table):
    assert select(table("note,y\nx1,1\nx2,2\n"), target="y").axis_name == "row"
    two = "a,b,y\n2024-01-01,2024-01-01,1\n2024-01-02,2024-01-02,2\n"
    assert select(table(two, "two.csv"), target="y").axis_name == "row"
    some = "when,y\n2024-01-01,1\n,2\n"
    assert select(table(some, "some.csv"), target="y").axis_name == "row"
    years = "year,y\n2001,1\n2002,2\n"
    assert select(table(years, "years.csv"), target="y").axis_name == "row"
    assert select(table(write_rows(["2024-01-01"]), "none.csv"), target="y", time="").times is None


def test_numbers_are_times_when_they_are_named(table):
    series = select(table("year,y\n1700,1\n1701,2\n"), time="year")
    assert (series.target_name, series.place(2)) == ("y", "1702")
    assert series.axis.tolist() == [1700, 1701]


@pytest.mark.parametrize("uses", [{"inputs": ("when",)}, {"target": "when"}])
def test_times_are_no_input_and_no_target(uses, table):
    given = {"inputs": (), "target": "y", **uses}
    with pytest.raises(OptionError, match="neither an input nor the target"):
        select(table(write_rows(["2024-01-01"])), time="when", **given)


def test_a_column_that_is_not_there(table):
    with pytest.raises(DataError, match=r"no column 'whem'.*when"):
        select(table(write_rows(["2024-01-01"])), target="y", time="whem")


PARQUET = {
    "days": (pyarrow.date32(), [dt.date(2024, 2, 28), dt.date(2024, 2, 29)], "2024-03-01"),
    "seconds": (
        pyarrow.timestamp("ns"),
        [dt.datetime(1700, 1, 1, 5), dt.datetime(1700, 1, 1, 6)],
        "1700-01-01 07:00:00",
    ),
    "milliseconds": (
        pyarrow.timestamp("us"),
        [dt.datetime(9999, 1, 1, 0, 0, 0, 0), dt.datetime(9999, 1, 1, 0, 0, 0, 5000)],
        "9999-01-01 00:00:00.010",
    ),
    "a zone": (
        pyarrow.timestamp("us", "UTC"),
        [dt.datetime(2024, 1, 1, 5), dt.datetime(2024, 1, 1, 6)],
        "2024-01-01 07:00:00Z",
    ),
    "text": (pyarrow.string(), ["2024-01", "2024-02"], "2024-03"),
    "words": (
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        ["2024-01", "2024-02"],
        "2024-03",
    ),
}


@pytest.mark.parametrize("name", PARQUET)
def test_types_of_parquet(name, tmp_path):
    kind, values, after = PARQUET[name]
    path = tmp_path / "data.parquet"
    column = pyarrow.array(values, kind)
    parquet.write_table(pyarrow.table({"when": column, "y": [1.0, 2.0]}), path)
    series = select(read_table(path))
    assert series.axis_name == "when"
    assert series.place(2) == after


def test_nanoseconds_of_parquet_that_would_be_lost_are_refused(tmp_path):
    path = tmp_path / "data.parquet"
    column = pyarrow.array([1, 2], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"when": column, "y": [1.0, 2.0]}), path)
    with pytest.raises(DataError, match=r"column 'when', timestamp\[ns\]: it cannot be read"):
        select(read_table(path), target="y", time="when")


def test_text_that_is_no_utf8_is_told_with_its_row(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"when,y\n2024-01-01,1\n\xff,2\n")
    with pytest.raises(DataError, match=r"row 2, column 'when': .* is no UTF-8 text"):
        select(read_table(path), target="y", time="when")


DAYS = st.dates(dt.date(1, 1, 1), dt.date(9000, 1, 1))


@given(DAYS, st.integers(1, 400), st.integers(2, 30))
@settings(deadline=None)
def test_days_go_on_as_python_counts_them(first, size, rows):
    at = [str(first + dt.timedelta(days=size * i)) for i in range(rows + 3)]
    found = times(*at[:rows])
    assert found.step().others.tolist() == []
    if found.step().day is None:
        assert [found.after(k) for k in (1, 2, 3)] == at[rows:]


def monthly(first, months, day):
    """The days so many months apart, by the calendar alone."""
    found = []
    for i in range(months):
        year, month = divmod(first + i, 12)
        last = calendar.monthrange(year, month + 1)[1]
        found.append(str(dt.date(year, month + 1, min(day, last))))
    return found


@given(st.integers(12, 9900 * 12), st.integers(13, 40), st.integers(1, 31))
@settings(deadline=None)
def test_months_go_on_by_the_calendar(first, rows, day):
    """A year or more tells which day of the month it is."""
    at = monthly(first, rows + 14, day)
    assert others(*at[:rows]) == []
    assert step(*at[:rows]) == "1 month"
    assert next_ones(14, *at[:rows]) == at[rows:]


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))


@given(
    st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1)),
    st.timedeltas(dt.timedelta(microseconds=1), dt.timedelta(days=20)),
    st.lists(ZONES, min_size=2, max_size=8),
)
@settings(deadline=None)
def test_moments_of_any_zone_are_those_of_utc(first, size, zones):
    utc = [(first + i * size).replace(tzinfo=dt.UTC) for i in range(len(zones))]
    texts = [one.astimezone(zone).isoformat() for one, zone in zip(utc, zones, strict=True)]
    found = times(*texts)
    expected = np.array([one.replace(tzinfo=None) for one in utc], "M8[us]")
    assert (found.moment == expected).all()
    assert found.step().others.tolist() == []
