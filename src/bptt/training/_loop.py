"""The loop over epochs and updates: what happens when, and what is remembered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bptt.errors import NonFiniteError, OptionError
from bptt.gradients import GradientMethod
from bptt.losses import Loss
from bptt.network import Network
from bptt.streams import Stream
from bptt.training._alone import Alone
from bptt.training._checkpoint import Saver
from bptt.training._history import History, Progress
from bptt.training._nonfinite import Recovery
from bptt.training._progress import Bar
from bptt.training._signals import Interrupted, Leave, Signals
from bptt.training._step import Stepper
from bptt.training._stopping import Patience, StoppingCriterion, TimeLimit
from bptt.training._tally import Best, Tally
from bptt.training._updates import Updates

Callback = Callable[[Progress], None]
"""Called after every epoch; one with an attribute ``every`` (a whole number) after so many updates
instead."""


@dataclass
class Loop:
    """One training run: the parts that `bptt.fit` has checked, and where training stands.

    Attributes:
        fingerprint: of the data, where they are to be recognised; else empty.
        tally: of the epoch at hand; None between epochs.
        saver: where checkpoints go, if anywhere.
    """

    network: Network
    train: Stream
    judge: Stream | None
    method: GradientMethod
    loss: Loss
    stepper: Stepper
    scheduler: Any
    callbacks: Sequence[Callback]
    criteria: list[StoppingCriterion]
    recovery: Recovery
    processes: Alone
    verbose: bool = False
    seed: int | None = None
    history: History = field(default_factory=History, init=False)
    progress: Progress = field(init=False)
    best: Best = field(init=False)
    fingerprint: dict[str, str] = field(default_factory=dict, init=False)
    tally: Tally | None = field(default=None, init=False)
    saver: Saver | None = field(default=None, init=False)
    updates: Updates = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.network, self.stepper.optimizer, self.history)
        restore = any(isinstance(c, Patience) and c.restore_best for c in self.criteria)
        self.best = Best(self.network if restore else None)
        self.updates = Updates(
            self.network,
            self.train,
            self.method,
            self.loss,
            self.stepper,
            self.progress,
            self.callbacks,
            self.criteria,
            self.recovery.policy,
            self.processes,
            self.verbose,
        )

    def run(self, bar: Bar, signals: Signals) -> History:
        """Epochs until a criterion answers.

        Raises:
            Interrupted: a signal was caught, and all is saved.
        """
        self.processes.began = time.perf_counter() - self.progress.elapsed
        self.processes.leave = signals.left
        self.processes.due = self._due
        try:
            if self.progress.epoch == 0:
                self._begin(signals)
            elif self.tally is None:
                self._asked_after_epoch()
            while not self.history.stop_reason:
                self._epoch(bar, signals)
        except Leave:
            assert self.saver is not None  # else no signals are taken in
            path = self.saver.save(self.progress.updates)
            caught = signals.caught or signal.SIGTERM  # another process caught it
            raise Interrupted(self._left_at(path), caught) from None
        self.history.best_epoch = self.best.epoch
        self.history.restored = self.best.restore()
        return self.history

    def _begin(self, signals: Signals) -> None:
        if self.judge is not None:
            with signals.immediate():
                self.history.initial_validation = self._validate()
            self.best.offer(self.history.initial_validation, 0)
        self.recovery.begin()
        for criterion in self.criteria:
            criterion.begin(self.progress)

    def _epoch(self, bar: Bar, signals: Signals) -> None:
        if self.tally is None:
            self.progress.epoch += 1
            self.tally = Tally(float(self.stepper.optimizer.param_groups[0]["lr"]))
        # In the middle of an epoch that was saved the criteria are asked again: what they were
        # given may have changed.
        if not (self.tally.done or (self.tally.updates and self._stop_after_update())):
            self._updates(self.tally, bar)
        if not (self.tally.updates or self.tally.withheld):
            raise OptionError(
                "the stream gave no update: none of its steps counts (mask, burn_in and horizon "
                "leave none)."
            )
        score = None
        if self.judge is not None:
            with signals.immediate():
                score = self._validate()
        self.history.epochs.append(self.tally.record(self.progress.epoch, score))
        self.best.offer(self.tally.loss if score is None else score, self.progress.epoch)
        self.tally = None
        bar.end_of_epoch(self.history.epochs[-1])
        self._schedule()
        for callback in self.callbacks:
            if not getattr(callback, "every", None):
                callback(self.progress)
        if not self.history.stop_reason:
            self._asked_after_epoch()

    def _updates(self, tally: Tally, bar: Bar) -> None:
        """What is left of the pass; after an update that was withheld it is taken up again."""
        self.network.train()
        started = time.perf_counter() - tally.seconds
        while not tally.done:
            try:
                if self._pass(tally, started, bar):
                    return
                tally.done = True
            except NonFiniteError as error:
                self.recovery.handle(error, self.method)
                tally.withheld += 1
                tally.seconds = time.perf_counter() - started
                self._save_if_due()

    def _pass(self, tally: Tally, started: float, bar: Bar) -> bool:
        """Updates to the end of the pass, or until a criterion answers: whether one did."""
        self.updates.saver, self.updates.late = self.saver, self._late
        with closing(self.updates.of_epoch()) as updates:
            for done in updates:
                self.recovery.note(self.progress.updates)
                tally.add(done, self.processes.lanes(done.update))
                now = time.perf_counter()
                tally.seconds, self.progress.elapsed = now - started, self.processes.elapsed
                bar.show(self.progress, tally.steps, tally.loss, done.norm)
                for callback in self.callbacks:
                    every = getattr(callback, "every", None)
                    if every and self.progress.updates % every == 0:
                        callback(self.progress)
                if self._stop_after_update():
                    return True
                self._save_if_due()
        return False

    def _stop_after_update(self) -> bool:
        if self._stop(lambda criterion: criterion.after_update(self.progress)):
            # What follows of this epoch is done again, with the criteria's answer, by a run that
            # goes on from here.
            self._save()
            return True
        return False

    def _asked_after_epoch(self) -> None:
        if self._stop(lambda criterion: criterion.after_epoch(self.progress)):
            self._save()
        else:
            self._save_if_due()

    def _save_if_due(self) -> None:
        if self.processes.leaving():
            raise Leave
        if self.processes.saving():
            self._save()

    def _due(self) -> bool:
        return self.saver is not None and self.saver.due(self.progress.updates)

    def _save(self) -> None:
        if self.saver is not None:
            self.saver.save(self.progress.updates)

    def _left_at(self, path: Path) -> str:
        return (
            f"stopped after update {self.progress.updates}, in epoch {self.progress.epoch}, and "
            f"saved in {path}. The same call with resume=True goes on from there."
        )

    def _validate(self) -> float:
        assert self.judge is not None
        return self.processes.evaluate(self.network, self.judge, self.loss)

    def _schedule(self) -> None:
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            watched = self.progress.watched
            assert watched is not None  # an epoch has just been recorded
            self.scheduler.step(watched)
        elif self.scheduler is not None:
            self.scheduler.step()

    def _late(self) -> bool:
        """Whether a time limit has passed, in the middle of an update."""
        self.progress.elapsed = time.perf_counter() - self.processes.began
        limits = [c for c in self.criteria if isinstance(c, TimeLimit)]
        return any(limit.after_update(self.progress) is not None for limit in limits)

    def _stop(self, ask: Callable[[StoppingCriterion], str | None]) -> bool:
        for criterion in self.criteria:
            reason = ask(criterion)
            if reason is not None:
                self.history.stop_reason = reason
                return True
        return False
