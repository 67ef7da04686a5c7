"""``bptt fit`` of a table: a forecaster beside linear models."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from bptt.cli._ready import Ready, Resume
from bptt.cli._show import say, show_metrics
from bptt.errors import OptionError
from bptt.forecasting import (
    Job,
    Options,
    Plan,
    Result,
    Series,
    made,
    plan,
    read_table,
    select,
    sunspots,
    train,
)
from bptt.forecasting.data._sunspots import NAME
from bptt.training import Checkpoint, History

DEFAULTS = Options()

SIMPLEST = {
    False: "Nothing was better on the validation part than the last known value, by more than "
    "chance: that is what the run predicts (persistence).",
    True: "Nothing was better on the validation part than the mean of the target, by more than "
    "chance: that is what the run predicts (training mean).",
}
"""What is said of a run that delivers the simplest model, in prediction and in simulation."""

MOST = 12
"""Series whose errors are shown one by one."""


def ready(job: Job) -> Ready[Result]:
    """Read and check what ``job`` is about, and say what is to be done."""
    if job.jobs is not None and job.options.starts == 1:
        raise OptionError("--jobs says how many starts run at once: give --starts as well.")
    series = read_series(job.data, job.inputs, job.target, job.missing, job.time, job.group)
    test = None if job.test_data is None else _read_test(job.test_data, series, job.missing)
    planned = plan(series, job.options, job.missing, test)
    _announce(planned, found=job.time is None)

    def run(progress: bool, checkpoint: Checkpoint | None, resume: Resume) -> Result:
        if checkpoint is not None:
            # What it is tested on, too: an error on other rows would be told as the run's.
            data = {"table": series.fingerprint()}
            data |= {} if test is None else {"test": test.fingerprint()}
            checkpoint = replace(checkpoint, beside=data)
        return train(planned, progress, job.jobs, checkpoint, resume)

    return Ready(run, _report, made, lambda result: not result.forecaster.reader.linear.is_simplest)


def read_series(
    data: Path | None,
    inputs: tuple[str, ...],
    target: str | None,
    missing: str,
    time: str | None = None,
    group: str | None = None,
) -> Series:
    """The chosen columns of a table, or the series that the package carries."""
    if data is not None:
        return select(read_table(data), inputs, target, missing, time=time, group=group)
    if inputs or target or time or group:
        raise OptionError(
            "--inputs, --target, --time and --group name columns of DATA, and none is given: bptt "
            "fit DATA --inputs A,B --target Y. Without DATA the sunspot numbers are forecast from "
            "their own past."
        )
    return sunspots()


def _read_test(data: Path, series: Series, missing: str) -> Series:
    """The same columns of another file."""
    if series.source == NAME:
        raise OptionError("--test-data goes with DATA, and none is given.")
    return select(
        read_table(data),
        series.input_names,
        series.target_name,
        missing,
        time="" if series.times is None else series.axis_name,
        group=series.group_name,
    )


def _announce(plan: Plan, found: bool) -> None:
    """Say what is to be done; ``found``: the column of times, if there is one, was not named."""
    series, options, split = plan.series, plan.options, plan.split
    past = "" if options.simulate else f"the past of {series.target_name}"
    seen = ", ".join(filter(None, [*series.input_names, past]))
    ahead = f"{options.ahead} step{'s' * (options.ahead != 1)} ahead"
    ahead = ahead if options.ahead else "at the same step"
    say(
        f"[bold]{'Simulating' if options.simulate else 'Predicting'} "
        f"{escape(series.target_name)}[/bold] {ahead} from {escape(seen)}{_dated(series, found)}"
    )
    count = sum(rows > 0 for rows in split.training)
    of = (
        f" of {count} series, told apart by {escape(series.group_name)}"
        if series.group_name
        else ""
    )
    tested = split.total - split.fitted
    rows = split.fitted if plan.tested else split.total
    last = f"{tested} of {escape(plan.tested)} to test" if plan.tested else f"{tested} to test"
    last = last if split.tests else "none to test: errors are told on the validation part"
    say(
        f"{escape(series.source)}: {rows} rows{of}; {split.train} to train, "
        f"{split.fitted - split.train} to validate, {last}"
        f"{_seasons(plan.seasons)}"
    )


def _dated(series: Series, found: bool) -> str:
    """Of the column of times, in words."""
    if series.times is None:
        return ""
    why = ", the one column of dates" if found else ""
    steps = (series.times[span].step() for span in series.spans)
    step = next((step for step in steps if step is not None), None)
    return f"; the time is {escape(series.axis_name)}{why}, in steps of {step}"


def _seasons(periods: tuple[int, ...]) -> str:
    """What was found, or given, in words."""
    if not periods:
        return ""
    *most, last = map(str, periods)
    steps = f"{', '.join(most)} and {last}" if most else last
    return f"; season{'s' * (len(periods) > 1)} of {steps} steps"


def _report(result: Result) -> None:
    history, forecaster = result.history, result.forecaster
    if forecaster.reader.linear.is_simplest:
        say(SIMPLEST[forecaster.options.simulate])
    if history.start is not None:
        _report_starts(history)
    kept = (
        f"epoch {history.best_epoch} was kept"
        if forecaster.gain
        else "the network did not help enough on the validation part to be added"
    )
    say(f"Stopped after {len(history)} epochs ({history.stop_reason}); {kept}.")
    _report_lags(result)
    say()
    plan, series = result.plan, result.plan.series
    where = "on the test part"
    if not plan.split.tests:
        where = "on the validation part (there is no test part)"
    if plan.tested:
        where = f"on {plan.tested}, the test part"
    show_metrics(result.metrics, series.target_name, where)
    if series.group_name is not None and len(result.groups) <= MOST:
        show_metrics(result.groups, series.target_name, f"{where}, by {series.group_name}", False)


def _report_lags(result: Result) -> None:
    """Whether more lags than were tried may serve."""
    study = result.plan.study
    if (
        result.plan.options.lags is not None
        or result.forecaster.reader.linear.is_simplest
        or not study.at_limit
    ):
        return
    more = (
        f"more may serve: --lags N, up to {study.most}"
        if study.most > study.widest
        else "more need more training rows"
    )
    say(f"The linear model reads {study.widest} steps, the most that were tried; {more}.")


def _report_starts(history: History) -> None:
    losses = sorted(start.loss for start in history.starts if start.error is None)
    failed = len(history.starts) - len(losses)
    say(
        f"Start {history.start} of {len(history.starts)} was kept, with a validation loss of "
        f"{losses[0]:.4g}; median {statistics.median(losses):.4g}, worst {losses[-1]:.4g}"
        f"{f'; {failed} failed' if failed else ''}."
    )
