"""Where the loop's finished updates come from: one by one through PyTorch, or in whole stretches
from the core."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bptt.gradients import GradientMethod
from bptt.losses import Loss
from bptt.network import Network
from bptt.streams import Stream
from bptt.training._alone import Alone
from bptt.training._checkpoint import Saver
from bptt.training._eligible import why_not
from bptt.training._history import Progress
from bptt.training._native import SECONDS, STEPS, Pass
from bptt.training._step import Stepper
from bptt.training._stopping import StoppingCriterion, TimeLimit
from bptt.training._tally import Stretch


@dataclass
class Updates:
    """The updates of one training run, epoch by epoch.

    Attributes:
        callbacks: as of `bptt.fit`; some are due after so many updates.
        on_nonfinite: what happens to an update that is not finite, as of `bptt.fit`.
        processes: those that train together.
        verbose: whether to print how updates are made.
        saver: where checkpoints go, if anywhere.
        late: whether a time limit has passed, asked in the middle of long updates.
    """

    network: Network
    stream: Stream
    method: GradientMethod
    loss: Loss
    stepper: Stepper
    progress: Progress
    callbacks: Sequence[Any]
    criteria: Sequence[StoppingCriterion]
    on_nonfinite: str
    processes: Alone
    verbose: bool = False
    saver: Saver | None = None
    late: Callable[[], bool] | None = None
    _said: str | None = field(default=None, init=False)

    def of_epoch(self) -> Generator[Stretch]:
        """One pass over the stream, or what is left of it; the updates are in ``progress``."""
        reason = self._why_not()
        if reason is None:
            native = self._native()
            for stretch in native.stretches():
                self._say("updates are made in the core, in stretches")
                progress = self.progress
                progress.update, progress.gradient_norm = stretch.update, stretch.norm
                progress.updates += len(stretch.norms)
                yield stretch
            reason = native.refused
            if reason is None:
                return
        self._say(f"updates are made one by one through PyTorch: {reason}")
        updates = self.method.updates(self.network, self.loss, self.stream)
        for update in self.processes.in_step(updates):
            yield Stretch.of(update, self.stepper.apply(update, self.progress, self.late))

    def _why_not(self) -> str | None:
        if self.processes.world > 1:
            return "several processes share every update"
        if self.on_nonfinite != "stop":
            return f"on_nonfinite={self.on_nonfinite!r} looks back at every update"
        if self.stepper.clip_value is not None:
            return "clip_value= clips the numbers of the gradient"
        return why_not(self.network, self.method, self.loss, self.stepper.optimizer)

    def _native(self) -> Pass:
        assert isinstance(self.loss, str)
        return Pass(
            self.network,
            self.method,
            self.loss,
            self.stepper.optimizer,
            self.stepper.clip,
            self.stream,
            self._limits,
        )

    def _limits(self) -> tuple[int, float]:
        """Up to when nobody needs to be asked: updates, and seconds."""
        done = self.progress.updates
        every = [n for c in self.callbacks if (n := getattr(c, "every", None))]
        most = min([STEPS, *(n - done % n for n in every)])
        if self.saver is not None:
            most = min(most, self.saver.left(done))
        seconds = SECONDS
        for criterion in self.criteria:
            if isinstance(criterion, TimeLimit):
                left = criterion.seconds - self.processes.elapsed
                seconds = min(seconds, max(left, 0.0))
            elif type(criterion).after_update is not StoppingCriterion.after_update:
                most = 1
        return most, seconds

    def _say(self, how: str) -> None:
        if self.verbose and how != self._said:
            print(how)
        self._said = how
