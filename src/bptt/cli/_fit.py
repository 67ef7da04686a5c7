"""``bptt fit``: read, check, train, test, write."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from bptt.cli._show import say, show_metrics
from bptt.errors import OptionError
from bptt.forecasting import (
    Options,
    Plan,
    Result,
    Series,
    check_folder,
    plan,
    read_table,
    save,
    select,
    sunspots,
    train,
)
from bptt.training import History

DEFAULTS = Options()


@dataclass(frozen=True)
class Source:
    """Where the data come from, and which columns of them."""

    data: Path | None
    inputs: tuple[str, ...]
    target: str | None
    missing: str


@dataclass(frozen=True)
class Output:
    """Where the run goes; ``folder`` None takes the first free name."""

    folder: Path | None
    force: bool
    quiet: bool
    jobs: int | None = None


def names(text: str) -> tuple[str, ...]:
    """Column names out of ``"A,B"``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(source: Source, options: Options, output: Output) -> None:
    """Train on ``source`` and leave the run in ``output``."""
    folder = _free_folder() if output.folder is None else output.folder
    check_folder(folder, output.force)
    if output.jobs is not None and options.starts == 1:
        raise OptionError("--jobs says how many starts run at once: give --starts as well.")
    made = plan(_read(source), options, source.missing)
    _announce(made)
    result = train(made, progress=not output.quiet, jobs=output.jobs)
    _report(result)
    files = save(result, folder, output.force)
    say(f"Written to [bold]{escape(str(folder))}[/bold]: {', '.join(file.name for file in files)}")


def _free_folder() -> Path:
    count, folder = 1, Path("bptt-run")
    while folder.exists():
        count += 1
        folder = Path(f"bptt-run-{count}")
    return folder


def _read(source: Source) -> Series:
    if source.data is not None:
        return select(read_table(source.data), source.inputs, source.target, source.missing)
    if source.inputs or source.target:
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
