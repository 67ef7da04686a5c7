"""The command line under faults: in every case one call that changes the disk fails once, or the
process is killed or told to end there, or at a random moment, or its data is replaced. What was
there before must be there afterwards, and the same command, or ``--resume``, must end as the run
that nothing disturbed. Every second case lets a call fail, each call of each command once before
any of them fails again.

    python -m tests.torture.faults --cases 2000 --seed 0 --json docs/figures/faults.json

Each case runs in a process forked after the imports; those of ``anew`` import all themselves.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import math
import mmap
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from tests.torture.commands import (
    COMMANDS,
    Later,
    conclude,
    make_data,
    make_world,
    model,
    process,
    warm,
)

NAMES = "open write fsync mkdir rename replace unlink rmdir chmod"
CALLS = [*((os, name) for name in NAMES.split()), (fcntl, "flock")]
"""What changes the disk, or locks."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
KINDS = {
    "kill": 2,
    "SIGTERM": 2,
    "SIGINT": 2,
    "later SIGTERM": 3,
    "later SIGINT": 3,
    "later SIGKILL": 2,
    "anew SIGTERM": 2,
    "anew SIGINT": 2,
    "replaced": 2,
}
"""What happens besides errors, and how often: at a call that changes the disk, or ``later``, at a
random moment of a process, or of one that begins ``anew`` and may be importing still."""


@dataclass
class Score:
    """What came of it: how many cases of each kind, in how many of these the fault came, as the
    command may end before it, how many commands did not reach their end, and what was lost."""

    cases: int = 0
    by_command: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    stopped: int = 0
    lost: list[str] = field(default_factory=list)


def counting(count: Callable[[str], None]) -> None:
    """From here on every call that changes the disk is told before it is made."""
    for module, name in CALLS:
        real = getattr(module, name)

        def call(*given: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            count(_name)
            return _real(*given, **options)

        setattr(module, name, call)


def calls_of(folder: Path, command: list[str]) -> int:
    """How many such calls a command makes."""
    seen = [0]

    def count(name: str) -> None:
        seen[0] += 1

    def arm() -> None:
        counting(count)
        real = os._exit

        def ending(code: int) -> NoReturn:
            Path("calls").write_text(str(seen[0]))
            real(code)

        os._exit = ending  # type: ignore[assignment]

    code, told = process(folder, command, arm=arm)
    assert code == 0, told
    found = int((folder / "calls").read_text())
    (folder / "calls").unlink()
    return found


def fault(kind: str, number: int, at: int, fired: mmap.mmap) -> Callable[[], None]:
    """What prepares a process for its fault at call ``at``; ``fired`` is shared with it."""
    seen = [0]

    def count(name: str) -> None:
        seen[0] += 1
        if seen[0] != at:
            return
        fired[0] = 1
        if kind == "error":
            raise OSError(number, os.strerror(number))
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else getattr(signal, kind))

    return lambda: counting(count)


