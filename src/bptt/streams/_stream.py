"""`Stream`: ordered data, in memory or in files, as lanes or as batches of whole sequences."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Generator, Iterable
from collections.abc import Sequence as Ordered
from copy import copy
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from bptt.errors import DataError, OptionError, at_least
from bptt.streams._chunk import Batch
from bptt.streams._layout import collect
from bptt.streams._memory import from_memory
from bptt.streams._open import Paths, shard_of, table_source, text_source
from bptt.streams._plan import make_plan
from bptt.streams._position import epoch_of, position
from bptt.streams._source import Source
from bptt.streams._table import Name
from bptt.streams._text import Vocabulary

AT_ONCE = 4096
"""Steps looked at together where a whole stream is counted."""


class Stream:
    """Ordered input–target pairs, laid on lanes that run side by side.

    Args:
        inputs: one series [time, feature] (or [time] of one feature), cut into ``lanes``
            contiguous parts; or [time, lane, feature]; or a list of sequences [time, feature] of
            unequal length, laid one after the other on ``lanes`` or taken ``batch`` at a time.
            Tensors, NumPy arrays, or what NumPy reads. Integers [time] are indices; integers with
            a feature axis are numbers and become floating.
        targets: as ``inputs``; default: the inputs themselves, which asks for a ``horizon``.
        lanes: how many lanes run side by side; default 1. The tail is never lost: lanes differ by
            one step at most, or take the next sequence when their last ends.
        batch: take whole sequences in batches of so many, each from the initial state.
        horizon: the prediction made after reading ``inputs[t]`` is compared with
            ``targets[t + horizon]``. The last ``horizon`` steps of each sequence have no target:
            they are unfolded but not counted.
        mask: bool, as the leading dimensions of ``targets``, and aligned with them: the targets
            that count. Masked targets may be NaN.
        burn_in: how many steps after each start or reset are unfolded but not counted.
        shuffle: a seed: the order of whole sequences is drawn anew in every epoch. Steps are
            never shuffled.
        dtype: of floating data; default: that of given tensors, PyTorch's default for arrays.
        device: where the data are kept; default: where they are. What trains or evaluates takes
            them to the network's device as they are read, so that long data may stay on the CPU.

    Attributes:
        epoch: how many passes have begun; the order of the next one depends on it and the seed.
        preceding: what comes before this stream in time, if `split` made it: `bptt.fit` and
            `bptt.evaluate` run over it first, so that the state is the one that belongs here.
        vocabulary: of a stream made by `from_text`, else None.
        shard: of a stream made of files with ``shard=``, what was given there.

    Raises:
        DataError: the data are empty or hold NaN or infinity where they count.
        ShapeError: inputs, targets and mask do not match.
        OptionError: an option is out of range, or does not go with such data.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        *,
        lanes: int | None = None,
        batch: int | None = None,
        horizon: int = 0,
        mask: Any = None,
        burn_in: int = 0,
        shuffle: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        at_least(0, horizon=horizon, burn_in=burn_in)
        if targets is None:
            if horizon == 0:
                raise OptionError(
                    "without targets the stream predicts its own inputs: give horizon=1 (the next "
                    "step) or more, or targets=."
                )
            targets = inputs
        place = None if device is None else torch.device(device)
        source = from_memory(inputs, targets, mask, horizon, dtype, place)
        self._begin(source, horizon, burn_in, lanes, batch, shuffle)

    @classmethod
    def from_files(
        cls,
        paths: Paths,
        *,
        inputs: Name | Ordered[Name],
        targets: Name | Ordered[Name] | None = None,
        lanes: int | None = None,
        batch: int | None = None,
        group: Name | None = None,
        horizon: int = 0,
        mask: Name | None = None,
        missing: Literal["refuse", "mask"] = "refuse",
        burn_in: int = 0,
        shuffle: int | None = None,
        shard: tuple[int, int] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        chunk: int | None = None,
        cache: str | PathLike[str] | None = None,
    ) -> Stream:
        """A stream over CSV, Parquet or ``.npy`` files, of which a few chunks are held at a time.

        The pairs, masks and resets are those that the same data give in memory.

        Args:
            paths: one file is one series; a list of files is a list of sequences, one each.
            inputs: the columns to read: a list of names gives [time, feature]; one name by itself
                gives one feature or, if the column holds whole numbers, indices [time]. The
                columns of an array without names are numbered from 0.
            targets: likewise; default: the inputs, which asks for a ``horizon``.
            group: the column whose value tells the sequences of a file apart: rows of one value
                follow one another and make one sequence.
            mask: a column of true and false (1 and 0): the targets that count.
            missing: ``"refuse"`` a target that is NaN or absent, or ``"mask"`` it. Inputs must
                always be there.
            shard: ``(rank, world)``: this stream is part ``rank`` of ``world`` disjoint parts of
                about equal length that together are everything.
            chunk: how many steps of every lane are read together; default: about 4 MB of them.
            cache: a folder to keep the files' indices in; default: they are built every time.
            lanes, batch, horizon, burn_in, shuffle, dtype, device: as of `Stream`.

        Raises:
            DataError: a column is missing, a file is empty, a group comes back. While reading:
                text, NaN or infinity where it counts, a file that changed; each with file and row.
            OptionError: an option is out of range, or does not go with such data.
            BpttError: CSV and Parquet need pyarrow, the extra ``bptt[cli]``.
        """
        source: Source = table_source(
            paths,
            inputs,
            targets,
            mask=mask,
            group=group,
            horizon=horizon,
            missing=missing,
            dtype=dtype,
            device=device,
            chunk=chunk,
            cache=cache,
        )
        return cls._of(source, shard, horizon, burn_in, lanes, batch, shuffle)

    @classmethod
    def from_text(
        cls,
        paths: Paths,
        *,
        lanes: int | None = None,
        batch: int | None = None,
        unit: Literal["character", "byte"] = "character",
        vocabulary: Vocabulary | None = None,
        horizon: int = 1,
        burn_in: int = 0,
        shuffle: int | None = None,
        shard: tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        chunk: int | None = None,
        cache: str | PathLike[str] | None = None,
    ) -> Stream:
        """A stream over UTF-8 text, predicting the symbol ``horizon`` steps on.

        Inputs and targets are indices [time, lane] for a cell that embeds them and for
        ``loss="cross_entropy"``; the stream's `vocabulary` says what they mean.

        Args:
            paths: one file is one series; a list of files is a list of sequences, one each.
            unit: ``"character"``, or ``"byte"`` of the UTF-8 text.
            vocabulary: the characters that there are; default: those of the text, sorted.
            lanes, batch, horizon, burn_in, shuffle, shard, device, chunk, cache: as of
                `from_files`.

        Raises:
            DataError: a file is no UTF-8 text, empty, or holds what the vocabulary does not.
            OptionError: an option is out of range, or does not go with such data.
        """
        source, known = text_source(
            paths,
            unit=unit,
            vocabulary=vocabulary,
            horizon=horizon,
            device=device,
            chunk=chunk,
            cache=cache,
        )
        stream = cls._of(source, shard, horizon, burn_in, lanes, batch, shuffle)
        stream.vocabulary = known
        return stream

    @classmethod
    def from_iterator(
        cls,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        paired: bool = False,
        lanes: int = 1,
        horizon: int = 0,
        burn_in: int = 0,
        ahead: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Stream:
        """A stream over a live source: steps are read when a window needs them, one pass forward,
        and let go when no window reaches them any more.

        It feeds `bptt.fit` with `Truncated` or `SlidingWindow`; what must see all data beforehand
        (splitting, checkpoints) is refused. `bptt.Online` is fed step by step instead.

        Args:
            source: an iterable of steps, each [feature] or a number, with several lanes
                [lane, feature]; or a function that makes one for every epoch. An iterator serves
                for one epoch.
            paired: a step is (input, target), target None where nothing is to be compared. Else
                the inputs are the targets, which asks for a ``horizon``.
            lanes: how many lanes run side by side.
            ahead: how many steps may be read before a window needs them: more make updates
                cheaper, and later.
            horizon, burn_in, dtype, device: as of `Stream`.

        Raises:
            OptionError: an option is out of range.
            DataError: while reading: the source is empty, was read before, or holds NaN or
                infinity; with the number of the step.
            ShapeError: while reading: a step unlike those before it.
        """
        from bptt.streams._iterator import IteratorStream
        from bptt.streams._live import LiveSource

        live = LiveSource(source, paired, lanes, horizon, burn_in, ahead, dtype, device)
        return IteratorStream(live, horizon, burn_in)

    @property
    def single_pass(self) -> bool:
        """Whether reading it uses it up."""
        return False

    @classmethod
    def _of(
        cls,
        source: Source,
        shard: tuple[int, int] | None,
        horizon: int,
        burn_in: int,
        lanes: int | None,
        batch: int | None,
        shuffle: int | None,
    ) -> Stream:
        at_least(0, horizon=horizon, burn_in=burn_in)
        stream = object.__new__(cls)
        chosen = source if shard is None else shard_of(source, shard)
        stream._begin(chosen, horizon, burn_in, lanes, batch, shuffle)
        stream.shard = shard
        return stream

    def _begin(
        self,
        source: Source,
        horizon: int,
        burn_in: int,
        lanes: int | None,
        batch: int | None,
        shuffle: int | None,
    ) -> None:
        self.horizon = horizon
        self.burn_in = burn_in
        self.epoch = 0
        self.preceding: Stream | None = None
        self.vocabulary: Vocabulary | None = None
        self.shard: tuple[int, int] | None = None
        self._source = source
        self._plan = make_plan(source, lanes, batch, shuffle, burn_in)
        self._still: list[Batch] | None = None

    @property
    def steps(self) -> int:
        """The steps of all lanes and sequences together, counted or not."""
        return sum(self._source.lengths) * self._source.lanes

    @property
    def counted(self) -> int:
        """The steps whose loss counts in one epoch; of files, this reads them."""
        return sum(
            int(batch.chunk(start, start + AT_ONCE).mask.sum())
            for batch in self.in_order()
            for start in range(0, batch.length, AT_ONCE)
        )

    @property
    def input_size(self) -> int:
        """Features of the inputs (1 for indices)."""
        return self._features(self._source.like().inputs)

    @property
    def target_size(self) -> int:
        """Features of the targets (1 for indices)."""
        return self._features(self._source.like().targets)

    @property
    def device(self) -> torch.device | None:
        """Where the data are; None where that is not known before they are read."""
        return self._source.like().inputs.device

    def _features(self, tensor: Tensor) -> int:
        rank = 3 if self._source.kind == "laned" else 2
        return int(tensor.shape[-1]) if tensor.dim() == rank else 1

    def batches(self) -> Generator[Batch]:
        """The batches of the next epoch, in its order: one where there are lanes, several where
        whole sequences are taken in batches. Each call begins a new epoch."""
        self.epoch += 1
        yield from self._from(0)

    def resumed(self, first: int) -> Generator[Batch]:
        """The batches, from number ``first`` on, of the epoch that has begun already."""
        if self.epoch == 0:
            raise OptionError("no epoch of this stream has begun: load its state_dict first.")
        yield from self._from(first)

    def _from(self, first: int) -> Generator[Batch]:
        """The batches of the epoch that runs, from ``first`` on."""
        if self._plan.shuffle is None:
            yield from self._in_order(first)
        else:
            layouts = self._plan.layouts(self._source, self.epoch)
            yield from self._source.batches(layouts[first:])

    def in_order(self) -> Generator[Batch]:
        """The batches in the order of the data, as evaluation reads them; no epoch begins."""
        yield from self._in_order(0)

    def part(self, rank: int, world: int) -> Stream:
        """The lanes that process ``rank`` of ``world`` owns, of the same batches.

        The batches are as long as the whole stream's, and begin and end with them, so that every
        process has the same windows. A gradient method yields them all, those in which nothing
        counts here with a count of 0, for the lanes of another process may count there.
        `bptt.fit` takes its part by itself where several processes train together.

        Raises:
            OptionError: there is no such part.
        """
        at_least(1, world=world)
        at_least(0, rank=rank)
        if rank >= world:
            raise OptionError(f"part({rank}, {world}): ranks go from 0 to {world - 1}.")
        part = copy(self)
        part._plan = replace(self._plan, part=(rank, world))
        part._still = None
        if self.preceding is not None:
            part.preceding = self.preceding.part(rank, world)
        return part

    @property
    def is_part(self) -> bool:
        """Whether other processes have other lanes of the same batches."""
        return self._plan.part is not None

    @property
    def carries(self) -> bool:
        """Whether a given state goes on into this stream (batches start anew each time)."""
        return self._plan.batch is None

    def _in_order(self, first: int) -> Generator[Batch]:
        if not self._source.resident:
            yield from self._source.batches(self._plan.layouts(self._source)[first:])
            return
        if self._still is None:
            self._still = list(self._source.batches(self._plan.layouts(self._source)))
        yield from self._still[first:]

    def gather(self, outputs: list[Tensor]) -> Tensor | list[Tensor]:
        """Put what was computed for every step, a tensor [time, lane, ...] for each batch of
        `in_order`, back into the shape of the data: one tensor, or a list of them."""
        if self.is_part:
            raise OptionError(
                "a part of a stream holds some lanes of everything, which make no whole series or "
                "sequence again: predict with the whole stream."
            )
        if self._source.kind == "laned":
            return outputs[0]
        found: dict[int, list[Tensor]] = {}
        for output, layout in zip(outputs, self._plan.layouts(self._source), strict=True):
            collect(output, layout.pieces, found)
        whole = [torch.cat(found[index]) for index in range(len(found))]
        return whole[0] if self._source.kind == "series" else whole

    def split(self, *sizes: float) -> list[Stream]:
        """Parts in the order of time: of the given shares of the steps, the rest last.

        One series is cut by the times of its targets: every target belongs to one part, and no
        part trains on what a later one is tested on. Each later part knows what precedes it. A
        list of sequences is split by whole sequences, in their order.

        Args:
            sizes: shares above 0, together below 1: ``split(0.6, 0.2)`` gives three parts.

        Raises:
            OptionError: the shares are out of range.
            DataError: a part would be empty.
        """
        if not sizes or not all(0 < size < 1 for size in sizes) or not sum(sizes) < 1:
            raise OptionError(f"split takes shares above 0, together below 1, not {sizes}.")
        lengths = self._source.lengths
        total = len(lengths) if self._source.kind == "sequences" else lengths[0]
        ends, reached = [], 0.0
        for size in sizes:
            reached += size
            ends.append(round(reached * total))
        unit = "sequences" if self._source.kind == "sequences" else "steps"
        shift = 0 if self._source.kind == "sequences" else self.horizon
        bounds = [0, *(end - shift for end in ends), total]
        if not all(low < high for low, high in itertools.pairwise(bounds)):
            raise DataError(
                f"{total} {unit} are too few to split by {sizes} with horizon {self.horizon}: a "
                "part would be empty."
            )
        return [self._part(low, high, first=low == 0) for low, high in itertools.pairwise(bounds)]

    def _part(self, low: int, high: int, first: bool) -> Stream:
        if self._source.kind == "sequences":
            chosen = self._source.take(range(low, high))
            return self._with(chosen, min(self._plan.lanes or 1, high - low))
        if first:
            part = self._with(self._source.cut(low, high), min(self._plan.lanes or 1, high))
            part.preceding = self.preceding
            return part
        # A later part goes on where the past ends: one series runs on one lane, so that the
        # state that enters it has seen all of the past.
        part = self._with(self._source.cut(low, high), 1, burn_in=0)
        part.preceding = self._with(self._source.cut(0, low), 1)
        part.preceding.preceding = self.preceding
        return part

    def _with(self, source: Source, lanes: int, burn_in: int | None = None) -> Stream:
        part = object.__new__(Stream)
        laned = source.kind == "laned" or self._plan.batch is not None
        part._begin(
            source,
            self.horizon,
            self.burn_in if burn_in is None else burn_in,
            None if laned else lanes,
            self._plan.batch,
            self._plan.shuffle,
        )
        part.vocabulary = self.vocabulary
        return part

    def fingerprint(self) -> str:
        """A checksum of all data, what precedes them included: of tensors in memory, or of the
        bytes of the files (which reads them) and what is taken out of them."""
        before = "" if self.preceding is None else self.preceding.fingerprint()
        found = f"{before} {self._source.fingerprint()} {self.vocabulary}"
        return hashlib.sha256(found.encode()).hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: the epoch, with what its order and lanes depend on, and check
        sums of the lengths and of the order; numbers and strings alone.

        The position within a pass is the gradient method's to save: `Truncated.state_dict`.
        """
        return position(self._source, self._plan, self.horizon, self.epoch)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where a stream of the same data stood when ``saved`` was taken.

        Raises:
            DataError: the data, their lanes or their order are others.
        """
        self.epoch = epoch_of(saved, self._source, self._plan, self.horizon)

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        """A stream of its own position over the same data, which nothing changes."""
        return copy(self)

    def __repr__(self) -> str:
        how = (
            f"batch={self._plan.batch}"
            if self._plan.batch is not None
            else f"lanes={self._plan.lanes}"
        )
        return f"Stream({self.steps} steps, {how}, horizon={self.horizon})"
