"""A run on disk, of whatever task; no pickle anywhere.

``model.safetensors`` holds parameters and buffers by name, ``run.json`` all that is needed to
build the network again and to know how it came about, ``history.csv`` the epochs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bptt.errors import DataError, OptionError
from bptt.network import Network

MODEL, RECORD, HISTORY = "model.safetensors", "run.json", "history.csv"
CHECKPOINTS = "checkpoints"


def check_folder(folder: str | Path, force: bool = False) -> None:
    """Refuse a folder that cannot take a run, before any work is done for it.

    Raises:
        OptionError: it is a file, cannot be written, or has something in it and ``force`` is not
            given.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file: name a folder to put the run in.")
    if (folder / CHECKPOINTS).is_dir() and not (folder / RECORD).exists() and not force:
        raise OptionError(
            f"{folder} holds a run that was broken off: go on with it by `bptt fit --resume "
            f"{folder}`, name another folder, or begin anew in its place with --force."
        )
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


@contextmanager
def whole(folder: str | Path, force: bool = False) -> Iterator[Path]:
    """A folder to write into, whose files are moved to ``folder`` together at the end."""
    folder = Path(folder).absolute()
    check_folder(folder, force)
    absent = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Inside: the folder above may not be one to write to.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                os.replace(file, folder / file.name)
    except BaseException:
        if absent:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_record(path: Path, content: dict[str, Any]) -> None:
    """``run.json``: what JSON can say, and no NaN."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def task_of(folder: str | Path) -> str:
    """What a run was fitted for: ``"forecast"`` or another task.

    Raises:
        DataError: there is no run, or it is damaged.
    """
    content = read_json(Path(folder))
    named = content.get("task") if isinstance(content, dict) else None
    return named if isinstance(named, str) else "forecast"


def read_json(folder: Path) -> Any:
    """What ``run.json`` holds, of whatever task.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no run {folder}: name a folder that `bptt fit` wrote, as in `bptt fit "
            "--out RUN`."
        )
    path = folder / RECORD
    if not path.is_file():
        raise DataError(f"{folder} is no run: it has no {RECORD}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}. Fit the run again.") from error


def tensors_of(network: Network) -> dict[str, torch.Tensor]:
    """Parameters and buffers, as safetensors wants them."""
    return {name: value.detach().contiguous() for name, value in network.state_dict().items()}


def check_size(path: Path, hidden: int, layers: int, more: int) -> None:
    """Refuse a configuration whose weights cannot all be in the file, before any are made.

    Args:
        path: of the weights.
        hidden: units of each layer.
        layers: how many there are.
        more: weights of the first layer and the readout, at least.

    Raises:
        DataError: the file is missing, or too small.
    """
    if not path.is_file():
        raise DataError(f"{path.parent} is incomplete: it has no {path.name}. Fit the run again.")
    least, found = 4 * (layers * hidden * hidden + more), path.stat().st_size
    if found < least:
        raise DataError(
            f"{path} is damaged, or of another run than {RECORD}: {layers} layer(s) of {hidden} "
            f"units have at least {least} bytes of weights, and it has {found} bytes. Fit the run "
            "again."
        )


def load_weights(network: Network, path: Path) -> None:
    """Fill a network from a file.

    Raises:
        DataError: the file is missing or damaged, or of another network.
    """
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
