"""A run on disk, of whatever task; no pickle anywhere.

``model.safetensors`` holds parameters and buffers by name, ``run.json`` all that is needed to
build the network again and to know how it came about, ``history.csv`` the epochs. ``run.json``
names the other two by their checksums: what does not match it is not this run.

A run that is whole waits in ``.whole`` until its files stand in their places (`bptt.runs._write`).
Whoever reads a run takes each file from there as long as it is there, the record first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from bptt import files
from bptt.errors import BpttError, DataError, reason
from bptt.files import shown

MODEL, RECORD, HISTORY = "model.safetensors", "run.json", "history.csv"
CHECKPOINTS = "checkpoints"
WHOLE = ".whole"

PICTURES = ("loss.png", "prediction.png", "starts.png")
WRITTEN = frozenset({MODEL, HISTORY, RECORD, *PICTURES})
"""All that a run may consist of, of whatever task: a record can name these files as its own, and no
others, so that no record leads out of its folder or to a file of somebody else's."""

TRIES, PAUSE = 20, 0.05
"""How often and after how many seconds a run is read again while its files are being replaced."""


@dataclass(frozen=True)
class Files:
    """What belongs to a run, read together.

    Attributes:
        folder: of the run.
        record: what ``run.json`` holds.
        parts: the files that it names, whose checksums are right.
    """

    folder: Path
    record: Any
    parts: dict[str, bytes]

    def part(self, name: str) -> bytes:
        """One of the files.

        Raises:
            DataError: there is none.
        """
        if name not in self.parts:
            raise DataError(
                f"{shown(self.folder)} is incomplete: it has no {name}. Fit the run again."
            )
        return self.parts[name]


def read_run(folder: str | Path) -> Files:
    """Read the files of a run.

    Raises:
        DataError: there is no run, it is damaged, or a file is not the one that its record names.
    """
    folder = Path(folder)
    for _ in range(TRIES):
        before = _stamp(folder)
        try:
            return _read(folder)
        except DataError as error:
            failure = error
        if not _changing(folder) and _stamp(folder) == before:
            break
        time.sleep(PAUSE)
    raise failure


def _changing(folder: Path) -> bool:
    """Whether another process is replacing the run, so that reading it again may help."""
    return (folder / WHOLE).is_dir()


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Which record is in its place: where that changes, a run came there meanwhile, and may have
    come and gone in ``.whole``."""
    try:
        found = (folder / RECORD).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(folder: Path) -> Files:
    record = read_json(folder)
    listed = record.get("files") if isinstance(record, dict) else None
    if listed is None:  # of an older version, which had no checksums
        found = {name: _bytes(folder, name) for name in (MODEL, HISTORY)}
        return Files(folder, record, {n: data for n, data in found.items() if data is not None})
    if not isinstance(listed, dict) or not listed.keys() <= WRITTEN:
        raise DataError(
            f"{shown(folder / RECORD)} is damaged: files are not {', '.join(sorted(WRITTEN))}, or "
            "some of them. Fit the run again."
        )
    return Files(folder, record, {name: _checked(folder, name, listed[name]) for name in listed})


def _checked(folder: Path, name: str, about: Any) -> bytes:
    data = _bytes(folder, name)
    if data is None:
        raise DataError(f"{shown(folder)} is incomplete: it has no {name}. Fit the run again.")
    if not files.is_same(data, about):
        raise DataError(
            f"{shown(folder / name)} is damaged, or of another run than {RECORD}: its checksum is "
            "not the one named there. Fit the run again."
        )
    return data


def _bytes(folder: Path, name: str) -> bytes | None:
    """A file of a run; None where there is none."""
    for place in (folder / WHOLE / name, folder / name):
        try:
            return files.read_bytes(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise unreadable(error) from error
    return None


def unreadable(error: OSError) -> DataError:
    """The system does not let a file be read, of which nobody knows whether it is whole."""
    found = DataError(f"{files.why(error)}.")
    found.errno = error.errno
    return found


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
            f"there is no run {shown(folder)}: name a folder that `bptt fit` wrote, as in `bptt "
            "fit --out RUN`."
        )
    try:
        data = _bytes(folder, RECORD)
        if data is None:
            raise DataError(f"{shown(folder)} is no run: it has no {RECORD}.")
        return files.json_object(data)
    except BpttError:
        raise
    except ValueError as error:
        raise DataError(
            f"{shown(folder / RECORD)} is damaged: {reason(error)}. Fit the run again."
        ) from error


def tensors_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, as safetensors wants them."""
    return {name: value.detach().contiguous() for name, value in network.state_dict().items()}


def check_size(path: Path, found: int, hidden: int, layers: int, more: int) -> None:
    """Refuse a configuration whose weights cannot all be in the file, before any are made.

    Args:
        path: of the weights.
        found: the bytes that they have.
        hidden: units of each layer.
        layers: how many there are.
        more: weights of the first layer and the readout, at least.

    Raises:
        DataError: the file is too small.
    """
    least = 4 * (layers * hidden * hidden + more)
    if found < least:
        raise DataError(
            f"{shown(path)} is damaged, or of another run than {RECORD}: {layers} layer(s) of "
            f"{hidden} units have at least {least} bytes of weights, and it has {found} bytes. Fit "
            "the run again."
        )


def load_weights(network: torch.nn.Module, path: Path, data: bytes) -> None:
    """Fill a network.

    Args:
        network: whose weights are to be.
        path: where they come from, for messages.
        data: what is there.

    Raises:
        DataError: the weights are damaged, or of another network.
    """
    try:
        found = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown(path)} is damaged: {reason(error)}. Fit the run again.") from error
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [list(part[name].shape) if name in part else None for part in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{shown(path)} does not fit {RECORD}: {name} is {_shape(shapes[1])} in the file "
                f"and {_shape(shapes[0])} by the configuration. The two files are of different "
                "runs."
            )
        if wanted[name].dtype is not found[name].dtype:
            raise DataError(
                f"{shown(path)} is damaged: {name} is of {found[name].dtype}, not of "
                f"{wanted[name].dtype}. Fit the run again."
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise DataError(
                f"{shown(path)} is damaged: {name} holds NaN or infinity. Fit the run again."
            )
    network.load_state_dict(found)


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else str(shape)
