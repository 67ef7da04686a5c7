"""`fit`: the training loop. How the gradient is found is the method's business, how the weights
change the optimizer's, when it ends the stopping criteria's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from bptt.errors import NonFiniteError, OptionError
from bptt.gradients import Full, GradientMethod, Update
from bptt.gradients._update import check_stream
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable
from bptt.state import leaves
from bptt.streams import Stream
from bptt.training._evaluate import evaluate
from bptt.training._history import Epoch, History, Progress
from bptt.training._progress import Bar
from bptt.training._stopping import Epochs, Patience, StoppingCriterion

Callback = Callable[[Progress], None]
"""Called after every epoch; one with an attribute ``every`` (a whole number) after so many updates
instead."""


def fit(
    network: Network,
    stream: Stream,
    *,
    method: GradientMethod | None = None,
    loss: Loss = "mse",
    optimizer: torch.optim.Optimizer
    | Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
    | None = None,
    epochs: int = 100,
    validation: Stream | float | None = None,
    stop: StoppingCriterion | Sequence[StoppingCriterion] = (),
    clip: float | None = None,
    scheduler: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
) -> History:
    """Train ``network`` on ``stream``.

    Args:
        network: the cell and its readout; trained in place.
        stream: the ordered data.
        method: how the gradient is found: `Full` (the default), `Truncated`, `SlidingWindow`, or
            anything with their ``updates``.
        loss: ``"mse"``, ``"mae"``, ``"huber"``, ``"cross_entropy"``, or a function
            ``(prediction, target) -> [steps, lanes]`` or ``[steps, lanes, features]``.
        optimizer: any of `torch.optim`, or a function that makes one of the parameters; default:
            Adam with a learning rate of 0.001. `torch.optim.LBFGS` gets each update's closure.
        epochs: passes over the stream, at most.
        validation: a stream to judge by after every epoch, or a share of ``stream``, which is
            then split off its end.
        stop: further stopping criteria; the first that answers ends training.
        clip: scale the gradient of each update down to this Euclidean norm, over all parameters
            together, where it is larger.
        scheduler: of `torch.optim.lr_scheduler`, stepped after every epoch
            (``ReduceLROnPlateau`` with the validation loss, else the training loss).
        callbacks: functions of `Progress`, called after every epoch, or after every so many
            updates where they have an attribute ``every``.
        progress: show a bar with loss, gradient norm and speed.
        seed: of what is random while training (dropout); the caller's generator is left alone.

    Returns:
        The history, with the reason for the stop.

    Raises:
        OptionError: an option is unknown, out of range, or does not go with another.
        NonFiniteError: a loss or gradient became NaN or infinite; that update was withheld.
    """
    check_trainable(network)
    step_loss(loss)
    train, judge = _parts(stream, validation)
    maker = optimizer if optimizer is not None else torch.optim.Adam
    optim = maker if isinstance(maker, torch.optim.Optimizer) else maker(network.parameters())
    _check_optimizer(network, optim, clip)
    criteria = [stop] if isinstance(stop, StoppingCriterion) else list(stop)
    loop = _Loop(
        network,
        train,
        judge,
        Full() if method is None else method,
        loss,
        optim,
        clip,
        scheduler,
        callbacks,
        [Epochs(epochs), *criteria],
    )
    bar = Bar(train.steps, epochs, enabled=progress)
    mode = network.training
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            return loop.run(bar)
        finally:
            bar.close()
            network.train(mode)


def _parts(stream: Stream, validation: Stream | float | None) -> tuple[Stream, Stream | None]:
    check_stream(stream)
    if validation is None or isinstance(validation, Stream):
        return stream, validation
    if isinstance(validation, bool) or not isinstance(validation, float):
        raise OptionError(
            f"validation= takes a Stream or a share between 0 and 1, not {validation!r}."
        )
    train, judge = stream.split(1 - validation)
    return train, judge


def _check_optimizer(
    network: Network, optimizer: torch.optim.Optimizer, clip: float | None
) -> None:
    own = {id(p) for p in network.parameters() if p.requires_grad}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise OptionError(
            "the optimizer holds no parameter of the network that is to be trained: make it of "
            "network.parameters(), after the network is on its device."
        )
    if clip is None:
        return
    if not clip > 0:
        raise OptionError(f"clip must be above 0, not {clip}.")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise OptionError("clip does not go with L-BFGS, whose line search needs the gradient.")


class _Loop:
    """One training run."""

    def __init__(
        self,
        network: Network,
        train: Stream,
        judge: Stream | None,
        method: GradientMethod,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        clip: float | None,
        scheduler: Any,
        callbacks: Sequence[Callback],
        criteria: list[StoppingCriterion],
    ) -> None:
        self.network, self.train, self.judge = network, train, judge
        self.method, self.loss, self.optimizer = method, loss, optimizer
        self.clip, self.scheduler, self.criteria = clip, scheduler, criteria
        self.by_update = [c for c in callbacks if getattr(c, "every", None)]
        self.by_epoch = [c for c in callbacks if not getattr(c, "every", None)]
        self.history = History()
        self.progress = Progress(network, optimizer, self.history)
        restore = any(isinstance(c, Patience) and c.restore_best for c in criteria)
        self.best = _Best(network if restore else None)

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
        rate = float(self.optimizer.param_groups[0]["lr"])
        tally = _Tally()
        started = time.perf_counter()
        for update in self.method.updates(self.network, self.loss, self.train):
            norm = self._update(update)
            tally.add(update, norm)
            self.progress.elapsed = time.perf_counter() - began
            bar.show(self.progress, tally.steps, tally.loss, norm)
            for callback in self.by_update:
                if self.progress.updates % callback.every == 0:  # type: ignore[attr-defined]
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
        for callback in self.by_epoch:
            callback(self.progress)
        if not self.history.stop_reason:
            self._stop(lambda criterion: criterion.after_epoch(self.progress))

    def _update(self, update: Update) -> float:
        """Check, clip, step, clear; the gradient's norm before clipping."""
        norm = self._norm()
        if not (torch.isfinite(torch.tensor(update.loss)) and torch.isfinite(torch.tensor(norm))):
            self.optimizer.zero_grad()
            raise NonFiniteError(_where_nonfinite(update, norm, self.progress))
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(update.closure)  # type: ignore[no-untyped-call]  # untyped in torch
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.update, self.progress.gradient_norm = update, norm
        self.progress.updates += 1
        return norm

    def _norm(self) -> float:
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        if self.clip is not None:
            return float(torch.nn.utils.clip_grad_norm_(parameters, self.clip))
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

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


