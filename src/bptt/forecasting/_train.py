"""From a series to a trained forecaster and its test error beside the baselines.

Everything that can be refused is refused by `plan`, before `train` does any work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from bptt.errors import DataError, OptionError
from bptt.forecasting._forecaster import Forecaster
from bptt.forecasting._linear import Linear, highest_order, least_squares
from bptt.forecasting._metrics import Metrics, baselines
from bptt.forecasting._model import Readout, build
from bptt.forecasting._options import Options
from bptt.forecasting._scaling import Scaling
from bptt.forecasting._series import Series
from bptt.forecasting._split import Split
from bptt.forecasting._tables import Floats
from bptt.gradients import GradientMethod
from bptt.network import Network
from bptt.streams import Stream
from bptt.training import Checkpoint, History, Patience, fit, predict


@dataclass(frozen=True)
class Plan:
    """A series that can be trained on: split, scaled and checked.

    Attributes:
        series: the data.
        options: how to train.
        split: which rows train, validate and test.
        scaling: fitted on the training part.
        features: float64 [rows, features], scaled.
        target: float64 [rows], scaled, NaN where missing.
        linear: the linear path, fitted on the training part.
        taps: steps in the delay line.
        method: how the gradient is found.
        missing: how missing targets are treated.
    """

    series: Series
    options: Options
    split: Split
    scaling: Scaling
    features: Floats
    target: Floats
    linear: Linear
    taps: int
    method: GradientMethod
    missing: str


@dataclass(frozen=True)
class Result:
    """What training gives.

    Attributes:
        plan: what was trained on.
        forecaster: the trained network.
        history: of the training.
        metrics: of the network, then of the baselines, on the test part, in the data's units.
        prediction: float64 [test rows], of the network, in the data's units.
    """

    plan: Plan
    forecaster: Forecaster
    history: History
    metrics: tuple[Metrics, ...]
    prediction: Floats


def plan(series: Series, options: Options, missing: str = "refuse") -> Plan:
    """Split, scale and check.

    Raises:
        DataError: the series is too short, or a part of it has no known target.
        OptionError: simulation without inputs.
    """
    if options.simulate and not series.input_names:
        raise OptionError(
            "simulation predicts from the inputs alone, and there are none: name them with "
            "--inputs, or leave --simulate out."
        )
    horizon = options.ahead
    split = Split.of(len(series), horizon, options.validation, options.test)
    scaling = Scaling.fit(series, split.train)
    features = scaling.features(series, options.simulate)
    target = scaling.scale(series.target)
    _check_known(series, split, horizon)
    taps = highest_order(features, target, horizon, split.train)
    linear = least_squares(features, target, horizon, split.train)
    method = options.gradient_method(split.train - horizon)
    return Plan(series, options, split, scaling, features, target, linear, taps, method, missing)


def _check_known(series: Series, split: Split, horizon: int) -> None:
    known = np.isfinite(series.target)
    parts = {
        "training": known[horizon : split.train],
        "validation": known[split.train : split.fitted],
        "test": known[split.fitted :],
    }
    for name, part in parts.items():
        if not part.any():
            raise DataError(
                f"all {len(part)} targets of the {name} part are missing: nothing can be counted."
            )


def train(
    plan: Plan,
    progress: bool = True,
    jobs: int | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool | Literal["force"] = False,
) -> Result:
    """Train, solve the linear path again, and test.

    The network starts as the linear model of the training part; the epoch with the lowest
    validation loss is kept, that start among them. Then, with the correction held, the linear
    path is solved again on training and validation part together.

    Args:
        plan: from `plan`.
        progress: show a bar.
        jobs: how many starts run at once, see `bptt.fit`.
        checkpoint: where and how often training is saved.
        resume: whether to go on from there, see `bptt.fit`.

    Raises:
        NonFiniteError: the loss or gradient became NaN or infinite; of every start, where there
            are several.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, and training is saved.
    """
    options, split = plan.options, plan.split
    network = build(options, plan.features.shape[1], plan.taps)
    readout = _readout(network)
    readout.set_linear(plan.linear, gain=_spread(plan))
    stream = Stream(
        plan.features,
        plan.target[:, None],
        lanes=options.lanes,
        horizon=options.ahead,
        mask=np.isfinite(plan.target),
        # Steps whose lags are not all known train nothing.
        burn_in=_burn_in(plan),
        dtype=torch.float32,
    )
    training, validation, test = split.parts(stream)
    history = fit(
        network,
        training,
        method=plan.method,
        loss=options.loss,
        optimizer=options.make_optimizer(),
        epochs=options.epochs,
        validation=validation,
        stop=[Patience(options.patience, restore_best=True)],
        clip=options.clip,
        on_nonfinite=options.on_nonfinite,  # type: ignore[arg-type]  # checked by Options
        progress=progress,
        seed=options.seed,
        starts=options.starts if options.starts > 1 else None,
        jobs=jobs if options.starts > 1 else None,
        checkpoint=checkpoint,
        resume=resume,
    )
    _solve_again(network, plan)
    network.eval()
    forecaster = Forecaster(
        network,
        plan.scaling,
        options,
        plan.series.input_names,
        plan.series.target_name,
        plan.missing,
    )
    prediction = _test_prediction(network, test, plan)
    return Result(plan, forecaster, history, _metrics(plan, prediction), prediction)


def _readout(network: Network) -> Readout:
    assert isinstance(network.readout, Readout)
    return network.readout


def _burn_in(plan: Plan) -> int:
    """As many steps as the linear path looks back, while that leaves something to count."""
    horizon = plan.options.ahead
    known = np.isfinite(plan.target[horizon : plan.split.train])
    return min(plan.linear.order - 1, int(np.flatnonzero(known)[-1]))


def _spread(plan: Plan) -> float:
    """The linear path's root mean squared error on the training part."""
    horizon, order = plan.options.ahead, plan.linear.order
    rows = np.arange(order - 1, plan.split.train - horizon)
    error = plan.linear(plan.features)[rows] - plan.target[rows + horizon]
    return max(float(np.sqrt(np.nanmean(error**2))), 1e-6)


@torch.no_grad()
def _solve_again(network: Network, plan: Plan) -> None:
    """Least squares of what the correction leaves, on all targets before the test part."""
    horizon, fitted = plan.options.ahead, plan.split.fitted
    inputs = torch.from_numpy(plan.features[: fitted - horizon]).to(torch.float32)
    outputs, _ = network.unfold(inputs[:, None])
    readout = _readout(network)
    remaining = plan.target[:fitted].copy()
    remaining[horizon:] -= readout.corrected(outputs)[:, 0, 0].numpy()
    linear = least_squares(plan.features[:fitted], remaining, horizon, fitted, plan.taps)
    readout.set_linear(linear)


def _test_prediction(network: Network, test: Stream, plan: Plan) -> Floats:
    found = predict(network, test)
    assert isinstance(found, torch.Tensor)
    rows = plan.split.total - plan.split.fitted
    return plan.scaling.unscale(found[:rows, 0].numpy().astype(np.float64))


def _metrics(plan: Plan, prediction: Floats) -> tuple[Metrics, ...]:
    options, split = plan.options, plan.split
    truth = plan.series.target[split.fitted :]
    rows = slice(split.fitted - options.ahead, split.total - options.ahead)
    simple = baselines(plan.features, plan.target, options.ahead, split.fitted, options.simulate)
    return (
        Metrics.of(f"network ({options.cell})", prediction, truth),
        *(
            Metrics.of(one.name, plan.scaling.unscale(one.prediction[rows]), truth)
            for one in simple
        ),
    )
