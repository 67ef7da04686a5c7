"""Where a stream stands, as numbers and strings, and whether another can stand there."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from bptt.errors import DataError
from bptt.streams._plan import Plan
from bptt.streams._source import Source


def position(source: Source, plan: Plan, horizon: int, epoch: int) -> dict[str, Any]:
    """The epoch, what its order and lanes depend on, and check sums of lengths and order."""
    lengths = source.lengths
    return {
        "epoch": epoch,
        "order": _checksum(plan.order(len(lengths), epoch)),
        "sequences": len(lengths),
        "steps": sum(lengths) * source.lanes,
        "lengths": _checksum(lengths),
        "lanes": plan.lanes,
        "batch": plan.batch,
        "horizon": horizon,
        "burn_in": plan.burn_in,
        "shuffle": plan.shuffle,
    }


def epoch_of(saved: dict[str, Any], source: Source, plan: Plan, horizon: int) -> int:
    """The epoch of a saved position, if it is one of the same stream.

    Raises:
        DataError: the data, their lanes or their order are others.
    """
    if "epoch" not in saved:
        raise DataError(f"this is no state of a stream: it holds {', '.join(map(repr, saved))}.")
    epoch = int(saved["epoch"])
    here = position(source, plan, horizon, epoch)
    order = here.pop("order")
    for name, value in here.items():
        if saved.get(name) != value:
            raise DataError(
                f"the saved stream had {name}={saved.get(name)!r}, this one has {value!r}: make "
                "it of the same data with the same options."
            )
    if saved["order"] != order:
        raise DataError(
            f"shuffle={plan.shuffle} draws another order than the saved stream had: was it saved "
            "under another version of PyTorch?"
        )
    return epoch


def _checksum(numbers: list[int]) -> int:
    return zlib.crc32(np.asarray(numbers, dtype=np.int64).tobytes())
