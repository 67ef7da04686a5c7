"""What training leaves behind, and what it shows while it runs."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

import torch

from bptt import files
from bptt.gradients import Update
from bptt.network import Network


@dataclass(frozen=True)
class Epoch:
    """One pass over the training stream.

    Attributes:
        epoch: from 1.
        loss: the training loss, sum over count of all updates (each with the weights of its time).
        validation: the validation loss with the weights at the epoch's end, or None.
        gradient_norm: the mean over updates of the gradient's Euclidean norm, before clipping.
        learning_rate: of the optimizer's first group, during the epoch.
        updates: how many updates were made.
        counted: how many steps counted in them.
        seconds: how long training took, validation left out.
        steps_per_second: steps unfolded in new windows, over seconds.
        withheld: updates that were not made because something was not finite.
    """

    epoch: int
    loss: float
    validation: float | None
    gradient_norm: float
    learning_rate: float
    updates: int
    counted: int
    seconds: float
    steps_per_second: float
    withheld: int = 0


@dataclass(frozen=True)
class Start:
    """One of several initialisations that training began from.

    Attributes:
        number: which; with the seed it determines everything about it.
        loss: the validation loss (training loss without validation) of the weights that it ended
            with; NaN where it failed.
        epoch: the epoch that these are of.
        losses: the same loss after every epoch.
        stop_reason: why it ended, in words.
        error: what it failed of, or None.
    """

    number: int
    loss: float = math.nan
    epoch: int = 0
    losses: tuple[float, ...] = ()
    stop_reason: str = ""
    error: str | None = None


@dataclass
class History:
    """The epochs of a training run and why it ended.

    Attributes:
        epochs: one record each, in order.
        initial_validation: the validation loss before the first update, or None.
        stop_reason: why training ended, in words.
        best_epoch: the epoch of the lowest validation loss (training loss without validation); 0
            where no epoch improved on the weights that training began with.
        restored: whether the network holds the weights of ``best_epoch``.
        start: of training from several starts, the number of the best one, which this is the
            history of; else None.
        starts: all of them, by number; empty without.
    """

    epochs: list[Epoch] = field(default_factory=list)
    initial_validation: float | None = None
    stop_reason: str = ""
    best_epoch: int = 0
    restored: bool = False
    start: int | None = None
    starts: list[Start] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def losses(self) -> list[float]:
        """The training loss of every epoch."""
        return [epoch.loss for epoch in self.epochs]

    @property
    def validations(self) -> list[float]:
        """The validation loss of every epoch that has one."""
        return [epoch.validation for epoch in self.epochs if epoch.validation is not None]

    @property
    def watched(self) -> list[float]:
        """What each epoch is judged by: its validation loss, or its training loss without."""
        return [
            epoch.loss if epoch.validation is None else epoch.validation for epoch in self.epochs
        ]

    def to_csv(self, path: str | Path) -> None:
        """Write the epochs as a table, one row each; an absent validation loss is left empty."""
        files.write_text(path, self.as_csv())

    def as_csv(self) -> str:
        """What `to_csv` writes."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(column.name for column in fields(Epoch))
        writer.writerows(
            ["" if value is None else value for value in astuple(epoch)] for epoch in self.epochs
        )
        return text.getvalue()


@dataclass
class Progress:
    """Where training stands: what callbacks and stopping criteria see.

    Attributes:
        network: as it is now.
        optimizer: as it is now.
        history: the epochs so far.
        epoch: the epoch at hand, from 1; 0 before the first.
        updates: updates made so far, over all epochs.
        elapsed: seconds since training began.
        update: the last update, or None before the first.
        gradient_norm: of the last update, before clipping.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    history: History
    epoch: int = 0
    updates: int = 0
    elapsed: float = 0.0
    update: Update | None = None
    gradient_norm: float = 0.0

    @property
    def watched(self) -> float | None:
        """The loss to judge by: the newest validation loss, or the training loss without any."""
        if not self.history.epochs:
            return self.history.initial_validation
        return self.history.watched[-1]
