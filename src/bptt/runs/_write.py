"""How a run comes into its folder: whole, whenever its process dies.

Its files are put together in a folder apart, the record last, and that folder is renamed to
``.whole``: from there on it is the run. Then each file moves to its place, the record last, and
what the run before it listed and this one does not is removed. A process that dies in between
leaves the rest to the next one (`settle`), and readers look into ``.whole`` first.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bptt import files
from bptt.drawing import Pictures, apart
from bptt.errors import OptionError
from bptt.files import shown
from bptt.runs._folder import CHECKPOINTS, RECORD, WHOLE, WRITTEN
from bptt.runs._owned import (
    JOB,
    STAGE,
    check_folder,
    check_free,
    content_of,
    in_place,
    is_job,
    is_record,
    is_staged,
    remove_saved,
    replacements,
    sweep,
)
from bptt.training import Hold


@dataclass(frozen=True)
class Made:
    """A run that can be written.

    Attributes:
        parts: the files that belong to it, by their names, which `bptt.runs` knows.
        record: for ``run.json``, which gets their checksums.
        pictures: what is drawn beside them.
    """

    parts: dict[str, bytes]
    record: dict[str, Any]
    pictures: Pictures = field(default_factory=dict)


def write_run(folder: str | Path, made: Made, force: bool = False) -> list[Path]:
    """Write a run: its model and record, all or nothing, then its pictures, each apart.

    Args:
        folder: made if it is absent.
        made: the run.
        force: replace the run that is there; other files stay.

    Returns:
        The files written.

    Raises:
        OptionError: as `bptt.runs.check_folder`.
        CheckpointError: another run is being written there.
        OSError: something cannot be written; what was there is as it was.
    """
    folder = Path(folder).absolute()
    check_folder(folder, force)
    new = not folder.exists()
    files.make_folder(folder)
    with Hold(folder) as hold:
        try:
            sweep(folder)
            written = put(folder, made, saved=False)
            return sorted([*written, *apart(folder, made.pictures)])
        finally:
            if new and hold.is_there():
                files.drop_if_empty(folder)


def put(folder: Path, made: Made, saved: bool = True) -> list[Path]:
    """Let a run take its place in ``folder``, which is there, and which nobody else writes to; its
    pictures are to be drawn after that.

    Args:
        folder: of the run.
        made: the run.
        saved: whether its training was saved, so that what it was begun with is kept.

    Returns:
        The files written.
    """
    assert {*made.parts, *made.pictures} <= WRITTEN - {RECORD}
    settle(folder)
    check_free(folder)
    sums = files.sums(made.parts)
    record = {**made.record, "files": sums, "pictures": list(made.pictures), "saved": saved}
    newest = replacements(folder)[-1:]
    more = {JOB: files.read_bytes(newest[0] / JOB)} if saved and newest else {}
    sweep(folder)
    try:
        parts = {**made.parts, **more, RECORD: _json(record)}
        files.write_folder(folder / WHOLE, folder / STAGE, parts)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    settle(folder)
    return [folder / name for name in (*made.parts, RECORD)]


def list_pictures(folder: Path, names: list[str]) -> None:
    """Let a run that is in its place name other pictures as its own: where one could not be drawn,
    another's of its name may come there."""
    record = content_of(folder / RECORD)
    if record is not None:
        files.write_bytes(folder / RECORD, _json({**record, "pictures": names}))


def settle(folder: Path) -> None:
    """Bring the files of a whole run to their places, and remove what the run before it listed; all
    of it, or what a process that died left to be done.

    Raises:
        OptionError: what waits is no run, or what stands in its place belongs to none.
    """
    whole = folder / WHOLE
    if not os.path.lexists(whole):
        return
    _check_waiting(folder, whole)
    record = content_of(whole / RECORD)
    if record is not None:
        for path in sorted(whole.iterdir()):
            if path.name not in (RECORD, JOB):
                os.replace(path, folder / path.name)
        for name in in_place(folder) - {RECORD, JOB, *record["files"]}:
            files.remove(folder / name)
        # Disks may keep renames in another order: a record in its place says that all else is.
        files.flush(folder)
        files.flush(whole)
        os.replace(whole / RECORD, folder / RECORD)
        files.flush(folder)
    _settle_saved(folder, whole)
    files.drop_if_empty(whole)


def _check_waiting(folder: Path, whole: Path) -> None:
    inside = {path.name for path in whole.iterdir()} if is_staged(whole) else {WHOLE}
    record = content_of(whole / RECORD) if RECORD in inside else None
    parts = record.get("files") if record is not None and is_record(record) else None
    strange = [WHOLE]
    # The record moves last but for the job.
    if inside <= {JOB} or (isinstance(parts, dict) and inside - {RECORD, JOB} <= parts.keys()):
        strange = [name for name in inside - in_place(folder) if os.path.lexists(folder / name)]
    if strange:
        raise OptionError(
            f"{shown(folder)} holds {', '.join(sorted(strange))}, which no run there lists as its "
            "own: move it away, or name another folder."
        )


def _settle_saved(folder: Path, whole: Path) -> None:
    """The checkpoints of the run that was replaced go, and those of the new one get their name."""
    record = content_of(folder / RECORD) or {}
    saved = folder / CHECKPOINTS
    if (whole / JOB).exists():
        *older, newest = [saved, *replacements(folder)]
        for one in older:
            remove_saved(one)
        if newest != saved and not saved.exists():
            os.rename(newest, saved)
        if is_job(content_of(saved / JOB)):
            files.remove(saved / JOB)
        files.flush(folder)
        os.replace(whole / JOB, folder / JOB)
    elif record.get("saved") is False:
        # What was to replace the run before this one is older than this one.
        older = replacements(folder)
        if is_job(content_of(folder / JOB)):
            older.append(saved)
        for one in older:
            remove_saved(one)
        if saved in older:
            files.remove(folder / JOB)


def _json(content: dict[str, Any]) -> bytes:
    """What JSON can say, and no NaN."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode("utf-8", "backslashreplace")
