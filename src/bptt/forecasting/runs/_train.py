"""From a series to a trained forecaster and its test error beside the baselines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from bptt.forecasting.data._checksum import trained
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import TEST, VALIDATION
from bptt.forecasting.data._tables import Floats
from bptt.forecasting.linear._linear import Linear, mixed, simplest
from bptt.forecasting.model._forecaster import Forecaster, Reader
from bptt.forecasting.model._metrics import Metrics
from bptt.forecasting.model._network import build
from bptt.forecasting.model._options import Options
from bptt.forecasting.runs._plan import Plan, prepared
from bptt.training import Checkpoint, History, NonFiniteWarning, Patience, fit

AUTO = {False: ("gru",), True: ("state-space", "gru")}
"""Cells that are tried where none is asked for, in prediction and in simulation."""

TRIAL = 5
"""A trial takes this part of the epochs that training takes by default: more epochs, asked for
later, change no choice."""

SMALL = 2**17
"""Lanes times units squared, up to which one thread trains."""

CERTAIN, HELPS = 1.5, 0.5
"""Standard errors of the mean by which squared errors must be lower: to take the simplest model's
place, on all rows that forms were judged on; to add the network, on the validation part."""

FEW = 4
"""Rows of the validation part that double those."""


@dataclass(frozen=True)
class Result:
    """What training gives.

    Attributes:
        plan: what was trained on.
        forecaster: what is delivered.
        history: of the training.
        metrics: of what is delivered, then of the baselines, on the test part, in the data's units;
            where there is none, on the validation part, of the same models fitted on the training
            part alone.
        groups: of what is delivered, for each series, where there are several.
        prediction: float64 [test rows], or of the validation part where there is none: what
            ``metrics`` are of, in the data's units.
    """

    plan: Plan
    forecaster: Forecaster
    history: History
    metrics: tuple[Metrics, ...]
    groups: tuple[Metrics, ...]
    prediction: Floats


def plan(
    series: Series, options: Options, missing: str = "refuse", test: Series | None = None
) -> Plan:
    """Split, scale, check, judge linear forms, and try the cells if none is asked for.

    Args:
        series: to train and to validate on; without ``test``, its last rows are to test on.
        options: how to train.
        missing: how missing targets are treated.
        test: other series with the same columns, to test on; ``options.test`` is 0 then.

    Raises:
        DataError: a series is too short, a part has no known target, a number is out of all
            proportion to the training part, or ``test`` has other columns.
        OptionError: simulation without inputs, more lanes than series, two test parts, a season
            longer than half the training part, or more lags than it bears.
    """
    made = prepared(series, options, missing, test)
    return replace(made, options=_with_cell(made))


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
    early = plan.study.fitted(VALIDATION)
    known = _forecaster(plan, early)
    training, validation = known.parts(series, split)
    network = known.network
    assert options.epochs is not None  # they are filled
    assert options.patience is not None
    with _threads(options):
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
    linear = plan.study.fitted(TEST)
    plain = _simplest(plan, TEST)
    regressed, share = _chosen(plan, known, early, _simplest(plan, VALIDATION))
    delivered = _added(known, linear if regressed else plain, share)
    judged, judged_linear, judged_plain = delivered, linear, plain
    if not split.tests:
        # The validation part, which the delivered models know, is judged by such as do not.
        judged_linear, judged_plain = early, _simplest(plan, VALIDATION)
        judged = _added(known, early if regressed else judged_plain, share)
    prediction = series.aligned(judged.predict(series), options.ahead)
    inputs = plan.scaling.inputs(series)
    metrics = [_metrics(plan, judged.name, prediction)]
    for model in (judged_plain, judged_linear):
        if model.name != judged.name:
            own = plan.units.restored(model(inputs, plan.own.target, series.age), series)
            found = series.aligned(own, options.ahead)
            metrics.append(_metrics(plan, model.name, found))
    groups = _of_groups(plan, prediction)
    return Result(plan, delivered, history, tuple(metrics), groups, prediction[split.judged])


def _simplest(plan: Plan, stop: int) -> Linear:
    """The simplest model, of the folds before ``stop``."""
    series = plan.own
    seen = series.target[plan.split.within(0, stop)]
    return simplest(seen, len(series.input_names), plan.options.simulate)


def _metrics(plan: Plan, name: str, prediction: Floats) -> Metrics:
    """Of predictions [rows], by the row of the target."""
    judged = plan.split.judged
    return Metrics.of(name, prediction[judged], plan.series.target[judged])


def _of_groups(plan: Plan, prediction: Floats) -> tuple[Metrics, ...]:
    """Of each series that has known targets among those judged, by its name."""
    series, judged = plan.series, plan.split.judged & np.isfinite(plan.series.target)
    if series.group_name is None:
        return ()
    return tuple(
        Metrics.of(label, prediction[span][judged[span]], series.target[span][judged[span]])
        for span, label in zip(series.spans, series.labels, strict=True)
        if judged[span].any()
    )


def _forecaster(plan: Plan, linear: Linear) -> Forecaster:
    """A new network and what it adds to, whose error is the unit of what it predicts: a linear
    model, in simulation the training mean."""
    options, series, split = plan.options, plan.own, plan.split
    simulate = options.simulate
    if simulate:
        linear = _simplest(plan, VALIDATION)
    reader = Reader(plan.scaling, linear, options.ahead, plan.seasons, simulate)
    errors = _errors(plan, linear(plan.scaling.inputs(series), series.target, series.age))
    parts = errors[split.trains], errors[split.validation]
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
        None if series.times is None else series.axis_name,
        series.group_name,
        trained(plan.series, split.known),
        plan.units,
    )


def _with_cell(plan: Plan) -> Options:
    """The options with a cell: of several, the one with the least validation loss in a trial."""
    options = plan.options
    if options.cell != "auto":
        return options
    cells = AUTO[options.simulate]
    if len(cells) == 1:
        return replace(options, cell=cells[0])
    linear, losses = plan.study.fitted(VALIDATION), {}
    for cell in cells:
        tried = replace(options, cell=cell)
        forecaster = _forecaster(replace(plan, options=tried), linear)
        training, validation = forecaster.parts(plan.series, plan.split)
        with warnings.catch_warnings(), _threads(options):
            warnings.simplefilter("ignore", NonFiniteWarning)  # the other cell is taken
            history = fit(
                forecaster.network,
                training,
                method=plan.method,
                loss=options.loss,
                optimizer=options.make_optimizer(),
                epochs=options.usual_epochs(plan.split.train) // TRIAL,
                validation=validation,
                clip=options.clip,
                on_nonfinite="skip",
                progress=False,
                seed=options.seed,
            )
        losses[cell] = min(filter(np.isfinite, history.validations), default=np.inf)
    return replace(options, cell=min(cells, key=losses.__getitem__))


@contextmanager
def _threads(options: Options) -> Iterator[None]:
    """One thread where the products of a step are small: a second one only waits for the first."""
    before = torch.get_num_threads()
    if options.lanes * options.hidden**2 <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chosen(plan: Plan, known: Forecaster, early: Linear, plain: Linear) -> tuple[bool, float]:
    """Whether the linear model is delivered, not the simplest one, and the share of the network's
    correction.

    Args:
        plan: the plan.
        known: the forecaster that knows the training part alone, trained.
        early, plain: the linear and the simplest model that know the training part alone.
    """
    series, judged = plan.own, plan.split.validation
    inputs = plan.scaling.inputs(series)
    alone = _errors(plan, early(inputs, series.target, series.age))
    moved = alone - _errors(plan, known.predict_own(series))
    rival = _errors(plan, plain(inputs, series.target, series.age))
    judged = judged & np.isfinite(alone)
    # The share of the correction that leaves the least squared error.
    there = moved[judged]
    share = float(np.clip(alone[judged] @ there / max(float(there @ there), 1e-300), 0.0, 1.0))
    if not _better((alone - share * moved)[judged], alone[judged], HELPS):
        share = 0.0
    # What is fitted anew before each stretch of rows is judged on all of them.
    rolled = (series.target - plan.study.rolled()) / plan.scaling.target_deviation
    rolled[judged] -= share * moved[judged]
    counted = np.isfinite(rolled) & np.isfinite(rival)
    both = counted & judged
    regressed = bool((rolled[both] ** 2).sum() < (rival[both] ** 2).sum())
    regressed = _better(rolled[counted], rival[counted], CERTAIN) and regressed
    return regressed, share if regressed else 0.0


def _added(known: Forecaster, linear: Linear, share: float) -> Forecaster:
    """A linear model, and so much of the network's correction."""
    if share and known.options.simulate:
        linear = mixed(linear, known.reader.linear, share)
    reader = replace(known.reader, linear=linear)
    return replace(known, reader=reader, gain=share * known.spread)


def _better(errors: Floats, other: Floats, certain: float) -> bool:
    """Whether squared errors are lower than others, by so many standard errors of the mean; by more
    of them where few rows tell what they are."""
    gain = other**2 - errors**2
    if not len(gain):
        return False
    least = certain * (1 + FEW / len(gain)) * float(gain.std()) / len(gain) ** 0.5
    return bool(gain.mean() > least)


def _errors(plan: Plan, prediction: Floats) -> Floats:
    """Target minus prediction [rows], in the target's deviations, by the row of the target; NaN
    where there is none."""
    left = plan.own.left_by(prediction, plan.options.ahead)
    return left / plan.scaling.target_deviation


def _rms(errors: Floats) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else 0.0
