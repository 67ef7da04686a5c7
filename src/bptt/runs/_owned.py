"""What in a folder belongs to a run, by the run's own word: nothing else is ever replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeGuard

from bptt import files
from bptt.errors import BpttError, OptionError
from bptt.files import shown
from bptt.runs._folder import CHECKPOINTS, HISTORY, MODEL, RECORD, WHOLE, WRITTEN
from bptt.training import remove_checkpoints, strange_checkpoints

JOB = "job.json"
FORMAT = 3
"""Of ``job.json``, and the highest of any ``run.json``; raised when an older reader would fail, to
which they then belong to no run."""

STAGE = f"{files.UNFINISHED}run"
"""The folder in which the files of a run are put together, before it is renamed to ``.whole``."""


def content_of(path: Path) -> dict[str, Any] | None:
    """A JSON object out of a file; None if it holds none.

    Raises:
        OSError: it is there and cannot be read, so that nobody knows what it holds.
    """
    try:
        return files.json_object(files.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, ValueError, BpttError):
        return None


def listed(record: dict[str, Any]) -> set[str]:
    """The files that a record names as its own, itself among them; those of older versions name
    none, and mean model and history."""
    named, pictures = record.get("files"), record.get("pictures")
    own = {RECORD, *(named if isinstance(named, dict) else (MODEL, HISTORY))}
    if isinstance(pictures, list):
        own |= {name for name in pictures if isinstance(name, str)}
    return own & WRITTEN


def trained(folder: Path) -> int | None:
    """How many epochs the run that is in its place has trained, if it says so."""
    training = (content_of(folder / RECORD) or {}).get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    return epochs if type(epochs) is int else None


def is_record(content: dict[str, Any] | None) -> bool:
    """Whether it is the record of a run: other programs have a ``run.json`` too."""
    return _has(content, "data", "training") and isinstance(content["training"], dict)


def is_job(content: dict[str, Any] | None) -> bool:
    """Whether it is what a run was begun with."""
    return _has(content, "data", "every")


def _has(content: dict[str, Any] | None, *names: str) -> TypeGuard[dict[str, Any]]:
    return (
        content is not None
        and type(content.get("format")) is int
        and 1 <= content["format"] <= FORMAT
        and isinstance(content.get("options"), dict)
        and all(name in content for name in names)
    )


def owned(folder: Path) -> set[str]:
    """The files in ``folder`` that belong to a run: to the one that is in its place, or to one that
    waits in ``.whole``. A link belongs to none, as what it leads to is another's."""
    return in_place(folder) | {n for n in _named(folder / WHOLE) if files.is_plain(folder / n)}


def in_place(folder: Path) -> set[str]:
    """Those of the run that is in its place."""
    return {name for name in _named(folder) if files.is_plain(folder / name)}


def _named(folder: Path) -> set[str]:
    """What the record in a folder, and what its run was begun with, say."""
    record, job = content_of(folder / RECORD), content_of(folder / JOB)
    names = listed(record) if record is not None and is_record(record) else set()
    return names | ({JOB} if is_job(job) else set())


def is_staged(place: Path) -> bool:
    """Whether a folder, ``.whole`` or the one that becomes it, holds nothing but files of a run."""
    if place.is_symlink() or not place.is_dir():
        return False
    return all(p.name in WRITTEN | {JOB} and files.is_plain(p) for p in place.iterdir())


def sweep(folder: Path) -> None:
    """Remove what processes that died while they wrote left in the folder of a run, which nobody
    else writes to."""
    files.sweep(folder)
    if is_staged(folder / STAGE):
        files.remove_folder(folder / STAGE)


def replacements(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest last, of runs that are to take the place of the one that
    is there."""
    found = []
    for path in folder.glob(f"{CHECKPOINTS}-*") if folder.is_dir() else ():
        if path.is_symlink():  # what it leads to is another's
            continue
        number = path.name.removeprefix(f"{CHECKPOINTS}-")
        # With a record, a model or a folder of checkpoints it is a run of its own.
        whole = any(os.path.lexists(path / name) for name in (RECORD, MODEL, CHECKPOINTS, WHOLE))
        if number.isdecimal() and not whole and is_job(content_of(path / JOB)):
            found.append((int(number), path))
    return [path for _, path in sorted(found)]


def broken_off(folder: Path) -> bool:
    """Whether there is a run that can go on and has not come to its end."""
    begun = is_job(content_of(folder / JOB)) and (folder / CHECKPOINTS).is_dir()
    return bool(replacements(folder)) or (begun and not (folder / RECORD).exists())


def check_folder(folder: str | Path, force: bool = False) -> None:
    """Refuse a folder that cannot take a run, before any work is done for it.

    Raises:
        OptionError: it is a file or cannot be written; it has something in it and ``force`` is not
            given, or what is in the way belongs to no run.
    """
    folder = Path(folder)
    files.check_writable(folder)
    inside = [p for p in folder.iterdir() if not _is_left(p)] if folder.is_dir() else []
    if inside and not force:
        if broken_off(folder):
            raise OptionError(
                f"{shown(folder)} holds a run that was broken off: go on with it by `bptt fit "
                f"--resume {shown(folder)}`, name another folder, or begin anew in its place with "
                "--force."
            )
        raise OptionError(
            f"{shown(folder)} exists and is not empty: name another folder, or replace the run in "
            "it with --force."
        )
    if inside:
        check_free(folder, anew=True)


def _is_left(path: Path) -> bool:
    """Whether it is what a process left that died while it wrote, so that `sweep` removes it."""
    return files.is_unfinished(path) or (path.name == STAGE and is_staged(path))


def check_free(folder: Path, anew: bool = False) -> None:
    """Refuse to put a run in the place of what belongs to none.

    Args:
        folder: where the run goes.
        anew: whether it is to replace another, so that its checkpoints would have to go where
            others are.

    Raises:
        OptionError: a file of the name of one of a run, or the checkpoints, is there and no run
            lists it.
    """
    names = (WRITTEN | {JOB}) - owned(folder)
    strange = sorted(name for name in names if os.path.lexists(folder / name))
    for name in (WHOLE, STAGE):
        if os.path.lexists(folder / name) and not is_staged(folder / name):
            strange.append(name)
    saved = folder / CHECKPOINTS
    ours = JOB in owned(folder) and saved.is_dir() and not saved.is_symlink()
    if os.path.lexists(saved) and not ours:
        strange.append(CHECKPOINTS)
    elif anew and saved.is_dir():
        strange += [f"{CHECKPOINTS}/{name}" for name in strange_checkpoints(saved) if name != JOB]
    if strange:
        raise OptionError(
            f"{shown(folder)} holds {', '.join(strange[:5])}, which no run there lists as its own, "
            "and a run replaces only what one lists. Move it away, or name another folder."
        )


def remove_saved(saved: Path) -> None:
    """Remove the checkpoints in a folder, what they were begun with, and the folder if nothing else
    is in it; where it is a link, what it leads to is another's."""
    if saved.is_symlink():
        return
    remove_checkpoints(saved)
    if is_job(content_of(saved / JOB)):
        files.remove(saved / JOB)
    files.drop_if_empty(saved)
