"""From decoded rows to checked tensors: which columns become what."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError
from bptt.streams._sequences import Sequence
from bptt.streams._table import Array, Columns, Name, Selection, Table

_NUMPY = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Side:
    """Inputs or targets: their places among the decoded columns, and whether they are indices."""

    word: str
    names: tuple[Name, ...]
    places: list[int]
    indices: bool

    def nothing(self, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        """No rows of it."""
        if self.indices:
            return torch.empty(0, dtype=torch.int64, device=device)
        return torch.empty(0, len(self.places), dtype=dtype, device=device)

    def values(self, columns: Columns, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """[row] of indices or [row, feature]; and for indices which rows have one, if not all."""
        if self.indices:
            return _whole(_column(columns, self.places[0]))
        kind = _NUMPY.get(dtype, np.float64)
        if isinstance(columns, np.ndarray):
            first, count = self.places[0], len(self.places)
            neighbours = self.places == list(range(first, first + count))
            chosen = columns[:, first : first + count] if neighbours else columns[:, self.places]
            array = np.ascontiguousarray(chosen, dtype=kind)
        else:
            array = np.empty((len(columns[0]), len(self.places)), dtype=kind)
            with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
                for feature, place in enumerate(self.places):
                    array[:, feature] = columns[place]
        return torch.from_numpy(array).to(dtype), None


@dataclass(frozen=True)
class Form:
    """How the rows of a stream's files become tensors.

    Attributes:
        inputs, targets: their columns.
        mask: the place of the column that says which targets count, if any, and its name.
        missing: whether a target that is absent is refused or left uncounted.
        dtype: of floating data.
        device: where the tensors go.
    """

    inputs: Side
    targets: Side
    mask: tuple[int, Name] | None
    missing: Literal["refuse", "mask"]
    dtype: torch.dtype
    device: torch.device | None

    def nothing(self) -> Sequence:
        """No rows."""
        return Sequence(
            self.inputs.nothing(self.dtype, self.device),
            self.targets.nothing(self.dtype, self.device),
            torch.empty(0, dtype=torch.bool, device=self.device),
        )

    def rows(self, columns: Columns, path: Path, start: int) -> Sequence:
        """Decoded rows, of which the first is number ``start``, as tensors; targets stand beside
        the inputs of their own row.

        Raises:
            DataError: NaN, infinity or nothing where it counts.
        """
        inputs, given = self.inputs.values(columns, self.dtype)
        everything = torch.ones(len(inputs), dtype=torch.bool)
        self._refuse(self.inputs, inputs, given, everything, path, start)
        same = self.inputs.places == self.targets.places
        if not same or self.inputs.indices != self.targets.indices:
            targets, given = self.targets.values(columns, self.dtype)
        else:
            targets = inputs
        counted = everything if self.mask is None else self._flags(columns, path, start)
        if self.missing == "mask":
            counted = counted & _present(targets, given)
        if not same or self.mask is not None:
            self._refuse(self.targets, targets, given, counted, path, start)
        device = self.device
        return Sequence(inputs.to(device), targets.to(device), counted.to(device))

    def _flags(self, columns: Columns, path: Path, start: int) -> Tensor:
        assert self.mask is not None
        place, name = self.mask
        flags = np.asarray(_column(columns, place))
        bad = np.flatnonzero((flags != 0) & (flags != 1))
        if len(bad):
            raise DataError(
                f"{path}, row {start + int(bad[0])}, column {name!r}: {flags[bad[0]]} is neither "
                "true (1: the target counts) nor false (0)."
            )
        return torch.from_numpy(flags != 0)

    def _refuse(
        self,
        side: Side,
        values: Tensor,
        given: Tensor | None,
        counted: Tensor,
        path: Path,
        start: int,
    ) -> None:
        """Refuse what is not finite where it counts."""
        if given is None and (not values.is_floating_point() or _finite(values)):
            return
        bad = ~torch.isfinite(values) if given is None else ~given
        bad = (bad if bad.dim() == 2 else bad[:, None]) & counted[:, None]
        if not bool(bad.any()):
            return
        row, feature = bad.nonzero()[0].tolist()
        value = float("nan") if given is not None else float(values[row, feature])
        mend = "fill or remove them"
        if side.word == "targets":
            mend = "missing='mask' leaves targets that are NaN or absent uncounted"
        raise DataError(
            f"{path}, row {start + row}, column {side.names[feature]!r}: {side.word} are {value} "
            f"({int(bad.any(dim=1).sum())} such row(s) in the {len(values)} read with it): {mend}."
        )


def make_form(
    tables: Ordered[Table],
    selection: Selection,
    missing: Literal["refuse", "mask"],
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> Form:
    """The form that fits all ``tables``.

    Raises:
        DataError: a lone column holds whole numbers in one file and others in another.
    """
    names, first = selection.names, tables[0]
    for table in tables:
        for name in selection.typed:
            if name != selection.mask and table.types[name] != first.types[name]:
                raise DataError(
                    f"column {name!r} holds {first.types[name]}s in {first.path}, but "
                    f"{table.types[name]}s in {table.path}: write one type, or name it in a list, "
                    f"[{name!r}], to read measurements."
                )

    def side(word: str, chosen: tuple[Name, ...], lone: bool) -> Side:
        indices = lone and first.types[chosen[0]] == "integer"
        return Side(word, chosen, [names.index(name) for name in chosen], indices)

    mask = None if selection.mask is None else (names.index(selection.mask), selection.mask)
    return Form(
        side("inputs", selection.inputs, selection.lone_inputs),
        side("targets", selection.targets, selection.lone_targets),
        mask,
        missing,
        torch.get_default_dtype() if dtype is None else dtype,
        device,
    )


def _column(columns: Columns, place: int) -> Array:
    return columns[:, place] if isinstance(columns, np.ndarray) else columns[place]


def _whole(column: Array) -> tuple[Tensor, Tensor | None]:
    """Indices, and which of them are there; where some are absent they come as floating NaN."""
    given: Any = None
    if column.dtype.kind == "f":
        present = np.isfinite(column)
        given = None if present.all() else torch.from_numpy(present)
        column = np.where(present, column, 0)
    return torch.from_numpy(np.array(column, dtype=np.int64)), given


def _present(values: Tensor, given: Tensor | None) -> Tensor:
    """The rows [row] in which nothing is absent."""
    if given is not None:
        return given
    if not values.is_floating_point():
        return torch.ones(len(values), dtype=torch.bool)
    return ~torch.isnan(values).flatten(1).any(dim=1)


def _finite(values: Tensor) -> bool:
    """Whether all are finite; a sum tells, unless it overflows by itself."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
