"""``bptt fit --task text`` and ``bptt predict`` of such a run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bptt.cli._ready import Ready, Resume
from bptt.cli._show import say
from bptt.errors import OptionError
from bptt.text import Job, Options, Result, load, made, task, train
from bptt.training import Checkpoint

DEFAULTS = Options()
OUTPUT = {"data", "task", "out", "force", "quiet", "checkpoint"}


def job(data: Path | None, given: dict[str, Any], every: str | int) -> Job:
    """To learn a text; ``given`` are the options that the user gave."""
    known = {field.name for field in fields(Options)}
    for name in given.keys() - known - OUTPUT:
        raise OptionError(
            f"--{name.replace('_', '-')} does not go with --task text. What does: "
            f"{', '.join('--' + option for option in sorted(known - {'embedding'}))}.".replace(
                "_", "-"
            )
        )
    if data is None:
        raise OptionError("--task text learns a text file: bptt fit book.txt --task text.")
    options = Options(**{name: given[name] for name in given.keys() & known})
    return Job(data=data, options=options, every=every)


def ready(job: Job) -> Ready[Result]:
    """Read and check what ``job`` is about, and say what is to be done."""
    found = task(job.data, job.options)
    unit, size = found.options.unit, len(found.vocabulary)
    say(f"[bold]Predicting the next {unit}[/bold] of {escape(str(job.data))}, {size} symbols")
    parts = {"train": found.training, "validate": found.validation, "test": found.test}
    say(", ".join(f"{part.steps:,} {unit}s to {name}" for name, part in parts.items()))

    def run(progress: bool, checkpoint: Checkpoint | None, resume: Resume) -> Result:
        return train(found, progress, checkpoint, resume)

    return Ready(run, _report, made)


def _report(result: Result) -> None:
    history, unit = result.history, result.task.options.unit
    say(
        f"Stopped after {len(history)} epochs ({history.stop_reason}); epoch {history.best_epoch} "
        "was kept.\n"
    )
    table = Table(title="On the test part", title_justify="left", title_style="bold")
    table.add_column("model")
    table.add_column(f"bits per {unit}", justify="right")
    least = min(result.bits.values())
    for name, bits in result.bits.items():
        table.add_row(name, f"{bits:.3f}", style="bold green" if bits == least else None)
    Console().print(table)
    say("\nA sample:\n")
    _show(result.model.sample("", 300, seed=result.task.options.seed))
    say()


def predict(
    folder: Path, data: Path | None, begin: str, sample: int | None, temperature: float, seed: int
) -> None:
    """The bits per symbol of a text, where one is given; a sample, where none is or one is asked
    for."""
    model = load(folder)
    length = 300 if sample is None else sample
    sampled = data is None or sample is not None
    if sampled:
        model.check_sample(begin, length, temperature)
    if data is not None:
        stream = model.stream(data)
        unit = model.options.unit
        bits = f"[bold]{model.bits(stream):.3f} bits per {unit}[/bold]"
        say(f"{bits} on the {stream.steps:,} {unit}s of {escape(str(data))}")
    if sampled:
        _show(model.sample(begin, length, temperature, seed))


def _show(text: str) -> None:
    """As it is: no markup, no wrapping, and nothing that would steer the terminal."""
    print("".join(c if c.isprintable() or c in "\n\t" else "�" for c in text))
