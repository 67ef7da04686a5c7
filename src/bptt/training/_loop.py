"""The loop over epochs and updates: what happens when, and what is remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bptt.errors import OptionError
from bptt.gradients import GradientMethod
from bptt.losses import Loss
from bptt.network import Network
from bptt.streams import Stream
from bptt.training._evaluate import evaluate
from bptt.training._history import History, Progress
from bptt.training._progress import Bar
from bptt.training._step import Stepper
from bptt.training._stopping import Patience, StoppingCriterion
from bptt.training._tally import Best, Tally

Callback = Callable[[Progress], None]
"""Called after every epoch; one with an attribute ``every`` (a whole number) after so many updates
instead."""


@dataclass
class Loop:
    """One training run: the parts that `bptt.fit` has checked, and where training stands."""

    network: Network
    train: Stream
    judge: Stream | None
    method: GradientMethod
    loss: Loss
    stepper: Stepper
    scheduler: Any
    callbacks: Sequence[Callback]
    criteria: list[StoppingCriterion]
    history: History = field(default_factory=History, init=False)
    progress: Progress = field(init=False)
    best: Best = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.network, self.stepper.optimizer, self.history)
        restore = any(isinstance(c, Patience) and c.restore_best for c in self.criteria)
        self.best = Best(self.network if restore else None)

    def run(self, bar: Bar) -> History:
        """Epochs until a criterion answers."""
        began = time.perf_counter()
        if self.judge is not None:
            self.history.initial_validation = self._validate()
            self.best.offer(self.history.initial_validation, 0)
        for criterion in self.criteria:
            criterion.begin(self.progress)
        while not self.history.stop_reason:
            self.progress.epoch += 1
            self._epoch(bar, began)
        self.history.best_epoch = self.best.epoch
        self.history.restored = self.best.restore()
        return self.history

    def _epoch(self, bar: Bar, began: float) -> None:
        self.network.train()
        rate = float(self.stepper.optimizer.param_groups[0]["lr"])
        tally = Tally()
        started = time.perf_counter()
        for update in self.method.updates(self.network, self.loss, self.train):
            norm = self.stepper.apply(update, self.progress)
            tally.add(update, norm)
            self.progress.elapsed = time.perf_counter() - began
            bar.show(self.progress, tally.steps, tally.loss, norm)
            for callback in self.callbacks:
                every = getattr(callback, "every", None)
                if every and self.progress.updates % every == 0:
                    callback(self.progress)
            if self._stop(lambda criterion: criterion.after_update(self.progress)):
                break
        seconds = time.perf_counter() - started
        if not tally.updates:
            raise OptionError(
                "the stream gave no update: none of its steps counts (mask, burn_in and horizon "
                "leave none)."
            )
        score = None if self.judge is None else self._validate()
        self.history.epochs.append(tally.record(self.progress.epoch, score, rate, seconds))
        self.best.offer(tally.loss if score is None else score, self.progress.epoch)
        bar.end_of_epoch(self.history.epochs[-1])
        self._schedule()
        for callback in self.callbacks:
            if not getattr(callback, "every", None):
                callback(self.progress)
        if not self.history.stop_reason:
            self._stop(lambda criterion: criterion.after_epoch(self.progress))

    def _validate(self) -> float:
        assert self.judge is not None
        return evaluate(self.network, self.judge, self.loss).loss

    def _schedule(self) -> None:
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            watched = self.progress.watched
            assert watched is not None  # an epoch has just been recorded
            self.scheduler.step(watched)
        elif self.scheduler is not None:
            self.scheduler.step()

    def _stop(self, ask: Callable[[StoppingCriterion], str | None]) -> bool:
        for criterion in self.criteria:
            reason = ask(criterion)
            if reason is not None:
                self.history.stop_reason = reason
                return True
        return False
