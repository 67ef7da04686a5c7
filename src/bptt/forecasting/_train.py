"""From a series to a trained forecaster and its test error beside the baselines.

Everything that can be refused is refused by `plan`, before `train` does any work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bptt.errors import DataError, OptionError
from bptt.forecasting._forecaster import Forecaster, Reader
from bptt.forecasting._linear import Linear, Study, hold, mixed, simplest
from bptt.forecasting._metrics import Metrics
from bptt.forecasting._model import build
from bptt.forecasting._options import Options
from bptt.forecasting._scaling import Scaling
from bptt.forecasting._seasons import seasons_of
from bptt.forecasting._series import Series
from bptt.forecasting._split import Split
from bptt.forecasting._tables import Floats
from bptt.gradients import GradientMethod
from bptt.training import Checkpoint, History, Patience, fit

AUTO = ("gru", "state-space")
"""Cells that are tried where none is asked for."""

TRIAL = 5
"""A trial takes this part of the epochs."""

CERTAIN = 0.5
"""Standard errors of the mean by which a model's squared errors must be lower than the simplest
model's on the validation part, to take its place."""

FARTHEST = 1e30
"""Deviations that a number may be away from the mean of the training part: the network's numbers
are of 32 bits."""


@dataclass(frozen=True)
class Plan:
    """A series that can be trained on: split, scaled and checked.

    Attributes:
        series: the data.
        options: how to train.
        split: which rows train, validate and test.
        scaling: fitted on the training part.
        seasons: periods, in steps.
        study: the linear forms that serve, judged on the validation part.
        method: how the gradient is found.
        missing: how missing targets are treated.
    """

    series: Series
    options: Options
    split: Split
    scaling: Scaling
    seasons: tuple[int, ...]
    study: Study
    method: GradientMethod
    missing: str


@dataclass(frozen=True)
class Result:
    """What training gives.

    Attributes:
        plan: what was trained on.
        forecaster: what is delivered.
        history: of the training.
        metrics: of what is delivered, then of the baselines, on the test part, in the data's units.
        prediction: float64 [test rows], of what is delivered, in the data's units.
    """

    plan: Plan
    forecaster: Forecaster
    history: History
    metrics: tuple[Metrics, ...]
    prediction: Floats


def plan(series: Series, options: Options, missing: str = "refuse") -> Plan:
    """Split, scale, check, and judge linear forms.

    Raises:
        DataError: the series is too short, a part of it has no known target, or a number is out of
            all proportion to the training part.
        OptionError: simulation without inputs; a season longer than half the training part, or
            more lags than it bears.
    """
    if options.simulate and not series.input_names:
        raise OptionError(
            "simulation predicts from the inputs alone, and there are none: name them with "
            "--inputs, or leave --simulate out."
        )
    horizon = options.ahead
    split = Split.of(len(series), horizon, options.validation, options.test)
    for period in options.season or ():
        _check_season(period, split.train)
    scaling = Scaling.fit(series, split.train)
    _check_known(series, split, horizon)
    _check_near(series, scaling)
    seasons: tuple[int, ...] = ()
    if not options.simulate:
        past = hold(series.target, scaling.target_mean)[: split.train]
        seasons = seasons_of(past) if options.season is None else options.season
    study = Study.of(
        scaling.inputs(series),
        series.target,
        horizon,
        split.fitted,
        split.train,
        options.simulate,
        seasons,
        options.lags,
    )
    options = options.filled(split.train - horizon)
    method = options.gradient_method(split.train - horizon)
    return Plan(series, options, split, scaling, seasons, study, method, missing)


def _check_season(period: int, rows: int) -> None:
    if period > rows // 2:
        raise OptionError(
            f"season must be at most {rows // 2}, half of the {rows} rows of the training part, "
            f"not {period}."
        )


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


def _check_near(series: Series, scaling: Scaling) -> None:
    scaled = np.column_stack([scaling.inputs(series), scaling.scale(series.target)])
    far = np.argwhere(np.abs(scaled) > FARTHEST)
    if len(far):
        row, column = far[0]
        name = [*series.input_names, series.target_name][column]
        value = [*series.inputs[row], series.target[row]][column]
        raise DataError(
            f"row {row + 1}, column {name!r}: {value:g} is too large beside the numbers of the "
            "training part: mend it, or remove the row."
        )


