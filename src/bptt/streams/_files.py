"""Sequences that stay in their files: documents, and the tensors of the stretches asked for."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError
from bptt.streams._ahead import batches_ahead
from bptt.streams._chunk import Batch
from bptt.streams._convert import Form
from bptt.streams._index import Integers
from bptt.streams._layout import Layout
from bptt.streams._sequences import Sequence
from bptt.streams._source import Kind
from bptt.streams._table import Block, Table

CHUNK_BYTES = 1 << 20
"""What one lane of a chunk read ahead holds, and `MANY` or more together at most `MANY` times as
much, unless its size is given."""

MANY = 4

OPEN_FILES = 32
"""Files held open; the one longest unused is closed."""


@dataclass(frozen=True)
class Extents:
    """Where each sequence lies: rows ``start`` to ``stop - 1`` of ``file``, whose document ends
    before row ``last``: up to there its targets may come from."""

    file: Integers
    start: Integers
    stop: Integers
    last: Integers

    def take(self, chosen: Ordered[int]) -> Extents:
        """Those of these numbers."""
        at = np.asarray(chosen, dtype=np.int64)
        return Extents(self.file[at], self.start[at], self.stop[at], self.last[at])

    def cut(self, start: int, stop: int) -> Extents:
        """A stretch of the first."""
        return Extents(self.file, self.start[:1] + start, self.start[:1] + stop, self.last)


def documents(tables: Ordered[Table]) -> Extents:
    """Every document of every file, in order.

    Raises:
        DataError: a file has no rows; a group of one file appears again in another.
    """
    known: dict[str, Table] = {}
    files, starts, stops = [], [], []
    for number, table in enumerate(tables):
        index = table.index
        if not index.rows:
            raise DataError(f"{table.path} is empty: it has no rows.")
        for key, row in zip(index.keys, index.starts, strict=False):
            if key in known:
                raise DataError(
                    f"{table.path}, row {row}: group {key!r} appears again after it had ended in "
                    f"{known[key].path}: keep each group in one file."
                )
            known[key] = table
        files.append(np.full(len(index.starts), number, dtype=np.int64))
        starts.append(index.starts)
        stops.append(np.append(index.starts[1:], index.rows))
    stop = np.concatenate(stops)
    return Extents(np.concatenate(files), np.concatenate(starts), stop, stop)


class Shelf:
    """The tables, of which a few are open."""

    def __init__(self, tables: Ordered[Table]) -> None:
        self.tables = tables
        self._lock = threading.Lock()
        # Where reading goes on from the last place, one stretch of lanes comes before the next.
        in_turn = any(table.forward for table in tables)
        self._turn = threading.Lock() if in_turn else contextlib.nullcontext()
        self._open: OrderedDict[int, None] = OrderedDict()

    def __reduce__(self) -> tuple[type[Shelf], tuple[Ordered[Table]]]:
        """To another process go the tables; what is open here stays here."""
        return Shelf, (self.tables,)

    def turn(self) -> contextlib.AbstractContextManager[Any]:
        """Held while one chunk's rows are decoded, if the tables ask for it."""
        return self._turn

    def table(self, number: int) -> Table:
        """A table, to be read now."""
        with self._lock:
            self._open[number] = None
            self._open.move_to_end(number)
            if len(self._open) > OPEN_FILES:
                oldest, _ = self._open.popitem(last=False)
                self.tables[oldest].close()
        return self.tables[number]


