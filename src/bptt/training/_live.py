"""The steps that an online learner still needs: a buffer that moves along with live data."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError, ShapeError
from bptt.streams import Chunk

_core: Any = None
if importlib.util.find_spec("bptt._core") is not None:
    from bptt import _core


@dataclass
class _Standing:
    """`bptt._core.Standing` where the core is missing."""

    steps: int = 0
    updates: int = 0
    start: int = 0
    reached: int = 0
    loss: float = float("nan")
    gradient_norm: float = float("nan")


def standing() -> Any:
    """Where a learner of live data stands: steps read, updates made, the first step of the next
    window, the step that windows have reached, loss and gradient norm of the last update."""
    return _Standing() if _core is None else _core.Standing()


class LiveBatch:
    """The newest steps of an endless batch; see `bptt.streams.Batch`.

    ``inputs`` [capacity, lanes, ...], ``targets`` and ``mask``, all on ``device``, hold the steps
    from ``base`` on, of which ``read`` inputs have arrived. ``rows``: how the core writes
    "inputs" and "targets".
    """

    def __init__(self, lanes: int, capacity: int, device: torch.device) -> None:
        self.lanes, self.capacity, self.device = lanes, capacity, device
        self.base = self.read = 0
        self.inputs: Tensor | None = None
        self.targets: Tensor | None = None
        self.rows: dict[str, Any] = {}
        self.mask = torch.zeros(capacity, lanes, dtype=torch.bool, device=device)

    @property
    def length(self) -> int:
        """It never ends."""
        return 1 << 60

    def held(self, steps: int) -> int:
        """The bytes of the buffer."""
        buffers = (self.inputs, self.targets, self.mask)
        return sum(buffer.nbytes for buffer in buffers if buffer is not None)

    def open(self, name: str, row: Tensor) -> Tensor:
        """A buffer, "inputs" or "targets", for rows like this one."""
        buffer = row.new_zeros((self.capacity, *row.shape))
        setattr(self, name, buffer)
        if _core is not None and buffer.device.type == "cpu":
            self.rows[name] = _core.Rows(buffer)
        return buffer

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``, which must be here."""
        assert self.inputs is not None
        at = slice(start - self.base, stop - self.base)
        targets = self.inputs if self.targets is None else self.targets
        mask = self.mask[at]
        return Chunk(self.inputs[at], targets[at], mask, torch.zeros_like(mask), None)

    def forget(self, needed: int) -> None:
        """Make room by letting go of the steps before ``needed``."""
        gone = min(needed, self.read) - self.base
        kept = self.read - self.base - gone
        for buffer in (self.inputs, self.targets, self.mask):
            if buffer is not None:
                buffer[:kept] = buffer[gone : gone + kept].clone()
        self.mask[kept:] = False
        self.base += gone

    def put(self, number: int, input: Tensor) -> None:
        """The input of a step."""
        inputs = self.open("inputs", input) if self.inputs is None else self.inputs
        inputs[number - self.base].copy_(input)

    def compare(self, number: int, target: Tensor) -> None:
        """What the prediction after a step is compared with."""
        targets = self.open("targets", target) if self.targets is None else self.targets
        targets[number - self.base].copy_(target)
        self.mask[number - self.base] = True


def as_row(value: Any, name: str, lanes: int, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A step's values [lanes, ...], and whether they came without the lane.

    Raises:
        ShapeError: the lanes are missing or others.
    """
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.is_floating_point() or tensor.dtype is torch.bool:
        tensor = tensor.to(dtype)
    alone = lanes == 1 and tensor.dim() < 2
    if alone:
        floating = tensor.is_floating_point()
        tensor = tensor.reshape(1, -1) if floating else tensor.reshape(1, *tensor.shape[:0])
    elif tensor.dim() == 0 or tensor.shape[0] != lanes:
        raise ShapeError(
            f"{name} of a step must be [{lanes}, ...], one row for each lane, not "
            f"{list(tensor.shape)}."
        )
    return tensor, alone


def check_row(row: Tensor, buffer: Tensor | None, name: str) -> None:
    """Refuse a step unlike those before it, or one that holds no numbers.

    Raises:
        ShapeError: its shape or dtype is another.
        DataError: NaN or infinity.
    """
    if buffer is not None and (row.shape != buffer.shape[1:] or row.dtype is not buffer.dtype):
        raise ShapeError(
            f"{name} were {list(buffer.shape[1:])} of {buffer.dtype} so far, now "
            f"{list(row.shape)} of {row.dtype}."
        )
    if row.is_floating_point() and not bool(row.isfinite().all()):
        raise DataError(f"{name} of this step hold NaN or infinity.")
