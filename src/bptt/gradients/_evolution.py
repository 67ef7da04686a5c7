"""Evolution strategies: a gradient from losses alone.

I. Rechenberg (1973), H.-P. Schwefel (1977); as a gradient estimate D. Wierstra et al., Natural
evolution strategies, JMLR 15 (2014), and T. Salimans et al., Evolution strategies as a scalable
alternative to reinforcement learning (arXiv 1703.03864), with antithetic sampling:

    g = 1 / (2 σ N) · Σ_i (E(θ + σ ε_i) − E(θ − σ ε_i)) ε_i,      ε_i standard normal

Its mean is the gradient of E smoothed by a normal density of width σ: that of E itself where E is
quadratic in θ, else off by order σ².
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import OptionError, at_least
from bptt.gradients._problem import Problem
from bptt.gradients._resume import Place, begin, load, save
from bptt.gradients._update import Update
from bptt.gradients._window import add_gradient, advance, inspect
from bptt.gradients.forward._method import check_seed
from bptt.losses import Loss, StepLoss, step_loss
from bptt.network import Network
from bptt.state import State
from bptt.streams import Batch, Stream


@dataclass
class EvolutionStrategies:
    """The gradient of the cost over the whole sequence, or over each batch of whole sequences,
    estimated from its values at weights drawn around the present ones. Nothing goes back.

    Every member of the population is unfolded by itself, all lanes together: on the engine that
    is faster than members side by side (benchmarks/population.py).

    Args:
        pairs: N, how many directions are tried, each forward and backward.
        sigma: σ, the standard deviation of the weights tried.
        seed: of the directions; they depend on it, the epoch and the batch alone.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Raises:
        OptionError: an option is out of range.
    """

    pairs: int = 32
    sigma: float = 0.02
    seed: int = 0
    state: State | None = field(default=None, init=False, repr=False, compare=False)
    _place: Place | None = field(default=None, init=False, repr=False, compare=False)
    _saved: Place | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(1, pairs=self.pairs)
        check_seed(self.seed)
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise OptionError(f"sigma must be a finite number above 0, not {self.sigma}.")

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``, an update for each batch; see `GradientMethod`."""
        begun = self._saved
        batches, start = begin(network, stream, state, begun)
        self._saved = None
        return self._pass(network, step_loss(loss), stream, batches, start, begun)

    def _pass(
        self,
        network: Network,
        loss: StepLoss,
        stream: Stream,
        batches: Generator[Batch],
        start: State | None,
        begun: Place | None,
    ) -> Iterator[Update]:
        self._place = begun
        with closing(batches):
            for index, batch in enumerate(batches, 0 if begun is None else begun.batch + 1):
                problem = Problem(network, loss, batch.chunk(0, batch.length), start)
                chunk = problem.chunk
                seen = partial(inspect, network, loss, chunk.part, chunk.steps, 0, start)
                self.state = end = advance(network, chunk, start)
                count, start = int(chunk.mask.sum()), None
                if not (count or stream.is_part):
                    continue
                mixed = np.random.SeedSequence([self.seed, stream.epoch, index])
                seed = int(mixed.generate_state(1, np.uint64)[0]) >> 1
                value = self._estimate(problem, seed)
                self._place = Place.at(stream, index, batch)
                closure = partial(self._again, problem, seed)
                yield Update(value, count, 0, batch.length, index, end, closure, inspect=seen)
        self._place = None

    def _again(self, problem: Problem, seed: int) -> Tensor:
        problem.network.zero_grad()
        return torch.tensor(self._estimate(problem, seed), dtype=torch.float64)

    @torch.no_grad()
    def _estimate(self, problem: Problem, seed: int) -> float:
        """Add the estimate to ``.grad``; the loss at the present weights."""
        if not bool(problem.chunk.mask.any()):
            return 0.0
        weights = problem.parameters
        held = [w.clone() for w in weights]
        total = [torch.zeros_like(w) for w in weights]
        draws = torch.Generator().manual_seed(seed)
        try:
            for _ in range(self.pairs):
                direction = [torch.randn(w.shape, generator=draws).to(w) for w in weights]
                difference = 0.0
                for side in (1.0, -1.0):
                    for weight, middle, way in zip(weights, held, direction, strict=True):
                        weight.copy_(middle + side * self.sigma * way)
                    difference += side * problem.value()
                for sum_, way in zip(total, direction, strict=True):
                    sum_ += difference * way
        finally:
            for weight, middle in zip(weights, held, strict=True):
                weight.copy_(middle)
        for weight, sum_ in zip(weights, total, strict=True):
            add_gradient(weight, sum_ / (2 * self.sigma * self.pairs))
        return problem.value()

    def state_dict(self) -> dict[str, Any]:
        """The options and, in the middle of a pass, its last batch; see `Full.state_dict`."""
        return save(self, self._place)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where ``saved`` was taken; see `Full.load_state_dict`.

        Raises:
            OptionError: it was saved by another method, or with other options.
        """
        self.state, self._saved = load(self, saved)
        self._place = self._saved
