"""`fit`: the training loop. How the gradient is found is the method's business, how the weights
change the optimizer's, when it ends the stopping criteria's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from bptt.errors import OptionError
from bptt.gradients import Full, GradientMethod
from bptt.gradients._update import check_stream
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable
from bptt.streams import Stream
from bptt.training._history import History
from bptt.training._loop import Callback, Loop
from bptt.training._progress import Bar
from bptt.training._step import Stepper
from bptt.training._stopping import Epochs, StoppingCriterion


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
    criteria = [stop] if isinstance(stop, StoppingCriterion) else list(stop)
    loop = Loop(
        network,
        train,
        judge,
        Full() if method is None else method,
        loss,
        Stepper(network, optim, clip),
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
