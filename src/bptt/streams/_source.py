"""Where a stream's sequences come from: memory, or files.

A source knows the length of every sequence and reads stretches of them on demand. How they are
laid on lanes and cut into chunks is the same for all sources (`bptt.streams._layout`), so data on
disk gives the very pairs, masks and resets that the same data give in memory.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Ordered
from typing import Literal, NamedTuple, Protocol

from bptt.streams._chunk import Batch
from bptt.streams._layout import Layout
from bptt.streams._sequences import Sequence

Kind = Literal["series", "laned", "sequences"]
"""One series to be cut into lanes; one that came with its lanes; a list of whole sequences."""


class Part(NamedTuple):
    """The steps ``start`` to ``stop - 1`` of ``sequence``."""

    sequence: int
    start: int
    stop: int


class Source(Protocol):
    """Sequences of known length, readable by stretches."""

    @property
    def kind(self) -> Kind:
        """What the sequences are to each other."""

    @property
    def resident(self) -> bool:
        """Whether the data lie in memory, so that a batch laid out once is worth keeping."""

    @property
    def lengths(self) -> list[int]:
        """The steps of every sequence."""

    @property
    def lanes(self) -> int:
        """How many lanes the data came with (1 unless ``kind`` is ``"laned"``)."""

    def like(self) -> Sequence:
        """No steps, but the features and dtypes of all."""

    def read(self, parts: Ordered[Part]) -> list[Sequence]:
        """Stretches of sequences: pairs as they are compared, shifted by the horizon and checked.

        Raises:
            DataError: what is read is unusable; nothing of it is given.
        """

    def take(self, chosen: Ordered[int]) -> Source:
        """The whole sequences of these numbers, in this order."""

    def cut(self, start: int, stop: int) -> Source:
        """The steps ``start`` to ``stop - 1`` of the one series."""

    def fingerprint(self) -> str:
        """A checksum of all data, wherever they lie."""

    def batches(self, layouts: Ordered[Layout]) -> Generator[Batch]:
        """A batch for each layout, in order; closing the generator ends what runs ahead."""
