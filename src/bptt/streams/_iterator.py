"""The stream that `Stream.from_iterator` gives."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NoReturn

from torch import Tensor

from bptt.errors import DataError
from bptt.streams._chunk import Batch
from bptt.streams._live import LiveSource
from bptt.streams._stream import Stream


class IteratorStream(Stream):
    """A stream that is read once, forward, and whose end is not known beforehand."""

    def __init__(self, source: LiveSource, horizon: int, burn_in: int) -> None:
        self.horizon, self.burn_in = horizon, burn_in
        self.epoch = 0
        self.preceding = self.vocabulary = None
        self._live = source

    @property
    def single_pass(self) -> bool:
        """It cannot be looked through beforehand."""
        return True

    @property
    def is_part(self) -> bool:
        """A live source is read by one process."""
        return False

    @property
    def carries(self) -> bool:
        """A given state goes on into it."""
        return True

    @property
    def steps(self) -> int:
        """Not known: 0."""
        return 0

    def _from(self, first: int) -> Generator[Batch]:
        if first:
            self._cannot("be taken up in the middle")
        yield from self._live.batches()

    def in_order(self) -> Generator[Batch]:
        """Its one batch; this reads the source."""
        yield from self._live.batches()

    @property
    def counted(self) -> int:
        """Not known."""
        self._cannot("be counted")

    @property
    def input_size(self) -> int:
        """Not known."""
        self._cannot("be looked at beforehand")

    @property
    def target_size(self) -> int:
        """Not known."""
        self._cannot("be looked at beforehand")

    @property
    def device(self) -> None:
        """Not known."""

    def gather(self, outputs: list[Tensor]) -> Tensor:
        """The outputs of the one batch."""
        whole = outputs[0]
        return whole[:, 0] if whole.shape[1] == 1 else whole

    def split(self, *sizes: float) -> list[Stream]:
        """Refused: it has no end to be split at."""
        self._cannot("be split: give validation data of their own")

    def part(self, rank: int, world: int) -> Stream:
        """Refused: what one process reads, no other can."""
        self._cannot("be shared among processes")

    def fingerprint(self) -> str:
        """Refused: the data have passed."""
        self._cannot("be recognised later, as checkpoints need")

    def state_dict(self) -> dict[str, Any]:
        """Refused: what has been read is gone."""
        self._cannot("be saved")

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Refused likewise."""
        self._cannot("be taken up again")

    def _cannot(self, what: str) -> NoReturn:
        raise DataError(f"a stream from an iterator is read once, forward: it cannot {what}.")