class Torture:
    """Commands, how each ends undisturbed, and what was lost of any."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.score = folder, Score()
        self.world = folder / "world"
        self.world.mkdir()
        warm(folder)
        make_world(self.world)
        began = time.monotonic()
        process(self.world, ["--version"], anew=True)
        self.importing = time.monotonic() - began
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.ends: dict[str, list[Path]] = {}
        """Of each command: with the data that are there, and with those that replace them."""
        for name in names:
            own = self._copy(f"end {name}")
            began = time.monotonic()
            self.calls[name] = calls_of(own, COMMANDS[name])
            self.seconds[name] = time.monotonic() - began
            other = self._copy(f"other end {name}")
            make_data(other, seed=1)
            process(other, COMMANDS[name])
            self.ends[name] = [own, other]

    def _copy(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.world, place)
        return place

    def every_call(self, draw: random.Random) -> Iterator[tuple[str, int]]:
        """A command and the number of one of its calls: all in a random order, again and again."""
        calls = [(name, at) for name, count in self.calls.items() for at in range(1, count + 1)]
        while True:
            draw.shuffle(calls)
            yield from calls

    def case(self, name: str, kind: str, at: int, draw: random.Random) -> None:
        """One fault, the state after it, and the end after that."""
        number = draw.choice(ERRORS)
        place, anew = self._copy("case"), kind.startswith("anew")
        delay = draw.uniform(0, self.seconds[name] + anew * self.importing)
        fired = mmap.mmap(-1, 1)
        if kind == "replaced":
            later = Later(partial(_replace, place, fired), delay)
            code, told = process(place, COMMANDS[name], later=later)
        elif anew or kind.startswith("later"):
            later = Later(partial(_send, getattr(signal, kind.split()[1]), fired), delay)
            code, told = process(place, COMMANDS[name], later=later, anew=anew)
        else:
            code, told = process(place, COMMANDS[name], arm=fault(kind, number, at, fired))
        which = f"{name}, {kind} {errno.errorcode[number]} at call {at} or after {delay:.3f} s"
        self.score.cases += 1
        for counts, key, more in (
            (self.score.by_command, name, 1),
            (self.score.by_kind, kind, 1),
            (self.score.fired, kind, fired[0]),
        ):
            counts[key] = counts.get(key, 0) + more
        fired.close()
        self.score.stopped += code != 0
        ends = self.ends[name] if kind == "replaced" else self.ends[name][:1]
        for problem in (
            *_told(code, told),
            *self._after(name, place, ends),
            *self._gone_on(name, place, code, ends, kind == "replaced"),
        ):
            self.score.lost.append(f"{which}: exit code {code}: {problem}: {told[-1500:]}")
            print(self.score.lost[-1], flush=True)

    def _after(self, name: str, place: Path, ends: list[Path]) -> list[str]:
        """What of what was there is not there any more."""
        lost = []
        for path in (path for path in self.world.rglob("*") if path.is_file()):
            inside = path.relative_to(self.world)
            if inside.parts[0] == _run_of(name) and name.startswith(("fit --force", "fit --res")):
                continue  # looked at as a run
            if name == "diagnose" and inside.suffix in (".png", ".html"):
                continue  # drawn anew from the numbers, each apart
            allowed = [one / inside for one in (self.world, *ends) if (one / inside).is_file()]
            now = place / inside
            if not now.is_file() or not any(_same(now, one) for one in allowed):
                lost.append(f"{inside} is not what it was")
        if (place / "run" / "notes").read_text() != "mine":
            lost.append("the notes are gone")
        if model(place / "run") not in [model(one / "run") for one in (self.world, *ends)]:
            lost.append("the run is neither the old one nor the new one")
        return lost

    def _gone_on(
        self, name: str, place: Path, code: int, ends: list[Path], replaced: bool
    ) -> list[str]:
        """How the end differs from the undisturbed one, if the command is repeated or resumed."""
        command, lost = COMMANDS[name], []
        fits, run = name.startswith("fit"), _run_of(name)
        if code != 0:
            if replaced and (place / run / "job.json").exists():
                # With other data than it was begun with it does not go on, or ends with them.
                code, told = process(place, ["fit", "--resume", run, "--quiet"])
                lost += [p for p in _told(code, told) if "Traceback" in told or "start" in p]
                if code == 0 and model(place / run) not in [model(one / run) for one in ends]:
                    return [*lost, "it went on with other data"]
            make_data(place)  # where they were replaced: back to those that it was begun with
            begun = [place / run / "job.json", *place.glob(f"{run}/checkpoints-*/job.json")]
            resumed = fits and any(path.exists() for path in begun)
            again = ["fit", "--resume", run, "--quiet"] if resumed else command
            if name.startswith("fit --resume"):
                again = command
            if name == "fit --force" and not list(place.glob(f"{run}/checkpoints-*/job.json")):
                again = command
            code, told = process(place, again)
            ends = ends[:1]
            if code != 0:
                lost.append(f"{' '.join(again)} ended with {code}: {told[-1500:]}")
        if fits and model(place / run) not in [model(one / run) for one in ends]:
            lost.append("it ended with other weights")
        if name == "predict" and not any(_same(place / "p.csv", one / "p.csv") for one in ends):
            lost.append("it ended with other predictions")
        if fits and _left(place):  # what could not be removed, the next one removes
            code, told = process(place, ["fit", "--resume", run, "--quiet"])
            if code != 0 or _left(place):
                lost.append(f"{_left(place)} is left: {code}: {told[-1500:]}")
        return lost


def _run_of(name: str) -> str:
    """The folder that a command trains in."""
    named = {"fit": "new", "fit --starts": "more", "fit --resume --starts": "many"}
    return named.get(name, "run")


def _left(place: Path) -> list[Path]:
    """Hidden files, and hidden folders with something in them."""
    return [p for p in place.rglob(".*") if not p.is_dir() or any(p.iterdir())]


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _replace(place: Path, fired: mmap.mmap, process: int) -> None:
    fired[0] = 1
    make_data(place, seed=1)


def _send(number: int, fired: mmap.mmap, process: int) -> None:
    fired[0] = 1
    os.kill(process, number)


def _told(code: int, told: str) -> list[str]:
    if "is left out" in told:
        return ["a start that was disturbed counts as failed"]
    if code in (-signal.SIGKILL, 0):
        return []
    if "Traceback" in told or code not in (1, 2, 130, 143):
        return ["a traceback, or an exit code that means nothing"]
    if code in (130, 143) and len([x for x in told.splitlines() if x.startswith("Stopped. ")]) != 1:
        return ["it does not say in one line what is saved"]
    return []


def torture(cases: int, seconds: float, seed: int, names: list[str]) -> Score:
    """So many cases, errors of every call and other faults of all ``names`` in turn, until the
    ``seconds`` are over."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        made = Torture(Path(folder), names)
        print(f"calls that can fail: {made.calls}", flush=True)
        calls = made.every_call(draw)
        for number in range(cases):
            if len(made.score.lost) > 5 or time.monotonic() > until:
                break
            if number % 2 == 0:
                name, at = next(calls)
                kind = "error"
            else:
                name = names[number // 2 % len(names)]
                at = draw.randint(1, made.calls[name])
                (kind,) = draw.choices(list(KINDS), list(KINDS.values()))
            made.case(name, kind, at, draw)
            if number % 50 == 49:
                print(f"{number + 1} cases, {len(made.score.lost)} lost", flush=True)
    return made.score


def main() -> None:
    """Parse the command line, torture, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    score = torture(options.cases, options.limit, options.seed, options.commands)
    conclude(score, options.seed, began, options.json)


if __name__ == "__main__":
    main()
