"""Checkpoints on disk: written whole or not at all, checked before they are believed.

A checkpoint is a folder ``checkpoint-00000042`` of three files: ``tensors.safetensors``,
``state.json``, and ``manifest.json``, which names format and version and holds the size and the
SHA-256 sum of the other two and of itself. It is put together under a temporary name, every file
flushed to disk, then the folder, which is renamed, then the folder it lies in: whenever the process
or the machine dies, what bears the final name is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from bptt import files
from bptt.errors import CheckpointError, reason
from bptt.training._pack import Packed

FORMAT = 1
"""Of the files; raised when an older reader would fail."""

MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
MANIFEST_BYTES = 1 << 16
"""No manifest is larger."""

_NAME = re.compile(r"checkpoint-(\d{8,18})")
SEED = "seed"
"""The file that says of which seed the starts in a folder are."""

_START = re.compile(r"start-\d+")
_REMOVING = ".removing-"
_PASSING = re.compile(r"\.(writing|removing)-checkpoint-\d{8,18}")
"""A checkpoint that is being written, or removed."""

_MEND = "Make room and resume, or keep fewer checkpoints."


class Damaged(CheckpointError):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read.

    Attributes:
        path: its folder.
        about: its manifest.
        content: what was saved.
        damaged: newer ones that could not be used, and why, in words.
    """

    path: Path
    about: dict[str, Any]
    content: Packed
    damaged: tuple[str, ...] = ()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, the newest last; whether they are whole is not looked at."""
    try:
        inside = list(folder.iterdir()) if os.path.isdir(folder) else []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}.") from error
    return sorted((path for path in inside if _NAME.fullmatch(path.name)), key=_number)


@contextlib.contextmanager
def writing(folder: Path, size: int = 0) -> Iterator[None]:
    """Within, ``size`` bytes are written to ``folder``, or it is made.

    Raises:
        CheckpointError: the system refuses; the message says what can be done.
    """
    try:
        yield
    except OSError as error:
        refused = CheckpointError(_why(error, folder, size))
        refused.errno = error.errno
        raise refused from error


def write(folder: Path, content: Packed, keep: int, **about: Any) -> Path:
    """Add a checkpoint, then remove all but the ``keep`` newest.

    Args:
        folder: is there, and is not made again where it was moved away.
        content: what to save.
        keep: how many to leave, the new one among them.
        about: plain numbers and strings for the manifest.

    Returns:
        The new checkpoint.

    Raises:
        CheckpointError: the disk is full (with the room that is needed) or cannot be written; what
            was there before is intact.
    """
    parts = {TENSORS: _serialised(content), STATE: _json(content.plain)}
    parts[MANIFEST] = _manifest(parts, about)
    with writing(folder, sum(map(len, parts.values()))):
        present = checkpoints(folder)
        path = folder / f"checkpoint-{_number(present[-1]) + 1 if present else 0:08d}"
        files.write_folder(path, folder / f"{files.UNFINISHED}{path.name}", parts)
        _remove([*present, path][:-keep])
    return path


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished."""
    files.sweep(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PASSING.fullmatch(path.name) and _is_own(path):
            files.remove_folder(path)


def strange_checkpoints(folder: Path) -> list[str]:
    """What in a folder of checkpoints, or of starts that have checkpoints, this module did not
    write."""
    return sorted(path.name for path in folder.iterdir() if not _is_own(path))


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in a folder, and those of starts in it; what else is there stays, and
    so does what a link leads to."""
    if folder.is_symlink() or not folder.is_dir():
        return
    files.sweep(folder)
    for path in folder.iterdir():
        if _is_own(path):
            (files.remove_folder if path.is_dir() else files.remove)(path)


def _is_own(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return (path.name == SEED and files.is_plain(path)) or files.is_unfinished(path)
    if _PASSING.fullmatch(path.name) or _NAME.fullmatch(path.name):
        try:
            return all(one.name in (MANIFEST, STATE, TENSORS) for one in path.iterdir())
        except FileNotFoundError:  # another process removes an old one
            return True
    return _START.fullmatch(path.name) is not None and not strange_checkpoints(path)


def newest(folder: Path) -> Found | None:
    """The newest whole checkpoint in ``folder``; None where there is none at all.

    Raises:
        CheckpointError: all are damaged, or the newest was written by a newer version.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            found = read(path)
        except Damaged as error:
            damaged.append(str(error))
            continue
        return Found(path, found.about, found.content, tuple(damaged))
    if damaged:
        raise CheckpointError("no checkpoint is whole: " + " ".join(damaged))
    return None


def read(path: Path) -> Found:
    """One checkpoint, checked.

    Raises:
        Damaged: a file is absent, or not what was written.
        CheckpointError: it was written by a newer version.
    """
    about = _read_manifest(path)
    listed = about["files"]
    state, tensors = _checked(path, STATE, listed), _checked(path, TENSORS, listed)
    try:
        return Found(path, about, Packed(json.loads(state), safetensors.torch.load(tensors)))
    except (ValueError, RecursionError, SafetensorError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged: {reason(error)}.") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        files.regular(path / MANIFEST)
        with open(path / MANIFEST, "rb") as file:
            data = file.read(MANIFEST_BYTES + 1)
        if len(data) > MANIFEST_BYTES:
            raise ValueError("it is too long")
        about = files.json_object(data)
        checksum = about.pop("sha256", None)
        if checksum != _sum(_json(about)):
            raise ValueError("its checksum is another")
        written = about["format"]
        if not isinstance(written, int):
            raise ValueError(f"format is {written!r}")
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{path} is damaged: {MANIFEST}: {reason(error)}.") from error
    if written > FORMAT:
        raise CheckpointError(
            f"{path} has format {written}, of bptt {about.get('bptt', '(unknown)')}; this version "
            f"of bptt reads up to format {FORMAT}: update it with `pip install --upgrade bptt`."
        )
    return about


def _checked(path: Path, name: str, listed: Any) -> bytes:
    """The bytes of a file, if they are those that the manifest tells."""
    try:
        about = listed[name]
        found = (path / name).stat().st_size
        if found != about["bytes"]:
            raise ValueError(f"it has {found} bytes, not {about['bytes']}")
        data = files.read_bytes(path / name)
        if not files.is_same(data, about):
            raise ValueError("its checksum is another")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {name}: {reason(error)}.") from error
    return data


def _manifest(parts: dict[str, bytes], about: dict[str, Any]) -> bytes:
    content = {"format": FORMAT, **about, "files": files.sums(parts)}
    return _json({**content, "sha256": _sum(_json(content))})


def _serialised(content: Packed) -> bytes:
    try:
        return safetensors.torch.save(content.tensors)
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"the tensors cannot be saved: {error}.") from error


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, sort_keys=False).encode()


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _remove(old: list[Path]) -> None:
    """Renamed first, so that one half removed is not taken for a checkpoint."""
    for path in old:
        going = path.with_name(_REMOVING + path.name)
        os.rename(path, going)
        files.remove_folder(going)


def _why(error: OSError, folder: Path, size: int) -> str:
    """What to do about a checkpoint that could not be written."""
    if os.path.isfile(folder):  # unlike Path's, it never raises
        return f"{folder} is a file: name a folder for the checkpoints."
    whole = [path.name for path in checkpoints(folder)[-1:]]
    kept = f" The last one, {whole[0]}, is intact." if whole else ""
    if files.is_full(error):
        return f"no room for a checkpoint in {folder}: {files.room(folder, size)}.{kept} {_MEND}"
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return (
            f"{folder} is being written to by another process: {error}. Give every run a folder "
            "of its own."
        )
    return f"no checkpoint could be written to {folder}: {error.strerror or error}.{kept}"
