"""A run looked at: its diagnosis, and everything about it in one page."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bptt.diagnostics import (
    PARTS,
    Diagnosis,
    Section,
    Table,
    check_place,
    diagnose,
    is_picture,
    page,
    sections_of,
)
from bptt.errors import DataError, OptionError, reason
from bptt.files import Place, check_writable, json_object, read_bytes, shown, write_text
from bptt.forecasting.data._series import Series
from bptt.forecasting.runs._pictures import STARTS
from bptt.forecasting.runs._run_folder import forecaster_of, record_of
from bptt.runs import HISTORY, MODEL, RECORD, Files, read_run

DIAGNOSIS, PAGE = "diagnosis", "report.html"


def diagnose_run(
    run: str | Path | Files,
    series: Series,
    *,
    depth: int | None = None,
    steps: int = 10_000,
    begun: Callable[[], object] = lambda: None,
    written: Callable[[Path], object] | None = None,
    **options: Any,
) -> tuple[Diagnosis, list[Path]]:
    """`bptt.diagnose` the network of a run on ``series`` and save the result beside it.

    Args:
        run: its folder, or what was read of it.
        series: as the run's forecaster reads it.
        depth: a depth of truncation to judge; default: the one that the run was trained with.
        begun: called when all is found, before anything is written.
        written: as of `bptt.Diagnosis.save`.
        steps, options: as of `bptt.diagnose`. The run's starts are among them, if it had several.

    Returns:
        The diagnosis, and the files in the run's folder ``diagnosis``.

    Raises:
        OptionError: as `bptt.diagnose`; or something in that folder belongs to no diagnosis.
        CheckpointError: the run was moved meanwhile, or another process writes its diagnosis.
    """
    # Read once, as another run may take its place at any moment.
    run = run if isinstance(run, Files) else read_run(Path(run))
    folder, content = run.folder, run.record
    place = Place(folder)
    forecaster = forecaster_of(run)
    own = forecaster.options
    counted = min(max(span.stop - span.start for span in series.spans) - own.ahead, steps)
    if depth is None and own.method != "full" and own.depth <= counted:
        depth = own.depth
    try:
        ended = [s["loss"] for s in _begun(content) if s["loss"] is not None]
    except (LookupError, TypeError, AttributeError) as error:
        record = shown(folder / RECORD)
        raise DataError(f"{record} is damaged: {reason(error)}. Fit the run again.") from error
    parts = options.get("parts", PARTS)
    check_place(folder / DIAGNOSIS, [*parts, "optima"] if len(ended) > 1 else parts)
    found = diagnose(
        forecaster.network,
        forecaster.stream(series),
        loss=own.loss,
        depth=depth if "reach" in parts else None,
        steps=steps,
        starts=ended if len(ended) > 1 else None,
        **options,
    )
    model = hashlib.sha256(run.part(MODEL)).hexdigest()
    found = replace(found, cell=f"{own.cell} network on {series.source}", model=model)
    begun()
    place.check()
    return found, found.save(folder / DIAGNOSIS, written)


def report(
    folder: str | Path,
    out: str | Path | None = None,
    begun: Callable[[], object] = lambda: None,
) -> Path:
    """Gather a run in one page of HTML that needs nothing else: history, pictures, diagnosis.

    Args:
        folder: of the run.
        out: the page; default: ``report.html`` in the folder.
        begun: called when all is read, before the page is written.

    Raises:
        DataError: the folder holds no run, or it is damaged.
        OptionError: the page cannot be put there.
    """
    folder = Path(folder)
    run = read_run(folder)
    record_of(run)
    out = folder / PAGE if out is None else Path(out)
    above = out.absolute().parent
    if out.is_dir() or not above.is_dir():
        raise OptionError(f"{shown(out)} cannot be written: name a file in a folder that exists.")
    check_writable(above)
    content = run.record
    try:
        sections = [_training(run), _prediction(folder, content), *_starts(folder, content)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        record = shown(folder / RECORD)
        raise DataError(f"{record} is damaged: {reason(error)}. Fit the run again.") from error
    sections += _diagnosis(run)
    title = f"{content['target']}: {content['options']['cell']} network, {folder.resolve().name}"
    whole = page(title, sections)
    begun()
    write_text(out, whole)
    return out


def _begun(content: dict[str, Any]) -> list[dict[str, Any]]:
    """How every start ended, if there were several."""
    found: list[dict[str, Any]] = content.get("training", {}).get("starts", [])
    return found


def _training(run: Files) -> Section:
    content = run.record
    about, data = content.get("training", {}), content.get("data", {})
    apart = f" ({data['test_data']})" if data.get("test_data") else ""
    said = (
        f"{data.get('source')}: {data.get('rows')} rows; {data.get('training')} to train, "
        f"{data.get('validation')} to validate, {data.get('test')} to test{apart}. Stopped after "
        f"{about.get('epochs')} epochs ({about.get('stop_reason')}); epoch "
        f"{about.get('best_epoch')} was kept. {about.get('seconds')} seconds."
    )
    options = Table(
        ["option", "value"],
        [[name, str(value)] for name, value in content["options"].items() if value is not None],
    )
    return Section(
        "Training", said, _picture(run.folder, "loss.png", content), [_history(run), options]
    )


def _history(run: Files) -> Table:
    """The epochs; of a long training about twenty of them, the first and the last among them."""
    path = run.folder / HISTORY
    try:
        lines = run.part(HISTORY).decode("utf-8").splitlines()
        header, *rows = list(csv.reader(lines))
    except (csv.Error, ValueError) as error:
        raise DataError(f"{shown(path)} is damaged: {reason(error)}. Fit the run again.") from error
    every = max(1, len(rows) // 20)
    chosen = [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    return Table([name.replace("_", " ") for name in header], [_rounded(row) for row in chosen])


def _rounded(row: list[str]) -> list[str]:
    return [f"{float(value):.4g}" if "." in value or "e" in value else value for value in row]


def _prediction(folder: Path, content: dict[str, Any]) -> Section:
    def table(first: str, key: str, metrics: list[dict[str, Any]]) -> Table:
        rows = [
            [m[key], *("–" if m[e] is None else f"{m[e]:.4g}" for e in ("rmse", "mse", "mae"))]
            for m in metrics
        ]
        return Table([first, "RMSE", "MSE", "MAE"], rows)

    tables = [table("model", "name", content.get("metrics", []))]
    if content.get("groups"):
        tables.append(table(str(content.get("group")), "group", content["groups"]))
    part = content.get("data", {}).get("errors_on", "test")
    said = f"Errors on the {part} part, in units of {content['target']}."
    return Section("Prediction", said, _picture(folder, "prediction.png", content), tables)


def _starts(folder: Path, content: dict[str, Any]) -> list[Section]:
    if not _begun(content):
        return []
    rows = [
        [
            str(s["number"]),
            "—" if s["loss"] is None else f"{s['loss']:.4g}",
            str(s["epochs"]),
            s["error"] or s["stop_reason"],
        ]
        for s in _begun(content)
    ]
    table = Table(["start", "loss", "epochs", "ended"], rows)
    said = f"Start {content['training']['start']} was kept."
    return [Section("Starts", said, _picture(folder, STARTS, content), [table])]


def _diagnosis(run: Files) -> list[Section]:
    made = run.folder / DIAGNOSIS / "diagnosis.json"
    command = f"bptt diagnose {run.folder.name} DATA"
    if not made.is_file():
        return [Section("Diagnosis", f"There is none yet: {command} makes it.")]
    try:
        content = json_object(read_bytes(made))
        if content.get("model") != hashlib.sha256(run.part(MODEL)).hexdigest():
            said = f"The one here is of other weights: {command} makes it anew."
            return [Section("Diagnosis", said)]
        return sections_of(content, made.parent)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{shown(made)} is damaged: {reason(error)}. Remove {shown(made.parent)} and make it "
            f"again: {command}."
        ) from error


def _picture(folder: Path, name: str, content: dict[str, Any]) -> list[tuple[Path, str]]:
    """One that the run lists as its own; those of older versions list none."""
    listed, path = content.get("pictures"), folder / name
    if (isinstance(listed, list) and name not in listed) or not is_picture(path):
        return []
    return [(path, f"{path.stem} of the run, drawn")]