def train(
    plan: Plan,
    progress: bool = True,
    jobs: int | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool | Literal["force"] = False,
) -> Result:
    """Train on what the linear model leaves, choose what is delivered, and test.

    The network starts at zero; the epoch with the lowest validation loss is kept, that start among
    them. What is delivered is chosen on the validation part: the simplest model, unless the linear
    one is better there; the network added, in the share that serves best, unless it does not help.
    Then the linear model is fitted on training and validation part together.

    In simulation the network is trained on the target itself, with its mean taken off, and takes
    its share of the linear model's place.

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
    options, split, series = plan.options, plan.split, plan.series
    early = plan.study.fitted(split.train)
    plan = replace(plan, options=_with_cell(plan, early))
    options = plan.options
    known = _forecaster(plan, early)
    stream = known.stream(series)
    training, validation, _ = split.parts(stream)
    network = known.network
    assert options.epochs is not None  # they are filled
    assert options.patience is not None
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
    network.eval()
    linear = plan.study.fitted(split.fitted)
    plain = simplest(series.target, split.fitted, len(series.input_names), options.simulate)
    delivered = _chosen(plan, known, early, linear, plain)
    prediction = _of_test(plan, delivered.predict(series))
    inputs = plan.scaling.inputs(series)
    truth = series.target[split.fitted :]
    metrics = [Metrics.of(delivered.name, prediction, truth)]
    for model in (plain, linear):
        if model.name != delivered.name:
            found = _of_test(plan, model(inputs, series.target))
            metrics.append(Metrics.of(model.name, found, truth))
    return Result(plan, delivered, history, tuple(metrics), prediction)


def _forecaster(plan: Plan, linear: Linear) -> Forecaster:
    """A new network and what it adds to, whose error is the unit of what it predicts: a linear
    model, in simulation the training mean."""
    options, series, split = plan.options, plan.series, plan.split
    simulate = options.simulate
    if simulate:
        linear = simplest(series.target, split.train, len(series.input_names), simulate)
    reader = Reader(plan.scaling, linear, options.ahead, plan.seasons, simulate)
    errors = _errors(plan, linear(plan.scaling.inputs(series), series.target))
    parts = errors[: split.train], errors[split.train : split.fitted]
    spread = max(*(_rms(part) for part in parts), 1e-9) * plan.scaling.target_deviation
    columns = reader(plan.scaling.inputs(series)[:1], series.target[:1]).shape[1]
    return Forecaster(
        build(options, columns),
        reader,
        spread,
        options,
        series.input_names,
        series.target_name,
        plan.missing,
        spread,
    )


def _with_cell(plan: Plan, linear: Linear) -> Options:
    """The options with a cell: of several, the one with the least validation loss in a trial."""
    options = plan.options
    if options.cell != "auto":
        return options
    assert options.epochs is not None
    losses = {}
    for cell in AUTO:
        tried = replace(options, cell=cell)
        forecaster = _forecaster(replace(plan, options=tried), linear)
        training, validation, _ = plan.split.parts(forecaster.stream(plan.series))
        history = fit(
            forecaster.network,
            training,
            method=plan.method,
            loss=options.loss,
            optimizer=options.make_optimizer(),
            epochs=-(-options.epochs // TRIAL),
            validation=validation,
            clip=options.clip,
            on_nonfinite="skip",
            progress=False,
            seed=options.seed,
        )
        losses[cell] = min(filter(np.isfinite, history.validations), default=np.inf)
    return replace(options, cell=min(AUTO, key=losses.__getitem__))


def _chosen(
    plan: Plan, known: Forecaster, early: Linear, linear: Linear, plain: Linear
) -> Forecaster:
    """What is delivered.

    Args:
        plan: the plan.
        known: the forecaster that knows the training part alone, trained.
        early: the linear model that knows the training part alone.
        linear, plain: the linear and the simplest model, fitted on all before the test part.
    """
    series, split, simulate = plan.series, plan.split, plan.options.simulate
    judged = slice(split.train, split.fitted)
    inputs = plan.scaling.inputs(series)

    def errors(prediction: Floats) -> Floats:
        found = _errors(plan, prediction)[judged]
        return found[np.isfinite(found)]

    alone, added = errors(early(inputs, series.target)), errors(known.predict(series))
    rival = errors(plain(inputs, series.target))
    # The share of the correction that leaves the least squared error.
    moved = alone - added
    share = float(np.clip(alone @ moved / max(float(moved @ moved), 1e-300), 0.0, 1.0))
    together = alone - share * moved
    if not _better(together, alone):
        share, together = 0.0, alone
    if not _better(together, rival):
        share, linear = 0.0, plain
    elif simulate and share:
        linear = mixed(linear, known.reader.linear, share)
    reader = replace(known.reader, linear=linear)
    return replace(known, reader=reader, gain=share * known.spread)


def _better(errors: Floats, other: Floats) -> bool:
    """Whether squared errors are lower than others, by more than chance makes them."""
    gain = other**2 - errors**2
    least = CERTAIN * float(gain.std()) / len(gain) ** 0.5
    return bool(gain.mean() > least)


def _errors(plan: Plan, prediction: Floats) -> Floats:
    """Target minus prediction [rows], in the target's deviations, by the row of the target; NaN
    where there is none."""
    horizon, target = plan.options.ahead, plan.series.target
    found = np.full(len(target), np.nan)
    found[horizon:] = target[horizon:] - prediction[: len(target) - horizon]
    return found / plan.scaling.target_deviation


def _rms(errors: Floats) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else 0.0


def _of_test(plan: Plan, prediction: Floats) -> Floats:
    """Of the targets in the test part."""
    horizon, split = plan.options.ahead, plan.split
    return prediction[split.fitted - horizon : split.total - horizon]