class _Tally:
    """The sums over the updates of an epoch."""

    def __init__(self) -> None:
        self.total = self.norms = 0.0
        self.counted = self.updates = self.steps = 0
        self._place = (-1, 0)

    def add(self, update: Update, norm: float) -> None:
        self.total += update.loss * update.count
        self.counted += update.count
        self.norms += norm
        self.updates += 1
        batch, reached = self._place
        new = update.stop - (reached if update.batch == batch else 0)
        self.steps += new * leaves(update.state)[0].shape[0]
        self._place = (update.batch, update.stop)

    @property
    def loss(self) -> float:
        return self.total / self.counted

    def record(self, epoch: int, validation: float | None, rate: float, seconds: float) -> Epoch:
        return Epoch(
            epoch,
            self.loss,
            validation,
            self.norms / self.updates,
            rate,
            self.updates,
            self.counted,
            seconds,
            self.steps / seconds,
        )


class _Best:
    """The epoch of the lowest loss, and its weights where they are to be restored."""

    def __init__(self, network: Network | None) -> None:
        self.network = network
        self.loss = float("inf")
        self.epoch = 0
        self.weights: dict[str, Tensor] | None = None

    def offer(self, loss: float, epoch: int) -> None:
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            if self.network is not None:
                state = self.network.state_dict()
                self.weights = {name: value.detach().clone() for name, value in state.items()}

    def restore(self) -> bool:
        if self.network is None or self.weights is None:
            return False
        self.network.load_state_dict(self.weights)
        return True


def _where_nonfinite(update: Update, norm: float, progress: Progress) -> str:
    what = f"loss {update.loss}" if update.loss - update.loss != 0 else f"gradient norm {norm}"
    bad = sorted(
        {
            lane
            for leaf in leaves(update.state)
            for lane in (~torch.isfinite(leaf.flatten(1))).any(dim=1).nonzero().flatten().tolist()
        }
    )
    lanes = f", non-finite state in lane(s) {', '.join(map(str, bad))}" if bad else ""
    return (
        f"{what} in epoch {progress.epoch}, update {progress.updates + 1}, steps {update.start} to "
        f"{update.stop - 1} of batch {update.batch}{lanes}. The update was withheld. A smaller "
        "learning rate, clip=1.0, or scaled data usually mend it."
    )
