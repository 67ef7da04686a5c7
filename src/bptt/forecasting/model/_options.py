"""What can be chosen when a forecaster is trained, with the defaults that work well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from bptt.errors import DataError, OptionError, above_zero, at_least, at_most, is_number, one_of
from bptt.gradients import Full, GradientMethod, SlidingWindow, Truncated
from bptt.training import POLICIES

CELLS = ("auto", "gru", "lstm", "elman", "leaky", "state-space")
METHODS = ("truncated", "full", "sliding-window")
LOSSES = ("mse", "mae", "huber")
LEARNING_RATES = {"adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "sgd": 1e-2, "lbfgs": 1.0}
"""The optimizers by name, and the learning rate of each where none is given."""

SIMULATION_RATE = 1e-2
"""In the place of adam's and adamw's, of simulations."""

STEPS, LEAST, MOST = 2 * 10**6, 200, 2000
"""Simulations train for as many epochs as make so many steps, within these."""


@dataclass(frozen=True)
class Options:
    """How a forecaster is built and trained.

    Attributes:
        simulate: predict from the inputs alone, without the past targets.
        horizon: how many steps ahead; default: 1 in prediction, 0 (the same step) in simulation.
        cell: ``"gru"``, ``"lstm"``, ``"elman"``, ``"leaky"``, ``"state-space"``, or ``"auto"``:
            gru; in simulation the one of gru and state-space that does better in a short trial, on
            the validation part.
        hidden: units of each layer.
        layers: recurrent layers on top of each other.
        method: ``"truncated"``, ``"full"`` or ``"sliding-window"``; default: truncated, in
            simulation full.
        depth: steps that an error travels back (truncated, sliding-window).
        stride: steps between two updates (truncated).
        loss: ``"mse"``, ``"mae"`` or ``"huber"``, of scaled values.
        optimizer: a name of `LEARNING_RATES`.
        lr: learning rate; default: the optimizer's own in `LEARNING_RATES`, in simulation 0.01 of
            adam and adamw.
        weight_decay: of ``"adamw"``: the weights shrink by this times ``lr`` at every update;
            default: 1, in simulation 0.
        clip: scale gradients down to this norm; default: never, in simulation 1.
        epochs: passes over the training part, at most; default: 100, in simulation as many as make
            two million steps, but 200 to 2,000.
        patience: epochs without a better validation loss after which training stops; default: 40,
            in simulation 400.
        validation: the rows to validate on, the last ones before the test part: a share of the
            rows before it, or a number of rows; of several series, of each.
        test: the rows to test on, the last ones: a share of all rows, or a number of rows; of
            several series, of each. 0: there is no test part.
        seed: of the initial weights.
        on_nonfinite: ``"stop"``, ``"skip"`` or ``"rollback"``, see `bptt.fit`.
        lags: steps of the past that the linear model reads; default: as many as serve best.
        season: periods, in steps; default: found in the training part. ``()`` for none.
        lanes: into how many stretches, side by side, the training part is cut.
        starts: from how many initial weights to train; the best by validation loss is kept.

    Raises:
        OptionError: an option is unknown, out of range, or does not go with another.
    """

    simulate: bool = False
    horizon: int | None = None
    cell: str = "auto"
    hidden: int = 16
    layers: int = 1
    method: str | None = None
    depth: int = 25
    stride: int = 25
    loss: str = "mse"
    optimizer: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    epochs: int | None = None
    patience: int | None = None
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0
    starts: int = 1
    on_nonfinite: str = "stop"
    lanes: int = 1
    lags: int | None = None
    season: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        at_least(
            1,
            hidden=self.hidden,
            layers=self.layers,
            depth=self.depth,
            stride=self.stride,
            starts=self.starts,
            lanes=self.lanes,
        )
        at_most(2**20, hidden=self.hidden)
        at_most(2**10, layers=self.layers)
        at_most(10**6, starts=self.starts)
        at_least(0, seed=self.seed)
        if self.seed >= 2**63:
            raise OptionError(f"seed must be below 2**63, not {self.seed}.")
        one_of(CELLS, cell=self.cell)
        if self.method is not None:
            one_of(METHODS, method=self.method)
        one_of(LOSSES, loss=self.loss)
        one_of(POLICIES, on_nonfinite=self.on_nonfinite)
        one_of(tuple(LEARNING_RATES), optimizer=self.optimizer)
        if not isinstance(self.simulate, bool):
            raise OptionError(f"simulate must be True or False, not {self.simulate!r}.")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None:
                above_zero(**{name: value})
        for name in ("epochs", "patience"):
            value = getattr(self, name)
            if value is not None:
                at_least(1, **{name: value})
        decay = self.weight_decay
        if decay is not None and not (is_number(decay) and decay >= 0):
            raise OptionError(f"weight_decay must be a finite number of at least 0, not {decay!r}.")
        if self.lags is not None:
            at_least(1, lags=self.lags)
        if self.season is not None:
            self._check_season(self.season)
        for name in ("validation", "test"):
            _check_part(name, getattr(self, name))
        self._check_horizon()

    def _check_season(self, season: object) -> None:
        if not isinstance(season, (tuple, list)):  # a record has a list
            raise OptionError(f"season must be a tuple of periods in steps, not {season!r}.")
        for period in season:
            at_least(2, season=period)
        if season and self.simulate:
            raise OptionError(
                "a simulation reads no past targets, and so none of a season ago: leave season out."
            )
        object.__setattr__(self, "season", tuple(dict.fromkeys(season)))

    def _check_horizon(self) -> None:
        if self.horizon is not None:
            at_least(0, horizon=self.horizon)
        if self.horizon == 0 and not self.simulate:
            raise OptionError(
                "horizon 0 would predict a target that is itself among the inputs: give a horizon "
                "of at least 1, or simulate from the inputs alone (--simulate)."
            )
        if self.method == "sliding-window" and self.ahead != 1:
            raise OptionError(
                f"the sliding window is defined for horizon 1, not {self.ahead}: choose method "
                "'truncated' with stride 1, or horizon 1."
            )
        if self.optimizer == "lbfgs" and self.clip is not None:
            raise OptionError("clip does not go with lbfgs, whose line search needs the gradient.")

    @property
    def ahead(self) -> int:
        """The horizon, with its default."""
        if self.horizon is not None:
            return self.horizon
        return 0 if self.simulate else 1

    def usual_epochs(self, steps: int) -> int:
        """The default of ``epochs``, for a training part of ``steps`` steps."""
        return min(max(STEPS // max(steps, 1), LEAST), MOST) if self.simulate else 100

    def filled(self, steps: int) -> Options:
        """With every default, for a training part of ``steps`` steps."""
        simulate = self.simulate
        rate = LEARNING_RATES[self.optimizer]
        if simulate:
            rate = SIMULATION_RATE if self.optimizer in ("adam", "adamw") else rate
        defaults: dict[str, Any] = {
            "horizon": self.ahead,
            "method": "full" if simulate else "truncated",
            "lr": rate,
            "weight_decay": 0.0 if simulate else 1.0,
            "clip": 1.0 if simulate and self.optimizer != "lbfgs" else None,
            "epochs": self.usual_epochs(steps),
            "patience": 400 if simulate else 40,
        }
        return replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})

    def gradient_method(self, steps: int) -> GradientMethod:
        """The method, for a training part of ``steps`` steps; of options that are `filled`.

        Raises:
            DataError: the sliding window does not fit into the training part.
        """
        if self.method == "full":
            return Full()
        if self.method == "truncated":
            return Truncated(self.depth, self.stride)
        if steps <= self.depth:
            raise DataError(
                f"the sliding window of depth {self.depth} needs more than {self.depth} training "
                f"steps, but there are {steps}: give a depth below {steps}, or more data."
            )
        return SlidingWindow(self.depth)

    def make_optimizer(
        self,
    ) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
        """The optimizer, as a function of the parameters; of options that are `filled`."""
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "rmsprop": torch.optim.RMSprop,
            "sgd": torch.optim.SGD,
            "lbfgs": torch.optim.LBFGS,
        }
        kind = kinds[self.optimizer]
        assert self.lr is not None
        given = {"lr": self.lr}
        if self.optimizer == "adamw":
            assert self.weight_decay is not None
            given["weight_decay"] = self.weight_decay
        return lambda parameters: kind(parameters, **given)


def _check_part(name: str, value: float) -> None:
    number = is_number(value)
    if name == "test" and number and value == 0:
        return
    if not (number and (0 < value < 1 or (value >= 1 and float(value).is_integer()))):
        shown = f"{value:g}" if number else repr(value)
        raise OptionError(
            f"{name} must be a share between 0 and 1 or a whole number of rows, not {shown}."
        )
