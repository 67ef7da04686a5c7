"""A run on disk: weights, configuration, history and pictures; no pickle anywhere.

``model.safetensors`` holds parameters and buffers by name, ``run.json`` all that is needed to
build the network again and to know how it came about, ``history.csv`` the epochs.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bptt.errors import DataError, OptionError
from bptt.forecasting._forecaster import Forecaster
from bptt.forecasting._model import build
from bptt.forecasting._record import Record
from bptt.forecasting._train import Result
from bptt.network import Network

MODEL, RECORD, HISTORY = "model.safetensors", "run.json", "history.csv"
STARTS = "starts.png"


def check_folder(folder: str | Path, force: bool = False) -> None:
    """Refuse a folder that cannot take a run, before any work is done for it.

    Raises:
        OptionError: it is a file, cannot be written, or has something in it and ``force`` is not
            given.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file: name a folder to put the run in.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OptionError(
            f"{folder} exists and is not empty: name another folder, or replace the run in it with "
            "--force."
        )
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OptionError(f"{folder} cannot be made: {above} is not a folder that can be written.")


def save(result: Result, folder: str | Path, force: bool = False) -> list[Path]:
    """Write a run, all of it or nothing: it is put together beside ``folder`` and moved there.

    Args:
        result: from `bptt.forecasting.train`.
        folder: made if it is absent.
        force: replace the files of a run that is there; other files stay.

    Returns:
        The files written.

    Raises:
        OptionError: as `check_folder`.
        BpttError: matplotlib is not installed.
    """
    from bptt.forecasting._pictures import draw

    folder = Path(folder).absolute()
    check_folder(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        made = Path(name)
        save_file(_tensors(result.forecaster.network), made / MODEL)
        text = json.dumps(Record.of(result).to_json(), indent=2, allow_nan=False)
        (made / RECORD).write_text(text + "\n", encoding="utf-8")
        result.history.to_csv(made / HISTORY)
        draw(result, made)
        folder.mkdir(exist_ok=True)
        files = sorted(made.iterdir())
        if not result.history.starts:
            (folder / STARTS).unlink(missing_ok=True)  # of the run that is replaced
        for file in files:
            os.replace(file, folder / file.name)
    return [folder / file.name for file in files]


def load(folder: str | Path) -> Forecaster:
    """The forecaster of a run.

    Raises:
        DataError: a file is missing or damaged, the weights do not fit the configuration, or the
            run was written by a newer version.
    """
    folder = Path(folder)
    record = read_record(folder)
    network = build(record.options, record.features, record.taps)
    _load_weights(network, folder / MODEL)
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
    """What ``run.json`` holds, checked."""
    if not folder.is_dir():
        raise DataError(
            f"there is no run {folder}: name a folder that `bptt fit` wrote, as in `bptt fit "
            "--out RUN`."
        )
    path = folder / RECORD
    if not path.is_file():
        raise DataError(f"{folder} is no run: it has no {RECORD}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}. Fit the run again.") from error
    return Record.from_json(content, path)


def _tensors(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous() for name, value in network.state_dict().items()}


def _load_weights(network: Network, path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path.parent} is incomplete: it has no {path.name}. Fit the run again.")
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}. Fit the run again.") from error
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [list(part[name].shape) if name in part else None for part in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{path} does not fit {RECORD}: {name} is {_shape(shapes[1])} in the file and "
                f"{_shape(shapes[0])} by the configuration. The two files are of different runs."
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise DataError(f"{path} is damaged: {name} holds NaN or infinity. Fit the run again.")
    network.load_state_dict(found)


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else str(shape)
