"""Stopping criteria: objects that say, in words, why training should end."""

from __future__ import annotations

import math
from typing import Any

from bptt.errors import OptionError, at_least
from bptt.training._history import Progress


class StoppingCriterion:
    """Asked after every update and every epoch; an answer other than None ends training, and is
    the history's ``stop_reason``. Subclasses override what they need.

    When a saved run goes on, the criteria are asked once more about the update or epoch that it
    was saved after; the answer must be the same.
    """

    def begin(self, progress: Progress) -> None:
        """Training begins: forget what an earlier run left."""

    def after_update(self, progress: Progress) -> str | None:
        """Whether to stop now, in the middle of an epoch."""
        return None

    def after_epoch(self, progress: Progress) -> str | None:
        """Whether to stop after this epoch; its record is the history's last."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What later answers depend on, for a checkpoint: numbers, strings and tensors."""
        return {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``saved`` was taken."""


class Epochs(StoppingCriterion):
    """Stop after ``count`` epochs."""

    def __init__(self, count: int) -> None:
        at_least(1, epochs=count)
        self.count = count

    def after_epoch(self, progress: Progress) -> str | None:
        """The last epoch is done."""
        return f"{self.count} epochs done" if progress.epoch >= self.count else None


class Patience(StoppingCriterion):
    """Stop when the validation loss (the training loss without validation) has not improved for
    ``epochs`` epochs.

    Args:
        epochs: how long to wait.
        min_delta: by how much a loss must fall to count as better.
        restore_best: give the network the weights of the best epoch when training ends, for
            whatever reason; with validation, the weights before the first epoch take part.
    """

    def __init__(
        self, epochs: int = 10, *, min_delta: float = 0.0, restore_best: bool = False
    ) -> None:
        at_least(1, epochs=epochs)
        if not min_delta >= 0:
            raise OptionError(f"min_delta must be at least 0, not {min_delta}.")
        self.epochs = epochs
        self.min_delta = min_delta
        self.restore_best = restore_best
        self._best = math.inf
        self._since = 0

    def begin(self, progress: Progress) -> None:
        """The loss to improve on is that of the weights given."""
        self._best = math.inf if progress.watched is None else progress.watched
        self._since = 0

    def after_epoch(self, progress: Progress) -> str | None:
        """Count the epochs without an improvement."""
        watched = progress.watched
        if watched is not None and watched < self._best - self.min_delta:
            self._best, self._since = watched, progress.epoch
        if progress.epoch - self._since < self.epochs:
            return None
        return f"no better loss than {self._best:.6g} for {self.epochs} epochs"

    def state_dict(self) -> dict[str, Any]:
        """The best loss, and the epoch it was of."""
        return {"best": self._best, "since": self._since}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Wait on from there."""
        self._best, self._since = saved["best"], saved["since"]


class TargetLoss(StoppingCriterion):
    """Stop when the validation loss (the training loss without validation) is at most ``value``."""

    def __init__(self, value: float) -> None:
        if not math.isfinite(value):
            raise OptionError(f"the target loss must be a finite number, not {value}.")
        self.value = value

    def after_epoch(self, progress: Progress) -> str | None:
        """The loss has reached the target."""
        watched = progress.watched
        if watched is None or watched > self.value:
            return None
        return f"loss {watched:.6g} reached the target {self.value:.6g}"


class TimeLimit(StoppingCriterion):
    """Stop after the first update that ends later than ``seconds`` after training began."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise OptionError(f"the time limit must be above 0 seconds, not {seconds}.")
        self.seconds = seconds

    def after_update(self, progress: Progress) -> str | None:
        """The time is over."""
        return f"{self.seconds:g} seconds are over" if progress.elapsed >= self.seconds else None


class GradientNorm(StoppingCriterion):
    """Stop after an epoch whose mean gradient norm, before clipping, is at most ``below``."""

    def __init__(self, below: float) -> None:
        if not below > 0:
            raise OptionError(f"the gradient norm to stop at must be above 0, not {below}.")
        self.below = below

    def after_epoch(self, progress: Progress) -> str | None:
        """The gradient is small enough."""
        norm = progress.history.epochs[-1].gradient_norm
        return f"gradient norm {norm:.3g} is below {self.below:.3g}" if norm <= self.below else None
