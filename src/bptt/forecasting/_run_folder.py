"""The run of a forecaster on disk: weights, configuration, history and pictures."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from bptt.forecasting._forecaster import Forecaster
from bptt.forecasting._model import build
from bptt.forecasting._record import Record
from bptt.forecasting._train import Result
from bptt.runs import (
    HISTORY,
    MODEL,
    RECORD,
    check_size,
    load_weights,
    read_json,
    tensors_of,
    whole,
    write_record,
)

STARTS = "starts.png"


def save(result: Result, folder: str | Path, force: bool = False) -> list[Path]:
    """Write a run, all of it or nothing: it is put together apart and moved to ``folder``.

    Args:
        result: from `bptt.forecasting.train`.
        folder: made if it is absent.
        force: replace the files of a run that is there; other files stay.

    Returns:
        The files written.

    Raises:
        OptionError: as `bptt.runs.check_folder`.
        BpttError: matplotlib is not installed.
    """
    from bptt.forecasting._pictures import draw

    with whole(folder, force) as made:
        save_file(tensors_of(result.forecaster.network), made / MODEL)
        write_record(made / RECORD, Record.of(result).to_json())
        result.history.to_csv(made / HISTORY)
        draw(result, made)
        names = sorted(file.name for file in made.iterdir())
    if not result.history.starts:
        (Path(folder) / STARTS).unlink(missing_ok=True)  # of the run that was replaced
    return [Path(folder).absolute() / name for name in names]


def load(folder: str | Path) -> Forecaster:
    """The forecaster of a run.

    Raises:
        DataError: a file is missing or damaged, the weights do not fit the configuration, or the
            run was written by a newer version.
    """
    folder = Path(folder)
    record = read_record(folder)
    hidden, layers = record.options.hidden, record.options.layers
    check_size(folder / MODEL, hidden, layers, hidden * record.features)
    network = build(record.options, record.features, record.taps)
    load_weights(network, folder / MODEL)
    network.eval()
    return Forecaster(
        network,
        record.scaling,
        record.options,
        record.input_names,
        record.target_name,
        record.missing,
    )


def read_record(folder: Path) -> Record:
    """What ``run.json`` of a forecaster holds, checked."""
    return Record.from_json(read_json(folder), folder / RECORD)
