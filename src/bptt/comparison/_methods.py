"""The training methods that have a name: a gradient method and what moves the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bptt.errors import OptionError, nearest
from bptt.gradients import (
    RTRL,
    UORO,
    EvolutionStrategies,
    Focused,
    Full,
    GradientMethod,
    SlidingWindow,
    Truncated,
)
from bptt.losses import Loss, step_loss
from bptt.network import Network
from bptt.optimize import CMAES, LeastSquares, SciPy
from bptt.streams import Stream

MakeOptimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Rival:
    """A way of training.

    Attributes:
        name: in tables and pictures.
        method: how the gradient is found.
        optimizer: of the parameters, as `bptt.fit` takes it.
        clip: the norm of the gradient, as `bptt.fit` takes it.
    """

    name: str
    method: GradientMethod
    optimizer: MakeOptimizer
    clip: float | None = None


def _adam(rate: float) -> MakeOptimizer:
    return partial(torch.optim.Adam, lr=rate)


def _rivals(depth: int, rate: float) -> list[Rival]:
    first = [
        Rival("full", Full(), _adam(rate), 1.0),
        Rival("truncated", Truncated(depth), _adam(rate), 1.0),
        Rival("sliding-window", SlidingWindow(depth), _adam(rate / 10), 1.0),
        Rival("rtrl", RTRL(depth), _adam(rate), 1.0),
        Rival("uoro", UORO(depth), _adam(rate / 10), 1.0),
        Rival("focused", Focused(depth), _adam(rate), 1.0),
    ]
    return [
        *first,
        Rival("evolution", EvolutionStrategies(), _adam(rate)),
        Rival("cma-es", Full(), CMAES(generations=2)),
        Rival("l-bfgs", Full(), SciPy("L-BFGS-B", 5)),
        Rival("trust-region", Full(), SciPy("trust-ncg", 2)),
        Rival("levenberg-marquardt", Full(), LeastSquares("lm", 60)),
        Rival("least-squares", Full(), LeastSquares("trf", 12)),
    ]


METHODS = tuple(rival.name for rival in _rivals(1, 0.01))
"""The names that `bptt.compare` knows."""


def chosen(methods: Sequence[str | Rival], depth: int, rate: float) -> list[Rival]:
    """Methods by name, or as they are.

    Raises:
        OptionError: there is none, a name is unknown, or one comes twice.
    """
    known = {rival.name: rival for rival in _rivals(depth, rate)}
    found = []
    for one in methods:
        if isinstance(one, Rival):
            found.append(one)
        elif one in known:
            found.append(known[one])
        else:
            raise OptionError(f"method {one!r} is unknown.{nearest(str(one), list(known))}")
    names = [rival.name for rival in found]
    if not names:
        raise OptionError(f"no method is given.{nearest('', list(known))}")
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"method {name!r} is given {names.count(name)} times.")
    return found


def refuse_unfit(rival: Rival, network: Network, stream: Stream, loss: Loss) -> None:
    """Refuse a method that does not go with the data, before any work.

    Raises:
        OptionError, CellError, DataError: with what would.
    """
    longest = max(batch.length for batch in stream.in_order())
    depth = getattr(rival.method, "depth", None)
    if depth is not None and depth > longest:
        raise OptionError(
            f"{rival.name} of depth {depth} reaches beyond the {longest} steps of the data, where "
            "it is full backpropagation: give a smaller depth, or take 'full'."
        )
    least = isinstance(rival.optimizer, LeastSquares)
    if least and step_loss(loss) is not step_loss("mse"):
        raise OptionError(
            f"{rival.name} minimises squared errors, and the loss is {loss!r}: take 'l-bfgs', "
            "'full' or any other method."
        )
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    residuals = stream.counted * stream.target_size
    if least and getattr(rival.optimizer, "method", "") == "lm" and residuals < weights:
        raise OptionError(
            f"{rival.name} needs as many residuals as weights, and there are {residuals} for "
            f"{weights}: take 'least-squares' or 'l-bfgs', or a smaller network."
        )
    rival.method.updates(network, loss, stream)
    rival.optimizer(network.parameters())  # a package that is not installed is missed here
