"""When a run is saved, and what that may cost."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from bptt import files
from bptt.errors import CheckpointError, OptionError, at_least
from bptt.files import Hold
from bptt.training import _store
from bptt.training._pack import pack, unpack

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often training saves all that the rest of it depends on.

    Beside the regular ones there is a checkpoint before the first update, one at the end, and one
    when Ctrl-C, SIGTERM or SIGHUP ends training.

    Args:
        folder: holds the checkpoints of one run, ``checkpoint-00000000`` and so on.
        every: the time between two, ``"30s"``, ``"5min"``, ``"1h"``; or a number of updates.
        keep: how many of the newest to leave.
        share: of the training time, the most that regular saving may take: where a checkpoint
            takes long to write, they come less often than ``every`` says. ``math.inf`` lets
            them come as often as it says.
        begun: called once when training is about to begin or to go on, after every check.
        start: which of several starts is saved there, if it is one.
        beside: checksums, by name, of data that are not trained on and must be the same when
            training goes on.

    Raises:
        OptionError: an option is out of range.
    """

    folder: str | PathLike[str]
    every: str | int = "30s"
    keep: int = 3
    share: float = 0.01
    begun: Callable[[], None] | None = field(default=None, kw_only=True, compare=False, repr=False)
    start: str | None = field(default=None, kw_only=True, compare=False, repr=False)
    beside: Mapping[str, str] = field(default_factory=dict, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        at_least(1, keep=self.keep)
        if not isinstance(self.share, (int, float)) or not self.share > 0:
            raise OptionError(f"share must be a number above 0, not {self.share!r}.")
        named = os.fspath(self.folder) if isinstance(self.folder, os.PathLike) else self.folder
        if not isinstance(named, str) or "\0" in named:
            raise OptionError(f"folder must be a path, not {self.folder!r}.")
        if isinstance(self.every, str):
            _seconds(self.every)
        else:
            at_least(1, every=self.every)

    @property
    def path(self) -> Path:
        """The folder, wherever the process goes."""
        return Path(self.folder).absolute()


class Saver:
    """Saves a run regularly.

    Args:
        checkpoint: where and how often.
        state: all that is to be saved, as `bptt.training._pack.pack` takes it; None where another
            process saves it.
        about: plain numbers and strings for the manifest.
        writes: whether it is this process that saves.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        state: Callable[[], dict[str, Any] | None],
        about: Callable[[], dict[str, Any]],
        writes: bool = True,
    ) -> None:
        self.checkpoint = checkpoint
        self.folder = checkpoint.path
        self.spent = 0.0
        self.newest: Path | None = None
        self._state, self._about = state, about
        self._began = self._last = time.perf_counter()
        self._updates = 0
        self._cost = 0.0
        self._writes = writes
        self._hold: Hold | None = None

    def start(self) -> None:
        """Begin a run in a folder without checkpoints, with the first one.

        Raises:
            OptionError: there are some.
            CheckpointError: something in the run cannot be saved, or not here.
        """
        if os.path.exists(self.folder / _store.SEED):  # unlike Path's, it never raises
            raise OptionError(
                f"{self.folder} holds several starts: go on with starts=, or name another folder."
            )
        self._take()
        refuse_saved(self.folder)
        self.save(0)

    def resume(self) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint, None where there is none at all; damaged ones
        are named in a warning.

        Raises:
            CheckpointError: all are damaged, the newest is of a newer version, or another run
                writes there.
        """
        if _store.checkpoints(self.folder):
            self._take()
        found = _store.newest(self.folder)
        if found is None:
            return None
        if found.damaged:
            warnings.warn(
                f"{' '.join(found.damaged)} Training goes on from {found.path.name}.", stacklevel=4
            )
        state = unpack(found.content)
        try:
            self._cost, self._updates = float(state["saving"]), int(state["progress"]["updates"])
            if not 0 <= self._cost < math.inf:
                raise ValueError(f"saving took {self._cost} seconds")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{found.path} is no checkpoint of a run: {error!r}.") from error
        self.newest = found.path
        self._began = self._last = time.perf_counter()
        return state  # type: ignore[no-any-return]  # its keys have just been looked at

    def left(self, updates: int) -> int:
        """After how many more updates the next one may be due, at least 1."""
        every = self.checkpoint.every
        return 1 << 30 if isinstance(every, str) else max(1, self._updates + every - updates)

    def due(self, updates: int) -> bool:
        """Whether it is time for the next one."""
        now = time.perf_counter()
        if isinstance(self.checkpoint.every, str):
            waited = now - self._last >= _seconds(self.checkpoint.every)
        else:
            waited = updates - self._updates >= self.checkpoint.every
        trained = now - self._began - self.spent
        return waited and self.spent + self._cost <= self.checkpoint.share * trained

    def save(self, updates: int) -> Path:
        """Save now.

        Raises:
            CheckpointError: the disk is full or cannot be written; the one before is intact.
        """
        began = time.perf_counter()
        state = self._state()
        if state is not None:
            content = pack({**state, "saving": self._cost})
            if self._hold is not None:
                self._hold.check()
            self.newest = _store.write(self.folder, content, self.checkpoint.keep, **self._about())
        self._last = time.perf_counter()
        cost = self._last - began
        self._cost = max(self._cost, cost)  # of what the next one may take, the worst so far
        self._updates = updates
        self.spent += cost
        return self.newest or self.folder

    def close(self) -> None:
        """Others may save there."""
        if self._hold is not None:
            self._hold.release()

    def _take(self) -> None:
        """Nobody else may save there, and what a killed process left unfinished goes."""
        if self._writes and self._hold is None:
            with _store.writing(self.folder):
                files.make_folder(self.folder)
            self._hold = Hold(self.folder)
            _store.sweep(self.folder)


def checkpoints_in(folder: Path) -> bool:
    """Whether anything is saved in a folder, be it of a single run or of starts."""
    places = [folder, *folder.glob("start-*")]
    return any(_store.checkpoints(place) for place in places)


def refuse_saved(folder: Path) -> None:
    """Refuse to begin a run where one is saved.

    Raises:
        OptionError: there are checkpoints.
    """
    if _store.checkpoints(folder):
        raise OptionError(
            f"{folder} holds the checkpoints of a run: go on with it by resume=True, name another "
            "folder, or remove them."
        )


def own_seed(folder: Path, seed: int) -> None:
    """The starts in ``folder`` are those of one seed; the first ones say which.

    Raises:
        OptionError: they are of another one, or it holds the checkpoints of a single run.
        CheckpointError: it cannot be written to, or what says the seed is damaged.
    """
    if _store.checkpoints(folder):
        raise OptionError(
            f"{folder} holds the checkpoints of a single run: name another folder for the starts."
        )
    with _store.writing(folder):
        files.make_folder(folder)
    path = folder / _store.SEED
    if path.is_file():
        found = files.read_bytes(path)[:32].decode(errors="replace").strip()
        if not found.removeprefix("-").isdecimal():
            raise CheckpointError(
                f"{path} is damaged: it holds no seed. If the starts were begun with seed={seed}, "
                f"write {seed} into it."
            )
        if found != str(seed):
            raise OptionError(
                f"{folder} holds starts of seed={found}, not {seed}: give that one, or name "
                "another folder."
            )
        return
    with _store.writing(folder):
        files.write_text(path, f"{seed}\n")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h)\s*", text)
    if match is None:
        raise OptionError(
            f"every={text!r} is no time: write '30s', '5min' or '1h', or a number of updates."
        )
    return float(match[1]) * _UNITS[match[2]]
