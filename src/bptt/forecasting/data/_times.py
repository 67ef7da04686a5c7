"""Columns of times: dates and date-times of ISO 8601, or numbers.

They are read as they stand: no zone is applied, and a table that gives local times may have an hour
twice, which is refused. Where times have a zone, their order is that of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError
from bptt.streams import is_number

Moments = NDArray[Any]
"""datetime64[us], or int64 or float64 [rows]."""

DATE = re.compile(
    r"(?P<date>\d{4}-\d\d(?:-\d\d)?|\d{8}|\d{4}-W\d\d-\d)"
    r"(?:(?P<mark>[Tt ])(?P<time>\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?)"
    r"\s?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)

UNITS = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000))
SECOND = 1_000_000
"""In microseconds."""


@dataclass(frozen=True, eq=False)
class Times:
    """A column of times.

    Attributes:
        texts: object [rows], as they stand.
        clock: [rows], datetime64[us], or int64 or float64 of numbers.
        moment: [rows], the same in UTC where there are zones.
    """

    texts: NDArray[np.object_]
    clock: Moments
    moment: Moments

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Any) -> Times:
        return Times(self.texts[rows], self.clock[rows], self.moment[rows])

    def followed_by(self, other: Times) -> Times:
        """These, and then the others.

        Raises:
            ValueError: the ones are dates and the others numbers.
        """
        if self.dated != other.dated:
            raise ValueError("dates and numbers do not go together")
        return Times(
            np.concatenate([self.texts, other.texts]),
            np.concatenate([self.clock, other.clock]),
            np.concatenate([self.moment, other.moment]),
        )

    @property
    def dated(self) -> bool:
        """Whether these are dates, and no numbers."""
        return self.clock.dtype.kind == "M"

    def step(self) -> Step | None:
        """The step from row to row that most of them have; None of fewer than two rows. The rows
        are in rising order."""
        if len(self) < 2:
            return None
        if not self.dated:
            return _even(self.clock)
        found = [_even(self.moment), _even(self.clock)]
        monthly = _monthly(self.clock)
        # Of those that fit alike the first is taken.
        return min([monthly, *found] if monthly else found, key=lambda step: len(step.others))

    def after(self, steps: int) -> str:
        """The text of the time so many steps after the last row, written as that one is."""
        step, last = self.step(), str(self.texts[-1])
        if step is None:
            return f"{last} + {steps} step{'s' * (steps != 1)}"
        if not self.dated:
            if self.clock.dtype.kind == "i":
                return str(int(self.clock[-1]) + round(steps * step.size))
            return f"{float(self.clock[-1]) + steps * step.size:.12g}"
        return _written(step.on(self.clock[-1], steps), last)


@dataclass(frozen=True, eq=False)
class Step:
    """A regular step.

    Attributes:
        size: months where ``day`` is given; else microseconds, or of numbers their difference.
        others: the rows whose step from the row before is another.
        day: of the month, on which all lie or on its last day if it has fewer.
    """

    size: float
    others: NDArray[np.intp]
    day: int | None = None
    dated: bool = True

    def on(self, moment: np.datetime64, steps: int) -> np.datetime64:
        """So many steps after ``moment``."""
        if self.day is None:
            return moment + np.timedelta64(int(self.size) * steps, "us")
        month = moment.astype("M8[M]") + int(self.size) * steps
        time = moment - moment.astype("M8[D]")
        found: np.datetime64 = _day_of(month, self.day).astype("M8[us]") + time
        return found

    def __str__(self) -> str:
        if not self.dated:
            return f"{self.size:g}"
        if self.day is not None:
            years, months = divmod(int(self.size), 12)
            return _counted(years, "year") if not months else _counted(int(self.size), "month")
        for name, size in UNITS:
            if self.size % size == 0:
                return _counted(int(self.size) // size, name)
        return f"{self.size / SECOND:g} second{'s' * (self.size != SECOND)}"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _even(moments: Moments) -> Step:
    """Steps of one duration."""
    dated = moments.dtype.kind == "M"
    steps = np.diff(moments).astype(np.int64 if dated else np.float64)
    size = np.sort(steps)[(len(steps) - 1) // 2]
    # Rounding of numbers such as 0.1, 0.2, 0.3 makes no other step.
    rounded = moments.dtype.kind == "f"
    slack = 1e-6 * abs(size) + 1e-14 * float(np.abs(moments).max()) if rounded else 0.0
    return Step(float(size), 1 + np.flatnonzero(np.abs(steps - size) > slack), dated=dated)


def _monthly(clock: Moments) -> Step | None:
    """Steps of whole months, from one day of the month to the same, or to its last where it has
    fewer days."""
    months, days = clock.astype("M8[M]"), clock.astype("M8[D]")
    times = clock - days
    day = (days - months.astype("M8[D]")).astype(int) + 1
    ends = days == _day_of(months, 31)
    anchor = 31 if ends.all() else int(day.max())
    steps = np.diff(months).astype(int)
    if steps.min() < 1 or (times != times[0]).any() or (days != _day_of(months, anchor)).any():
        return None
    size = np.sort(steps)[(len(steps) - 1) // 2]
    return Step(float(size), 1 + np.flatnonzero(steps != size), anchor)


def _day_of(months: Any, day: int) -> Any:
    """That day of each month, or its last."""
    return np.minimum(months.astype("M8[D]") + (day - 1), (months + 1).astype("M8[D]") - 1)


def _written(moment: np.datetime64, like: str) -> str:
    """A moment as another one is written."""
    found = DATE.fullmatch(like)
    assert found is not None  # it was read
    date, _, time = str(moment.astype("M8[us]")).partition("T")
    if len(date) > 10:  # beyond the year 9999
        pass
    elif "W" in found["date"]:
        year, week, day = datetime.fromisoformat(date).isocalendar()
        date = f"{year}-W{week:02}-{day}"
    elif found["date"].isdecimal():
        date = date.replace("-", "")
    else:
        date = date[: len(date) - 10 + len(found["date"])]
    if found["time"] is None:
        return date if time == "00:00:00.000000" else f"{date}T{time}"
    given = found["time"]
    if ":" not in given and len(given) > 2:
        time = time.replace(":", "")
    whole = time[: len(given)] if "," not in given else time.replace(".", ",")[: len(given)]
    return f"{date}{found['mark']}{whole}{like[found.end('time') :]}"


def parsed(texts: Sequence[str | None], where: str, column: str) -> Times:
    """A column as times.

    Args:
        texts: [rows]; None where one is missing.
        where: the file, for messages.
        column: its name.

    Raises:
        DataError: one is missing or is neither a date nor a number, some have a zone and others
            none, or one is finer than a microsecond; with its row.
    """

    def refused(row: int, reason: str) -> DataError:
        return DataError(f"{where}, row {row + 1}, column {column!r}: {reason}.")

    for row, text in enumerate(texts):
        if text is None:
            raise refused(row, "the time is missing; fill it or remove the row")
    known = [text for text in texts if text is not None]
    as_text = np.array(known, dtype=object)
    if all(map(is_number, known)) and not _compact(known):
        if all(map(_is_whole, known)):
            # As whole numbers all their digits count.
            numbers: Moments = np.array(list(map(int, known)), dtype=np.int64)
        else:
            numbers = np.array(known, dtype=np.float64)
        if not np.isfinite(numbers).all():
            row = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise refused(row, f"{known[row]!r} is no time")
        return Times(as_text, numbers, numbers)
    clock, shift = np.empty(len(known), "M8[us]"), np.zeros(len(known), "m8[us]")
    zoned: bool | None = None
    for row, text in enumerate(known):
        found = _moment(text)
        if isinstance(found, str):
            raise refused(row, f"{text!r} {found}")
        if zoned is None:
            zoned = found.tzinfo is not None
        if zoned != (found.tzinfo is not None):
            has, other = ("no zone", "one") if zoned else ("a zone", "none")
            raise refused(row, f"{text!r} has {has}, and row 1 has {other}; write all alike")
        clock[row] = found.replace(tzinfo=None)
        if zoned:
            shift[row] = found.utcoffset()
    return Times(as_text, clock, clock - shift if zoned else clock)


def _is_whole(text: str) -> bool:
    """Whether it is a whole number of 64 bits."""
    digits = text.lstrip("+-")
    return digits.isdecimal() and len(digits) < 20 and int(digits) < 2**62


def _compact(texts: Sequence[str]) -> bool:
    """Whether all are dates such as 20240131."""
    return all(
        len(text) == 8 and text.isdecimal() and isinstance(_moment(text), datetime)
        for text in texts
    )


def _moment(text: str) -> datetime | str:
    """A date; or what is wrong with it, in words."""
    found = DATE.fullmatch(text)
    if found is None:
        return "is neither a date, such as 2024-12-31 or 2024-12-31T23:00 (ISO 8601), nor a number"
    date, zone = found["date"], found["zone"] or ""
    date += "-01" if len(date) == 7 else ""
    time = (found["time"] or "00").replace(",", ".")
    if time.partition(".")[2][6:].strip("0"):
        return "is finer than a microsecond; round it"
    try:
        return datetime.fromisoformat(f"{date}T{time}{zone.upper()}")
    except ValueError as error:
        return f"is no date: {error}"


def check_order(
    times: Times, spans: Sequence[slice], rows: NDArray[np.intp], where: str, column: str
) -> None:
    """Refuse times that do not rise within each series.

    Args:
        times: of all rows, series after series.
        spans: the rows of each series.
        rows: [rows], from 0, where each stands in the file.
        where: the file, for messages.
        column: its name.

    Raises:
        DataError: with the row.
    """
    for span in spans:
        moment = times.moment[span]
        bad = np.flatnonzero(moment[1:] <= moment[:-1])
        if not len(bad):
            continue
        row = span.start + int(bad[0]) + 1
        here, before = times.texts[row], times.texts[row - 1]
        told = f"{where}, row {rows[row] + 1}, column {column!r}: {here} "
        if times.moment[row] == times.moment[row - 1]:
            mend = "remove one of them"
            raise DataError(
                f"{told}is also the time of row {rows[row - 1] + 1}: {mend}, or tell several "
                "series apart with --group."
            )
        raise DataError(
            f"{told}comes after {before} of row {rows[row - 1] + 1}: the rows of a series must be "
            "in rising order of time. Sort them, or tell several series apart with --group."
        )


def uneven(times: Times, spans: Sequence[slice], column: str) -> str | None:
    """What is to be said of steps that are not all alike; None where they are."""
    count, first, size = 0, "", ""
    for span in spans:
        step = times[span].step()
        if step is None or not len(step.others):
            continue
        row = span.start + int(step.others[0])
        if not count:
            first, size = f"from {times.texts[row - 1]} to {times.texts[row]}", str(step)
        count += len(step.others)
    if not count:
        return None
    steps = len(times) - len(spans)
    are = "is" if count == 1 else "are"
    return (
        f"the steps of {column!r} are not all equal: {count} of {steps} {are} "
        f"other than {size}, the first {first}. Each row counts as one step."
    )
