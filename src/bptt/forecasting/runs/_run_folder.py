"""The run of a forecaster on disk: weights, configuration, history and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save as save_tensors

from bptt.forecasting.model._forecaster import Forecaster
from bptt.forecasting.model._network import Weights, build
from bptt.forecasting.runs._pictures import pictures
from bptt.forecasting.runs._record import Record
from bptt.forecasting.runs._train import Result
from bptt.runs import (
    HISTORY,
    MODEL,
    RECORD,
    Files,
    Made,
    check_size,
    load_weights,
    read_run,
    tensors_of,
    write_run,
)


def made(result: Result) -> Made:
    """The run, to be written."""
    parts = {
        MODEL: save_tensors(tensors_of(_weights(result.forecaster))),
        HISTORY: result.history.as_csv().encode(),
    }
    return Made(parts, Record.of(result).to_json(), pictures(result))


def save(result: Result, folder: str | Path, force: bool = False) -> list[Path]:
    """Write a run, all of it or nothing; then its pictures, of which each that fails is told in a
    warning.

    Args:
        result: from `bptt.forecasting.train`.
        folder: made if it is absent.
        force: replace the files that the run which is there lists as its own; other files stay.

    Returns:
        The files written.

    Raises:
        OptionError: as `bptt.runs.check_folder`.
        CheckpointError: another run is being written there.
    """
    return write_run(folder, made(result), force)


def load(folder: str | Path) -> Forecaster:
    """The forecaster of a run.

    Raises:
        DataError: a file is missing or damaged, the weights do not fit the configuration, or the
            run was written by a newer version.
    """
    return forecaster_of(read_run(folder))


def forecaster_of(run: Files) -> Forecaster:
    """`load`, of files that were read already."""
    record, path = record_of(run), run.folder / MODEL
    hidden, layers = record.options.hidden, record.options.layers
    weights = run.part(MODEL)
    linear = record.reader.linear
    doubles = sum(part.weight.size for part in linear.parts)
    check_size(path, len(weights), hidden, layers, hidden * record.features + 2 * doubles)
    network = build(record.options, record.features)
    stored = Weights(network, linear.parts)
    load_weights(stored, path, weights)
    network.eval()
    parts = [
        replace(part, weight=stored.get_buffer(f"linear_{i}").numpy())
        for i, part in enumerate(linear.parts)
    ]
    return Forecaster(
        network,
        replace(record.reader, linear=replace(linear, parts=tuple(parts))),
        record.gain,
        record.options,
        record.input_names,
        record.target_name,
        record.missing,
        record.spread,
        record.time,
        record.group,
        record.trained,
        record.units,
    )


def _weights(forecaster: Forecaster) -> Weights:
    return Weights(forecaster.network, forecaster.reader.linear.parts)


def record_of(run: Files) -> Record:
    """What ``run.json`` of a forecaster holds, checked."""
    return Record.from_json(run.record, run.folder / RECORD)