@dataclass(frozen=True)
class FileSource:
    """Documents in files; see `bptt.streams._source.Source`.

    Attributes:
        kind: one series, or a list of sequences.
        extents: where they lie.
        form: how rows become tensors.
        horizon: by how many rows a target lies behind its input.
        chunk: how many steps of a batch are read together; default: about `CHUNK_BYTES`.
    """

    kind: Kind
    extents: Extents
    form: Form
    horizon: int
    chunk: int | None
    shelf: Shelf = field(repr=False)
    resident: bool = False

    @property
    def lengths(self) -> list[int]:
        """The steps of every sequence."""
        lengths: list[int] = (self.extents.stop - self.extents.start).tolist()
        return lengths

    @property
    def lanes(self) -> int:
        """Files do not come with lanes."""
        return 1

    def like(self) -> Sequence:
        """No steps, but the features and dtypes of all."""
        return self.form.nothing()

    def take(self, chosen: Ordered[int]) -> FileSource:
        """The whole sequences of these numbers."""
        return replace(self, extents=self.extents.take(chosen))

    def cut(self, start: int, stop: int) -> FileSource:
        """The steps ``start`` to ``stop - 1`` of the one series."""
        return replace(self, extents=self.extents.cut(start, stop))

    def fingerprint(self) -> str:
        """Of the bytes of all files, and of what is read out of them."""
        extents = self.extents
        form = replace(self.form, device=None)
        found = hashlib.sha256(repr((self.kind, form, self.horizon)).encode())
        for rows in (extents.file, extents.start, extents.stop, extents.last):
            found.update(rows.tobytes())
        for number in sorted(set(extents.file.tolist())):
            with open(self.shelf.tables[number].path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    def batches(self, layouts: Ordered[Layout]) -> Generator[Batch]:
        """Each read ahead, chunk by chunk."""
        like = self.like()
        widest = max((layout.lanes for layout in layouts), default=1)
        return batches_ahead(self.read, like, layouts, self.chunk or _steps(like, widest))

    def read(self, parts: Ordered[tuple[int, int, int]]) -> list[Sequence]:
        """Stretches of sequences; neighbours in a file are decoded together.

        Raises:
            DataError: with file, row and column: what is read is unusable, or the file changed.
        """
        places = [self._place(*part) for part in parts]
        runs = self._decode([w for place in places for w in place.wanted(self.horizon)])
        return [self._pairs(runs, place) for place in places]

    def _place(self, sequence: int, start: int, stop: int) -> _Place:
        extents = self.extents
        begin = int(extents.start[sequence])
        return _Place(
            int(extents.file[sequence]), begin + start, begin + stop, int(extents.last[sequence])
        )

    def _decode(self, wanted: list[tuple[int, int, int]]) -> _Runs:
        """The rows of all the stretches (file, start, stop), each decoded once."""
        runs = _Runs()
        joined: list[list[int]] = []
        for file, start, stop in sorted(wanted):
            if start >= stop:
                continue
            if joined and joined[-1][0] == file and start <= joined[-1][2]:
                joined[-1][2] = max(joined[-1][2], stop)
            else:
                joined.append([file, start, stop])
        with self.shelf.turn():
            found = []
            for file, stretches in itertools.groupby(joined, key=lambda run: run[0]):
                wanted_rows = [(start, stop) for _, start, stop in stretches]
                found += [(file, b) for b in self.shelf.table(file).read_many(wanted_rows)]
        for file, block in found:
            self._add(runs, file, block)
        return runs

    def _add(self, runs: _Runs, file: int, block: Block) -> None:
        """Convert a block's rows, all at once where all of them are usable."""
        (_, first, _), *others = block.stretches
        try:
            rows = self.form.rows(block.columns, self.shelf.tables[file].path, first)
        except DataError:
            if not others:
                raise
            for part in block.apart():  # says where, unless it is in a row between the stretches
                self._add(runs, file, part)
            return
        for begin, start, stop in block.stretches:
            runs.add(file, start, rows.part(begin, begin + stop - start))

    def _pairs(self, runs: _Runs, place: _Place) -> Sequence:
        """Inputs beside the targets that they are compared with."""
        rows = runs.part(place.file, place.start, place.stop)
        if self.horizon == 0:
            return rows
        (_, start, stop) = place.wanted(self.horizon)[1]
        steps = place.stop - place.start
        if stop <= start:
            return Sequence(rows.inputs, *_padded(rows.targets[:0], rows.mask[:0], steps))
        later = runs.part(place.file, start, stop)
        return Sequence(rows.inputs, *_padded(later.targets, later.mask, steps))


@dataclass(frozen=True)
class _Place:
    """The rows ``start`` to ``stop - 1`` of a file, in a document that ends before ``last``."""

    file: int
    start: int
    stop: int
    last: int

    def wanted(self, horizon: int) -> list[tuple[int, int, int]]:
        """The rows of the inputs and those of their targets: (file, start, stop)."""
        inputs = (self.file, self.start, self.stop)
        if horizon == 0:
            return [inputs]
        return [inputs, (self.file, self.start + horizon, min(self.stop + horizon, self.last))]


class _Runs:
    """Decoded stretches of rows, found by file and row."""

    def __init__(self) -> None:
        self._begins: list[tuple[int, int]] = []
        self._rows: list[Sequence] = []

    def add(self, file: int, start: int, rows: Sequence) -> None:
        """Take the next one, in ascending order."""
        self._begins.append((file, start))
        self._rows.append(rows)

    def part(self, file: int, start: int, stop: int) -> Sequence:
        """Views of rows that were decoded together."""
        index = bisect_right(self._begins, (file, start)) - 1
        begin = self._begins[index][1]
        return self._rows[index].part(start - begin, stop - begin)


def _padded(targets: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """``targets`` and ``mask`` of ``steps`` steps; the last ones have no target."""
    absent = steps - len(targets)
    if absent == 0:
        return targets, mask
    value: Any = float("nan") if targets.is_floating_point() else 0
    fill = targets.new_full((absent, *targets.shape[1:]), value)
    return torch.cat([targets, fill]), torch.cat([mask, mask.new_zeros(absent)])


def _steps(like: Sequence, lanes: int) -> int:
    """Steps that hold about so many bytes, within reason."""
    row = sum(
        tensor.element_size() * max(int(np.prod(tensor.shape[1:])), 1)
        for tensor in (like.inputs, like.targets)
    )
    return min(max(CHUNK_BYTES * min(lanes, MANY) // (row * lanes), 256), 1 << 15)
