"""What ``bptt fit`` needs of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from bptt.runs import Made
from bptt.training import Checkpoint

R = TypeVar("R")

Resume = bool | Literal["force"]


@dataclass(frozen=True)
class Ready(Generic[R]):
    """A job whose data are read and checked.

    Attributes:
        train: from whether to show a bar, where and how often to save, and whether to go on from
            there, to the result.
        show: the result, on the terminal.
        made: the run that is to be written.
        skilled: whether a result is better than the simplest model, as far as the task asks.
    """

    train: Callable[[bool, Checkpoint | None, Resume], R]
    show: Callable[[R], None]
    made: Callable[[R], Made]
    skilled: Callable[[R], bool] = lambda _: True
