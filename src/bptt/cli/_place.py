"""Where a run or a file goes, asked before any work is done for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from bptt import _ending, files
from bptt.cli._processes import decided
from bptt.diagnostics import owned as diagnosed
from bptt.errors import CheckpointError, OptionError
from bptt.files import shown
from bptt.forecasting import DIAGNOSIS
from bptt.runs import CHECKPOINTS, WHOLE, owned, replacements, settle, sweep
from bptt.training import Hold, Place


@contextmanager
def held(
    choose: Callable[[], Path], check: Callable[[Path], None], new: bool = False
) -> Iterator[Place]:
    """Within, nobody else writes to a folder; it is made, and goes again if nothing comes into it.
    Whoever writes to it later asks first whether it still is there.

    Args:
        choose: the folder; may refuse.
        check: refuses what is in it, once nobody else may change that.
        new: whether ``choose`` makes it.

    Raises:
        CheckpointError: another run is written there.
    """
    made: list[Path] = []
    holds: list[Hold] = []

    def take() -> Path:
        folder = choose()
        absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
        made.extend([folder] if new else absent)
        while not holds or not holds[0].is_there():  # another process may remove it as it leaves
            release()
            files.make_folder(folder)
            holds.append(Hold(folder))
        settle(folder)
        sweep(folder)
        check(folder)
        return folder

    def drop() -> None:
        if holds and holds[0].is_there():  # else it is another's
            for path in made:
                files.drop_if_empty(path)

    def release() -> None:
        while holds:
            holds.pop().release()

    _ending.before.append(drop)
    try:
        folder = decided(take)
        yield holds[0] if holds else Place(folder)
    finally:
        _ending.before.remove(drop)
        drop()
        release()


def free(names: str = "bptt-run") -> Path:
    """A new folder under the first name that is free: ``bptt-run``, ``bptt-run-2``, …"""
    count, folder = 1, Path(names)
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            count += 1
            folder = Path(f"{names}-{count}")


def made(names: str = "bptt-run") -> list[Path]:
    """The folders that `free` may have made and that no run writes to, the newest first."""
    found = [path for path in Path().glob(f"{names}*") if path.is_dir()]
    return sorted(filter(_is_free, found), key=lambda path: path.stat().st_mtime, reverse=True)


def _is_free(folder: Path) -> bool:
    try:
        Hold(folder).release()
    except CheckpointError:
        return False
    return True


def check_out(out: Path, force: bool, run: Path, data: Path | None = None) -> list[Path]:
    """Refuse a file that cannot be written, or that would take the place of another; on a terminal
    it is asked for.

    Args:
        out: the file.
        force: replace what is there without asking.
        run, data: what is read, and never replaced, whatever its name.

    Returns:
        As `check_outs`.

    Raises:
        OptionError: it cannot be written, or is the data or a file of the run.
    """
    above = out.absolute().parent
    if not above.is_dir():
        raise OptionError(f"{shown(out)} cannot be written: there is no folder {shown(above)}.")
    files.check_writable(above)
    return check_outs([out], force, run, data)


def check_outs(
    outs: Sequence[Path], force: bool, run: Path | None = None, data: Path | None = None
) -> list[Path]:
    """Refuse files that would take the place of what is no file, of the data, or of a file of the
    run, whatever the name or the link that leads there; of others it is asked, and without a
    terminal they are refused unless ``force`` is given.

    Returns:
        Those that are absent, to be asked for again before they are written: another program may
        have put something there meanwhile.

    Raises:
        OptionError: one of them may not be written.
    """
    for out in outs:
        kind = "a folder" if out.is_dir() else files.kind_of(out)
        if kind is not None:
            raise OptionError(f"{shown(out)} is {kind}: name a file with --out.")
        check_not_data(out, data)
        if run is not None:
            _no_part_of(run, out)
    there = [path for path in outs if os.path.lexists(path)]
    absent = [path for path in outs if path not in there]
    if not there or force:
        return absent
    names = ", ".join(map(shown, there))
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(f"{names} exists. Replace?", abort=True, err=True)
        return absent
    raise OptionError(f"{names} exists: name another place with --out, or replace it with --force.")


def check_not_data(out: Path, data: Path | None) -> None:
    """Refuse to write where the data are read from.

    Raises:
        OptionError: both are one file.
    """
    if data is not None and files.same(out, data):
        raise OptionError(f"{shown(out)} is the data: name another place with --out.")


def _no_part_of(run: Path, out: Path) -> None:
    for name in owned(run):
        if files.same(out, run / name):
            raise OptionError(f"{shown(out)} is {name} of the run: name another place with --out.")
    for name in diagnosed(run / DIAGNOSIS):
        if files.same(out, run / DIAGNOSIS / name):
            raise OptionError(
                f"{shown(out)} is {name} of the run's diagnosis: name another place with --out."
            )
    place = Path(os.path.realpath(out))
    for saved in (run / CHECKPOINTS, *replacements(run), run / WHOLE):
        if place.is_relative_to(os.path.realpath(saved)):
            raise OptionError(
                f"{shown(out)} lies in {saved.name} of the run, which is its own: name another "
                "place with --out."
            )
