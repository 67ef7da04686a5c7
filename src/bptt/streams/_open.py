"""Paths and names in, a source of sequences out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import torch

from bptt.errors import OptionError, at_least, one_of
from bptt.streams._columns import CSV, PARQUET
from bptt.streams._convert import make_form
from bptt.streams._csv import open_csv
from bptt.streams._files import FileSource, Shelf, documents
from bptt.streams._layout import cut, fill
from bptt.streams._npy import open_npy
from bptt.streams._parquet import open_parquet
from bptt.streams._source import Source
from bptt.streams._table import Name, Selection, Table, check_file, select
from bptt.streams._text import Vocabulary, open_text

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]

_Opener = Callable[[Path, Selection, Path | None], Table]

_FORMATS: dict[str, _Opener] = {
    **dict.fromkeys(CSV, open_csv),
    **dict.fromkeys(PARQUET, open_parquet),
    ".npy": open_npy,
}


def table_source(
    paths: Paths,
    inputs: Name | Sequence[Name],
    targets: Name | Sequence[Name] | None,
    *,
    mask: Name | None,
    group: Name | None,
    horizon: int,
    missing: Literal["refuse", "mask"],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    chunk: int | None,
    cache: str | PathLike[str] | None,
) -> FileSource:
    """The source behind `bptt.Stream.from_files`."""
    if targets is None and horizon == 0:
        raise OptionError(
            "without targets the stream predicts its own inputs: give horizon=1 (the next step) "
            "or more, or targets=."
        )
    one_of(("refuse", "mask"), missing=missing)
    selection = select(inputs, targets, mask, group)
    files, alone = _files(paths)
    folder = None if cache is None else Path(cache)
    tables: list[Table] = [_opener(path)(path, selection, folder) for path in files]
    one = alone and group is None
    return _source(tables, one, selection, horizon, missing, dtype, device, chunk)


def text_source(
    paths: Paths,
    *,
    unit: Literal["character", "byte"],
    vocabulary: Vocabulary | None,
    horizon: int,
    device: torch.device | str | None,
    chunk: int | None,
    cache: str | PathLike[str] | None,
) -> tuple[FileSource, Vocabulary]:
    """The source behind `bptt.Stream.from_text`."""
    one_of(("character", "byte"), unit=unit)
    if unit == "byte" and vocabulary is not None and vocabulary.symbols is not None:
        raise OptionError("unit='byte' has its own vocabulary, the 256 bytes: leave it out.")
    bytewise = unit == "byte" or (vocabulary is not None and vocabulary.symbols is None)
    files, alone = _files(paths)
    for path in files:
        check_file(path)
    tables = open_text(files, bytewise, vocabulary, None if cache is None else Path(cache))
    selection = select("symbol", None, None, None)
    source = _source(list(tables), alone, selection, horizon, "refuse", None, device, chunk)
    return source, tables[0].vocabulary


def _source(
    tables: list[Table],
    one: bool,
    selection: Selection,
    horizon: int,
    missing: Literal["refuse", "mask"],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    chunk: int | None,
) -> FileSource:
    at_least(0, horizon=horizon)
    if chunk is not None:
        at_least(1, chunk=chunk)
    extents = documents(tables)
    place = None if device is None else torch.device(device)
    form = make_form(tables, selection, missing, dtype, place)
    kind: Literal["series", "sequences"] = "series" if one else "sequences"
    return FileSource(kind, extents, form, horizon, chunk, Shelf(tables))


def _files(paths: Paths) -> tuple[list[Path], bool]:
    """The files, and whether one was given by itself, not as a list."""
    if isinstance(paths, (str, PathLike)):
        return [Path(paths)], True
    files = [Path(path) for path in paths]
    if not files:
        raise OptionError("no files: paths is an empty list.")
    return files, False


def _opener(path: Path) -> _Opener:
    check_file(path)
    if path.suffix.lower() not in _FORMATS:
        raise OptionError(
            f"{path.name} is none of the formats that can be streamed: "
            f"{', '.join(_FORMATS)}. Convert it, or read it into memory: Stream(arrays)."
        )
    return _FORMATS[path.suffix.lower()]


def shard_of(source: Source, shard: tuple[int, int]) -> Source:
    """Part ``rank`` of ``world`` disjoint parts that together are everything, of about the same
    number of steps: whole sequences, or a stretch of one series.

    Raises:
        OptionError: there is no such part.
    """
    try:
        rank, world = shard
    except (TypeError, ValueError):
        raise OptionError(f"shard= takes (rank, world), not {shard!r}.") from None
    at_least(0, rank=rank)
    at_least(1, world=world)
    lengths = source.lengths
    most = lengths[0] if source.kind == "series" else len(lengths)
    unit = "steps" if source.kind == "series" else "sequences"
    if rank >= world:
        raise OptionError(f"shard=({rank}, {world}): ranks go from 0 to {world - 1}.")
    if world > most:
        raise OptionError(f"shard=({rank}, {world}): there are only {most} {unit} to share.")
    if source.kind == "series":
        part = cut(most, world)[rank]
        return source.cut(part.start, part.stop)
    pieces = fill(range(most), lengths, world)
    return source.take([piece.sequence for piece in pieces if piece.lane == rank])
