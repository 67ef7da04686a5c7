"""``bptt fit`` of a table: a forecaster beside linear models."""

from __future__ import annotations

import statistics
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
from bptt.training import Checkpoint, History

DEFAULTS = Options()


def ready(job: Job) -> Ready[Result]:
    """Read and check what ``job`` is about, and say what is to be done."""
    if job.jobs is not None and job.options.starts == 1:
        raise OptionError("--jobs says how many starts run at once: give --starts as well.")
    series = read_series(job.data, job.inputs, job.target, job.missing)
    planned = plan(series, job.options, job.missing)
    _announce(planned)

    def run(progress: bool, checkpoint: Checkpoint | None, resume: Resume) -> Result:
        return train(planned, progress, job.jobs, checkpoint, resume)

    return Ready(run, _report, made)


def read_series(
    data: Path | None, inputs: tuple[str, ...], target: str | None, missing: str
) -> Series:
    """The chosen columns of a table, or the series that the package carries."""
    if data is not None:
        return select(read_table(data), inputs, target, missing)
    if inputs or target:
        raise OptionError(
            "--inputs and --target name columns of DATA, and none is given: bptt fit DATA --inputs "
            "A,B --target Y. Without DATA the sunspot numbers are forecast from their own past."
        )
    return sunspots()


def _announce(plan: Plan) -> None:
    series, options, split = plan.series, plan.options, plan.split
    past = "" if options.simulate else f"the past of {series.target_name}"
    seen = ", ".join(filter(None, [*series.input_names, past]))
    ahead = f"{options.ahead} step{'s' * (options.ahead != 1)} ahead"
    ahead = ahead if options.ahead else "at the same step"
    say(
        f"[bold]{'Simulating' if options.simulate else 'Predicting'} "
        f"{escape(series.target_name)}[/bold] {ahead} from {escape(seen)}"
    )
    say(
        f"{escape(series.source)}: {split.total} rows; {split.train} to train, "
        f"{split.fitted - split.train} to validate, {split.total - split.fitted} to test"
    )


def _report(result: Result) -> None:
    history = result.history
    if history.start is not None:
        _report_starts(history)
    kept = (
        f"epoch {history.best_epoch} was kept"
        if history.best_epoch
        else "no epoch was better on the validation part than the linear path alone, which was kept"
    )
    say(f"Stopped after {len(history)} epochs ({history.stop_reason}); {kept}.\n")
    show_metrics(result.metrics, result.plan.series.target_name)


def _report_starts(history: History) -> None:
    losses = sorted(start.loss for start in history.starts if start.error is None)
    failed = len(history.starts) - len(losses)
    say(
        f"Start {history.start} of {len(history.starts)} was kept, with a validation loss of "
        f"{losses[0]:.4g}; median {statistics.median(losses):.4g}, worst {losses[-1]:.4g}"
        f"{f'; {failed} failed' if failed else ''}."
    )
