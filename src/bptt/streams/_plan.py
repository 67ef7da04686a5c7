"""How the sequences of a source are laid on lanes or taken in batches, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch

from bptt.errors import OptionError, at_least
from bptt.streams._layout import Layout, Piece, cut, fill
from bptt.streams._source import Source


@dataclass(frozen=True)
class Plan:
    """A stream's layout as a rule: which lanes, and in which order.

    Attributes:
        lanes: how many run side by side; None in batches.
        batch: how many whole sequences make a batch; None on lanes.
        shuffle: the seed of the order, or None.
        burn_in: steps uncounted after each start or reset.
        part: ``(rank, world)``: of every batch, only this part of the lanes.
    """

    lanes: int | None
    batch: int | None
    shuffle: int | None
    burn_in: int
    part: tuple[int, int] | None = None

    def order(self, count: int, epoch: int) -> list[int]:
        """The order of ``count`` sequences in ``epoch``, counted from 1; of the data in 0."""
        if self.shuffle is None or epoch == 0:
            return list(range(count))
        # A generator of its own for every epoch: the order depends on seed and epoch alone.
        generator = torch.Generator().manual_seed(self.shuffle)
        for _ in range(epoch):
            order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order

    def layouts(self, source: Source, epoch: int = 0) -> list[Layout]:
        """Where every piece of every batch lies."""
        whole = self._whole(source, epoch)
        return whole if self.part is None else [layout.part(*self.part) for layout in whole]

    def _whole(self, source: Source, epoch: int) -> list[Layout]:
        lengths = source.lengths
        order = self.order(len(lengths), epoch)
        if self.batch is not None:
            groups = [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
            return [self._side_by_side(group, lengths) for group in groups]
        assert self.lanes is not None
        if source.kind == "laned":
            return [self._side_by_side(range(self.lanes), lengths * self.lanes)]
        if source.kind == "series":
            pieces = cut(lengths[0], self.lanes)
        else:
            pieces = fill(order, lengths, self.lanes)
        return [Layout(pieces, self.lanes, self.burn_in)]

    def _side_by_side(self, group: Ordered[int], lengths: list[int]) -> Layout:
        """Each sequence of ``group`` on a lane of its own."""
        pieces = [Piece(index, 0, lengths[index], lane, 0) for lane, index in enumerate(group)]
        return Layout(pieces, len(group), self.burn_in)


def make_plan(
    source: Source, lanes: int | None, batch: int | None, shuffle: int | None, burn_in: int
) -> Plan:
    """The plan that a user's options make for such data.

    Raises:
        OptionError: an option is out of range, or does not go with the data or another.
    """
    if batch is not None:
        at_least(1, batch=batch)
        if source.kind != "sequences":
            raise OptionError("batch= takes whole sequences: give a list of them, or lanes=.")
        if lanes is not None:
            raise OptionError("give either lanes= or batch=, not both.")
    if shuffle is not None and (isinstance(shuffle, bool) or not isinstance(shuffle, int)):
        raise OptionError(f"shuffle= is a seed, a whole number, not {shuffle!r}.")
    if shuffle is not None and source.kind != "sequences":
        raise OptionError(
            "shuffle= reorders whole sequences; the steps of one series are never shuffled."
        )
    if source.kind == "laned":
        if lanes not in (None, source.lanes):
            raise OptionError(f"the data came with {source.lanes} lanes; lanes={lanes} is another.")
        lanes = source.lanes
    elif batch is None:
        lanes = 1 if lanes is None else lanes
        at_least(1, lanes=lanes)
        lengths = source.lengths
        most = lengths[0] if source.kind == "series" else len(lengths)
        if lanes > most:
            unit = "steps" if source.kind == "series" else "sequences"
            raise OptionError(f"lanes={lanes} is more than the {most} {unit} there are.")
    return Plan(lanes, batch, shuffle, burn_in)
