"""What one pass over a file finds out: its rows, its documents, and where to begin reading.

An index can be cached as a small ``.npz`` file. It is valid while the file's size, time of change
and beginning are what they were; a stale or broken one is built anew.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import DataError
from bptt.files import read_bytes, regular, shown, write_bytes

VERSION = 4
"""Of the cache's format; others are not read."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


class Signature(NamedTuple):
    """What tells that a file is still the same."""

    size: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Signature:
        """The signature of a file as it is now."""
        regular(path)
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{shown(path)} cannot be read: {reason}.") from None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def check(self, path: Path, row: int) -> None:
        """Refuse a file that is no longer the one that was indexed.

        Raises:
            DataError: with the file and the row about to be read.
        """
        now = Signature.of(path)
        if now != self:
            sizes = f" ({self.size} bytes then, {now.size} now)" if now.size != self.size else ""
            raise DataError(
                f"{shown(path)} changed while it was in use{sizes}; row {row} and what follows "
                "cannot be trusted. Read it anew when the file is complete."
            )


@dataclass(frozen=True)
class Index:
    """One file's index.

    Attributes:
        signature: of the file that was indexed.
        rows: how many there are.
        starts: the first row of every document, the first being 0.
        keys: the documents' names; empty where the file is one document.
        offsets: where reading can begin, in bytes: a place every so many rows, and the end; empty
            where the format finds its rows itself.
    """

    signature: Signature
    rows: int
    starts: Integers
    keys: list[str]
    offsets: Integers


def rows_of(rows: int, signature: Signature, groups: Groups | None = None) -> Index:
    """The index of a file that needs no offsets."""
    none = np.empty(0, dtype=np.int64)
    if groups is None:
        return Index(signature, rows, np.zeros(1, dtype=np.int64), [], none)
    return Index(signature, rows, groups.starts(), groups.keys, none)


@dataclass
class Groups:
    """Documents told by a column, as runs of equal values; a value may not come back."""

    path: Path
    column: Any
    keys: list[str] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def add(self, runs: Iterable[tuple[Any, int]]) -> None:
        """Take the next runs: (value, first row).

        Raises:
            DataError: a value is missing, or came back after its end.
        """
        for value, row in runs:
            if value is None or value == "" or value != value:
                raise DataError(f"{self.path}, row {row}: group column {self.column!r} is empty.")
            key = str(value)
            if self.keys and key == self.keys[-1]:
                continue
            if key in self._known:
                raise DataError(
                    f"{self.path}, row {row}: group {key!r} of column {self.column!r} appears "
                    "again after it had ended. The rows of a group must follow one another: sort "
                    "the file by group, then by time."
                )
            self._known.add(key)
            self.keys.append(key)
            self._rows.append(row)

    def starts(self) -> Integers:
        """The first row of every group."""
        return np.asarray(self._rows, dtype=np.int64)


def indexed(
    path: Path, recipe: str, cache: Path | None, build: Callable[[Signature], Index]
) -> Index:
    """The index of a file: out of the cache where it is valid, else built, and cached.

    Args:
        path: the file.
        recipe: what else the index depends on (format, group column).
        cache: a folder, made if need be, or None.
        build: makes the index.
    """
    signature = Signature.of(path)
    if cache is None:
        return build(signature)
    whose = zlib.crc32(f"{path.resolve()} {recipe}".encode())
    name = f"{path.name}-{whose:08x}.npz"
    stamp = _stamp(path, recipe, signature)
    found = _load(cache / name, stamp, signature)
    if found is None:
        found = build(signature)
        signature.check(path, 0)
        _store(cache / name, stamp, found)
    return found


def _stamp(path: Path, recipe: str, signature: Signature) -> str:
    with open(path, "rb") as file:
        beginning = zlib.crc32(file.read(4096))
    return json.dumps([VERSION, recipe, *signature, beginning])


def _load(file: Path, stamp: str, signature: Signature) -> Index | None:
    try:
        with np.load(io.BytesIO(read_bytes(file)), allow_pickle=False) as saved:
            if str(saved["stamp"]) != stamp:
                return None
            keys = json.loads(saved["keys"].tobytes().decode())
            found = Index(signature, int(saved["rows"]), saved["starts"], keys, saved["offsets"])
            return found if _is_sound(found) else None
    except Exception:  # whatever is wrong with a cached index, it is made anew
        return None


def _is_sound(index: Index) -> bool:
    """Whether it can be the index of its file, so that reading by it ends well."""
    starts, offsets, size = index.starts, index.offsets, index.signature.size
    if any(found.dtype != np.int64 or found.ndim != 1 for found in (starts, offsets)):
        return False
    named = isinstance(index.keys, list) and all(isinstance(key, str) for key in index.keys)
    return (
        named
        and (len(starts) > 0 or index.rows == 0)
        and not starts[:1].any()
        and bool((np.diff(starts) > 0).all() and (starts[1:] < index.rows).all())
        and bool((np.diff(offsets) >= 0).all() and ((offsets >= 0) & (offsets <= size)).all())
    )


def _store(file: Path, stamp: str, index: Index) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(json.dumps(index.keys).encode(), dtype=np.uint8)
    made = io.BytesIO()
    np.savez(
        made,
        stamp=np.array(stamp),
        rows=np.array(index.rows),
        starts=index.starts,
        keys=keys,
        offsets=index.offsets,
    )
    write_bytes(file, made.getvalue())
