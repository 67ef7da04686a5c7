"""`Stream`: ordered data in memory, as lanes or as batches of whole sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from bptt.errors import DataError, OptionError, ShapeError, at_least
from bptt.streams._chunk import Batch, TensorBatch
from bptt.streams._layout import Piece, collect, cut, fill, lay
from bptt.streams._sequences import Sequence, prepare, refuse_mixed, to_tensor, with_feature


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
        device: where the data go; default: where they are.

    Attributes:
        epoch: how many passes have begun; the order of the next one depends on it and the seed.
        preceding: what comes before this stream in time, if `split` made it: `bptt.fit` and
            `bptt.evaluate` run over it first, so that the state is the one that belongs here.

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
        self.horizon = horizon
        self.burn_in = burn_in
        self.epoch = 0
        self.preceding: Stream | None = None
        self._kind, self._sequences = _read(inputs, targets, mask, horizon, dtype, place)
        self._set_lanes(lanes, batch, shuffle)

    def _set_lanes(self, lanes: int | None, batch: int | None, shuffle: int | None) -> None:
        if batch is not None:
            at_least(1, batch=batch)
            if self._kind != "sequences":
                raise OptionError("batch= takes whole sequences: give a list of them, or lanes=.")
            if lanes is not None:
                raise OptionError("give either lanes= or batch=, not both.")
        if shuffle is not None and (isinstance(shuffle, bool) or not isinstance(shuffle, int)):
            raise OptionError(f"shuffle= is a seed, a whole number, not {shuffle!r}.")
        if shuffle is not None and self._kind != "sequences":
            raise OptionError(
                "shuffle= reorders whole sequences; the steps of one series are never shuffled."
            )
        if self._kind == "laned":
            given = self._sequences[0].inputs.shape[1]
            if lanes not in (None, given):
                raise OptionError(f"the data came with {given} lanes; lanes={lanes} is another.")
            lanes = given
        elif batch is None:
            lanes = 1 if lanes is None else lanes
            at_least(1, lanes=lanes)
            most = len(self._sequences[0]) if self._kind == "series" else len(self._sequences)
            if lanes > most:
                unit = "steps" if self._kind == "series" else "sequences"
                raise OptionError(f"lanes={lanes} is more than the {most} {unit} there are.")
        self._lanes, self._batch, self._shuffle = lanes, batch, shuffle
        self._still: list[TensorBatch] | None = None

    @property
    def steps(self) -> int:
        """The steps of all lanes and sequences together, counted or not."""
        if self._kind == "laned":
            return int(self._sequences[0].mask.numel())
        return sum(len(sequence) for sequence in self._sequences)

    @property
    def counted(self) -> int:
        """The steps whose loss counts in one epoch."""
        return sum(int(batch.mask.sum()) for batch in self._in_order())

    @property
    def input_size(self) -> int:
        """Features of the inputs (1 for indices)."""
        return _features(self._sequences[0].inputs, self._kind)

    @property
    def target_size(self) -> int:
        """Features of the targets (1 for indices)."""
        return _features(self._sequences[0].targets, self._kind)

    def batches(self) -> Iterator[Batch]:
        """The batches of the next epoch, in its order: one where there are lanes, several where
        whole sequences are taken in batches. Each call begins a new epoch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self._shuffle is None:
            yield from self._in_order()
            return
        # A generator of its own for every epoch: the order depends on seed and epoch alone.
        generator = torch.Generator().manual_seed(self._shuffle)
        for _ in range(epoch + 1):
            order = torch.randperm(len(self._sequences), generator=generator).tolist()
        for lanes, pieces in self._plan(order):
            yield lay(self._sequences, pieces, lanes, self.burn_in)

    def in_order(self) -> Iterator[Batch]:
        """The batches in the order of the data, as evaluation reads them; no epoch begins."""
        yield from self._in_order()

    @property
    def carries(self) -> bool:
        """Whether a given state goes on into this stream (batches start anew each time)."""
        return self._batch is None

    def _in_order(self) -> list[TensorBatch]:
        if self._still is None:
            if self._kind == "laned":
                self._still = [self._laned()]
            else:
                plan = self._plan(list(range(len(self._sequences))))
                self._still = [lay(self._sequences, p, n, self.burn_in) for n, p in plan]
        return self._still

    def _laned(self) -> TensorBatch:
        whole = self._sequences[0]
        mask = whole.mask.clone() if self.burn_in else whole.mask
        mask[: self.burn_in] = False
        reset = torch.zeros_like(mask)
        return TensorBatch(whole.inputs, whole.targets, mask, reset, None)

    def _plan(self, order: list[int]) -> list[tuple[int, list[Piece]]]:
        """Per batch: how many lanes, and which piece lies where."""
        lengths = [len(sequence) for sequence in self._sequences]
        if self._batch is not None:
            groups = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
            return [
                (len(group), [Piece(j, 0, lengths[j], lane, 0) for lane, j in enumerate(group)])
                for group in groups
            ]
        assert self._lanes is not None
        if self._kind == "series":
            return [(self._lanes, cut(lengths[0], self._lanes))]
        return [(self._lanes, fill(order, lengths, self._lanes))]

    def gather(self, outputs: list[Tensor]) -> Tensor | list[Tensor]:
        """Put what was computed for every step, a tensor [time, lane, ...] for each batch of
        `in_order`, back into the shape of the data: one tensor, or a list of them."""
        if self._kind == "laned":
            return outputs[0]
        found: dict[int, list[Tensor]] = {}
        plan = self._plan(list(range(len(self._sequences))))
        for output, (_, pieces) in zip(outputs, plan, strict=True):
            collect(output, pieces, found)
        whole = [torch.cat(found[index]) for index in range(len(self._sequences))]
        return whole[0] if self._kind == "series" else whole

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
        total = len(self._sequences) if self._kind == "sequences" else len(self._sequences[0])
        ends, reached = [], 0.0
        for size in sizes:
            reached += size
            ends.append(round(reached * total))
        shift = 0 if self._kind == "sequences" else self.horizon
        bounds = [0, *(end - shift for end in ends), total]
        if not all(low < high for low, high in itertools.pairwise(bounds)):
            raise DataError(
                f"{total} {'sequences' if self._kind == 'sequences' else 'steps'} are too few to "
                f"split by {sizes} with horizon {self.horizon}: a part would be empty."
            )
        return [self._part(low, high, first=low == 0) for low, high in itertools.pairwise(bounds)]

    def _part(self, low: int, high: int, first: bool) -> Stream:
        if self._kind == "sequences":
            return self._with(self._sequences[low:high], min(self._lanes or 1, high - low))
        whole = self._sequences[0]
        if first:
            part = self._with([whole.part(low, high)], min(self._lanes or 1, high))
            part.preceding = self.preceding
            return part
        # A later part goes on where the past ends: one series runs on one lane, so that the
        # state that enters it has seen all of the past.
        part = self._with([whole.part(low, high)], 1, burn_in=0)
        part.preceding = self._with([whole.part(0, low)], 1)
        part.preceding.preceding = self.preceding
        return part

    def _with(self, sequences: list[Sequence], lanes: int, burn_in: int | None = None) -> Stream:
        part = object.__new__(Stream)
        part.horizon, part.epoch, part.preceding = self.horizon, 0, None
        part.burn_in = self.burn_in if burn_in is None else burn_in
        part._kind, part._sequences = self._kind, sequences
        laned = self._kind == "laned" or self._batch is not None
        part._set_lanes(None if laned else lanes, self._batch, self._shuffle)
        return part

    def __repr__(self) -> str:
        how = f"batch={self._batch}" if self._batch is not None else f"lanes={self._lanes}"
        return f"Stream({self.steps} steps, {how}, horizon={self.horizon})"


