"""Text files as indices of characters or bytes, and the vocabulary that tells which is which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError, OptionError
from bptt.streams._index import Index, Integers, Signature, indexed, rows_of
from bptt.streams._table import Array, Block, Columns, Name, Type, read_apart, read_at

EVERY = 4096
"""Characters between two offsets."""

BLOCK = 1 << 20
"""Bytes looked at together while indexing."""


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text, each with its index.

    Args:
        symbols: the characters, in the order of their indices; None: the 256 bytes of UTF-8.

    Raises:
        OptionError: a symbol appears twice, or there is none.
    """

    symbols: str | None = None

    def __post_init__(self) -> None:
        if self.symbols is not None and not self.symbols:
            raise OptionError("a vocabulary needs at least one symbol.")
        if self.symbols is not None and len(set(self.symbols)) != len(self.symbols):
            raise OptionError("a vocabulary holds every symbol once.")

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Every character of ``text``, sorted."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return 256 if self.symbols is None else len(self.symbols)

    def encode(self, text: str) -> Tensor:
        """The indices of a text, int64 [time].

        Raises:
            DataError: the text holds a character that the vocabulary does not.
        """
        if self.symbols is None:
            return torch.tensor(list(text.encode()), dtype=torch.int64)
        return torch.from_numpy(self._indices(_code_points(text), "the text", 0))

    def decode(self, indices: Iterable[int] | Tensor) -> str:
        """The text of indices; bytes that are no UTF-8 show as replacement characters."""
        numbers = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        if self.symbols is None:
            return bytes(numbers).decode(errors="replace")
        return "".join(self.symbols[index] for index in numbers)

    def _indices(self, points: Array, what: str, start: int) -> Array:
        """The indices of code points, of which the first is character number ``start``."""
        assert self.symbols is not None
        known = _code_points(self.symbols)
        order = np.argsort(known)
        places = np.minimum(np.searchsorted(known[order], points), len(known) - 1)
        found = order[places]
        strange = np.flatnonzero(known[found] != points)
        if len(strange):
            raise DataError(
                f"{what}, character {start + int(strange[0])}: {chr(points[strange[0]])!r} is not "
                f"in the vocabulary of {len(known)} symbols. Make the vocabulary of all texts, or "
                "read bytes."
            )
        return found.astype(np.int64)


def _code_points(text: str) -> Array:
    # Lone surrogates pass, so that the vocabulary's own error names them.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@dataclass
class TextTable:
    """A table of one column, ``"symbol"``; see `bptt.streams._table.Table`."""

    path: Path
    index: Index
    vocabulary: Vocabulary
    types: dict[Name, Type]
    forward: bool = False

    def read(self, start: int, stop: int) -> Columns:
        """The indices of the symbols ``start`` to ``stop - 1``."""
        if self.vocabulary.symbols is None:
            return [np.frombuffer(self._bytes(start, stop, start), dtype=np.uint8)]
        low, high = start // EVERY, min(-(-stop // EVERY), len(self.index.offsets) - 1)
        offsets = self.index.offsets
        data = self._bytes(int(offsets[low]), int(offsets[high]), start)
        first = low * EVERY
        points = _code_points(_decoded(data, self.path, first))[start - first : stop - first]
        if len(points) != stop - start:
            raise DataError(f"{self.path} ends short near character {start}.")
        return [self.vocabulary._indices(points, str(self.path), start)]

    def _bytes(self, begin: int, end: int, start: int) -> bytes:
        self.index.signature.check(self.path, start)
        with open(self.path, "rb", buffering=0) as file:
            data = read_at(file.fileno(), begin, end)
        self.index.signature.check(self.path, start)
        if len(data) != end - begin:
            raise DataError(f"{self.path} ends short near character {start}.")
        return data

    def read_many(self, stretches: Ordered[tuple[int, int]]) -> list[Block]:
        """`read`, of each."""
        return read_apart(self, stretches)

    def close(self) -> None:
        """Nothing is held open."""


def open_text(
    paths: list[Path], bytewise: bool, vocabulary: Vocabulary | None, cache: Path | None
) -> list[TextTable]:
    """Index texts; without a vocabulary, it becomes every character of all of them.

    Raises:
        DataError: a file is no UTF-8 text.
    """
    if bytewise:
        vocabulary = Vocabulary()
        indices = [rows_of(one.size, one) for one in map(Signature.of, paths)]
    else:
        indices = [indexed(path, "text", cache, partial(_build, path)) for path in paths]
        if vocabulary is None:
            symbols = sorted({symbol for index in indices for symbol in "".join(index.keys)})
            vocabulary = Vocabulary("".join(symbols) or " ")
    types: dict[Name, Type] = {"symbol": "integer"}
    return [
        TextTable(path, _without_keys(index), vocabulary, types)
        for path, index in zip(paths, indices, strict=True)
    ]


def _without_keys(index: Index) -> Index:
    """The index kept its symbols where tables keep the names of their documents."""
    return Index(index.signature, index.rows, index.starts, [], index.offsets)


def _build(path: Path, signature: Signature) -> Index:
    """One pass: where every `EVERY`-th character begins, and which characters there are."""
    offsets: list[Integers] = []
    known: set[int] = set()
    characters = 0
    for base, data in _blocks(path):
        known.update(np.unique(_code_points(_decoded(data, path, characters))).tolist())
        # Every byte but those of the form 10xxxxxx begins a character.
        begins = np.flatnonzero((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80)
        offsets.append(base + begins[-characters % EVERY :: EVERY].astype(np.int64))
        characters += len(begins)
    ends = np.array([signature.size], dtype=np.int64)
    symbols = ["".join(map(chr, sorted(known)))]
    starts = np.zeros(1, dtype=np.int64)
    return Index(signature, characters, starts, symbols, np.concatenate([*offsets, ends]))


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The file in blocks of whole characters, each with the byte where it begins."""
    begin, rest = 0, b""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            data = rest + block
            end = len(data)
            # A character has four bytes at most: look for the beginning of the last one.
            for back in range(1, min(4, end) + 1):
                if data[end - back] & 0xC0 != 0x80:
                    end -= back
                    break
            yield begin, data[:end]
            begin += end
            rest = data[end:]
    if rest:
        yield begin, rest


def _decoded(data: bytes, path: Path, first: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        character = first + len(data[: error.start].decode("utf-8", errors="ignore"))
        raise DataError(
            f"{path}, character {character}: {error.object[error.start]:#04x} is no UTF-8 text: "
            "convert the file, or read it by bytes."
        ) from None
