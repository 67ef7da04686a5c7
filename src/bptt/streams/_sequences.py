"""From what a user has — tensors, arrays, lists of them — to checked, shifted sequences.

Errors name the row and the column. Targets are shifted by the horizon here, within each original
sequence, before anything is cut.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError, ShapeError


@dataclass(frozen=True)
class Sequence:
    """Ordered pairs: the prediction made after reading ``inputs[t]`` is compared with
    ``targets[t]`` where ``mask[t]``. One lane [time, ...], or [time, lane, ...] where the data
    came with its lanes; ``mask`` is [time] or [time, lane]."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def step_bytes(self) -> int:
        """What a step of one lane takes: of inputs, targets and two flags."""
        skip = self.mask.dim()
        sizes = (t.element_size() * t.shape[skip:].numel() for t in (self.inputs, self.targets))
        return sum(sizes) + 2

    def part(self, start: int, stop: int) -> Sequence:
        """The steps ``start`` to ``stop - 1``."""
        at = slice(start, stop)
        return Sequence(self.inputs[at], self.targets[at], self.mask[at])


def to_tensor(
    values: Any,
    name: str,
    dtype: torch.dtype | None,
    device: torch.device | None,
    laned: bool = False,
) -> Tensor:
    """A tensor of numbers; floating arrays that are no tensors take the default dtype.

    Integers [time], or [time, lane] where the data come with their lanes (``laned``), stay
    indices; integers with a feature axis are measurements that happen to be whole, and become
    floating.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"{name} must hold numbers, not {array.dtype}: convert the text or objects first."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if tensor.is_floating_point() and dtype is None:
            dtype = torch.get_default_dtype()
    if tensor.is_complex():
        raise DataError(f"{name} must hold real numbers, not {tensor.dtype}.")
    if tensor.dim() > 1 + laned and not tensor.is_floating_point() and tensor.dtype != torch.bool:
        tensor = tensor.to(dtype or torch.get_default_dtype())
    floating = tensor.is_floating_point()
    return tensor.to(device=device, dtype=dtype if floating else None)


def with_feature(tensor: Tensor, rank: int) -> Tensor:
    """A series of ``rank - 1`` dimensions gets its one feature; indices stay as they are."""
    return tensor[..., None] if tensor.is_floating_point() and tensor.dim() == rank - 1 else tensor


def prepare(
    inputs: Tensor, targets: Tensor, mask: Tensor | None, horizon: int, laned: bool, name: str
) -> Sequence:
    """Check one sequence and shift its targets by ``horizon``.

    Raises:
        ShapeError: lengths or lanes do not match.
        DataError: it is empty, or holds NaN or infinity where it counts.
    """
    if len(inputs) == 0:
        raise DataError(f"{name} is empty: it has no steps.")
    if len(inputs) != len(targets):
        raise ShapeError(
            f"{name} has {len(inputs)} steps of inputs but {len(targets)} of targets: every "
            "input needs its target (horizon= shifts the targets)."
        )
    lead = 2 if laned else 1
    shape = inputs.shape[:lead]
    if targets.shape[:lead] != shape:
        raise ShapeError(
            f"{name} has inputs {list(inputs.shape)} but targets {list(targets.shape)}: they must "
            f"agree in {'time and lane' if laned else 'time'}."
        )
    targets = targets.to(inputs.device)
    counted = _check_mask(mask, shape, inputs, name)
    _refuse_nonfinite(inputs, torch.ones_like(counted), f"{name}: inputs")
    _refuse_nonfinite(targets, counted, f"{name}: targets")
    return Sequence(inputs, *_shift(targets, counted, horizon))


def _check_mask(mask: Tensor | None, shape: torch.Size, like: Tensor, name: str) -> Tensor:
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=like.device)
    if mask.dtype != torch.bool:
        raise ShapeError(f"{name}: mask must be bool, not {mask.dtype}.")
    if mask.shape != shape:
        raise ShapeError(
            f"{name}: mask has the shape {list(mask.shape)}, expected {list(shape)} to match the "
            "targets."
        )
    return mask.to(like.device)


def _refuse_nonfinite(values: Tensor, counted: Tensor, what: str) -> None:
    if not values.is_floating_point():
        return
    trailing = tuple(range(counted.dim(), values.dim()))
    bad = ~torch.isfinite(values)
    rows = (bad.any(dim=trailing) if trailing else bad) & counted
    if not bool(rows.any()):
        return
    place = rows.nonzero()[0].tolist()
    within = bad[tuple(place)].nonzero()
    column = within[0].tolist() if within.numel() else []
    value = float(values[(*place, *column)])
    where = f"row {place[0]}" + (f", lane {place[1]}" if len(place) > 1 else "")
    where += f", column {column[0]}" if column else ""
    mend = "leave such targets uncounted with mask=" if "targets" in what else "fill or remove them"
    raise DataError(f"{what} are {value} at {where} ({int(rows.sum())} such row(s)): {mend}.")


def _shift(targets: Tensor, mask: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Targets and mask moved ``horizon`` steps earlier; the last ones are left without a target."""
    if horizon == 0:
        return targets, mask
    horizon = min(horizon, len(targets))
    # The value does not matter, it is never counted; NaN would show a mistake where it can.
    fill = float("nan") if targets.is_floating_point() else 0
    missing = torch.full_like(targets[:horizon], fill)
    return (
        torch.cat([targets[horizon:], missing]),
        torch.cat([mask[horizon:], torch.zeros_like(mask[:horizon])]),
    )


def refuse_mixed(sequences: Ordered[Sequence]) -> None:
    """Sequences that run side by side must agree in features and dtype."""
    first = sequences[0]
    for index, other in enumerate(sequences):
        for name in ("inputs", "targets"):
            one, two = getattr(first, name), getattr(other, name)
            if one.shape[1:] != two.shape[1:] or one.dtype != two.dtype:
                raise ShapeError(
                    f"sequence {index} has {name} {list(two.shape)} of {two.dtype}, but sequence 0 "
                    f"has {list(one.shape)} of {one.dtype}: all must have the same features and "
                    "dtype."
                )
        if other.inputs.device != first.inputs.device:
            raise ShapeError(
                f"sequence {index} is on {other.inputs.device}, but sequence 0 is on "
                f"{first.inputs.device}: device= brings all of them to one."
            )