Kind = Literal["series", "laned", "sequences"]


def _read(
    inputs: Any,
    targets: Any,
    mask: Any,
    horizon: int,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> tuple[Kind, list[Sequence]]:
    if isinstance(inputs, (list, tuple)) and len(inputs) > 0 and not _is_number(inputs[0]):
        return "sequences", _read_list(list(inputs), targets, mask, horizon, dtype, device)
    features = to_tensor(inputs, "inputs", dtype, device)
    goals = to_tensor(targets, "targets", dtype, device)
    laned = features.dim() == 3
    if features.dim() not in (1, 2, 3):
        raise ShapeError(
            "inputs must be [time, feature], [time, lane, feature] or a list of sequences "
            f"[time, feature], not of the shape {list(features.shape)}."
        )
    rank = 3 if laned else 2
    counted = None if mask is None else to_tensor(mask, "mask", None, device)
    sequence = prepare(
        with_feature(features, rank), with_feature(goals, rank), counted, horizon, laned, "the data"
    )
    return ("laned" if laned else "series"), [sequence]


def _read_list(
    inputs: list[Any],
    targets: Any,
    mask: Any,
    horizon: int,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> list[Sequence]:
    for name, other in (("targets", targets), ("mask", mask)):
        if other is not None and (
            not isinstance(other, (list, tuple)) or len(other) != len(inputs)
        ):
            given = len(other) if isinstance(other, (list, tuple)) else type(other).__name__
            raise ShapeError(
                f"inputs are a list of {len(inputs)} sequences, so {name} must be a list of as "
                f"many, not {given}."
            )
    masks = [None] * len(inputs) if mask is None else mask
    sequences = []
    for index, (one, goal, counted) in enumerate(zip(inputs, targets, masks, strict=True)):
        name = f"sequence {index}"
        features = with_feature(to_tensor(one, f"{name}: inputs", dtype, device), 2)
        goals = with_feature(to_tensor(goal, f"{name}: targets", dtype, device), 2)
        if features.dim() not in (1, 2):
            raise ShapeError(
                f"{name} must be [time, feature], not of the shape {list(features.shape)}."
            )
        flags = None if counted is None else to_tensor(counted, f"{name}: mask", None, device)
        sequences.append(prepare(features, goals, flags, horizon, False, name))
    refuse_mixed(sequences)
    return sequences


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _features(tensor: Tensor, kind: Kind) -> int:
    rank = 3 if kind == "laned" else 2
    return int(tensor.shape[-1]) if tensor.dim() == rank else 1
