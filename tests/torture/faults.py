"""The command line under faults: in every case one call that changes the disk fails once, or the
process is killed or told to end there, or at a random moment. What was there before must be there
afterwards, and the same command, or ``--resume``, must end as the run that nothing disturbed.

    python -m tests.torture.faults --cases 2000 --seed 0 --json docs/figures/faults.json

Each case runs in a process forked after the imports.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

import bptt.cli
from bptt.errors import BpttError
from bptt.runs import read_run

SMALL = ["--epochs", "2", "--hidden", "3", "--depth", "8", "--stride", "8", "--quiet"]
COLUMNS = ["--inputs", "u", "--target", "y"]
FIT = ["fit", "data.csv", *COLUMNS, *SMALL]

COMMANDS: dict[str, list[str]] = {
    "fit": [*FIT, "--out", "new"],
    "fit --starts": [*FIT, "--starts", "2", "--out", "more"],
    "fit --force": [*FIT, "--seed", "3", "--out", "run", "--force"],
    "fit --resume": ["fit", "--resume", "run", "--epochs", "3", "--quiet"],
    "predict": ["predict", "run", "data.csv", "--out", "p.csv", "--force"],
    "diagnose": [
        *["diagnose", "run", "data.csv", "--parts", "reach", "--lags", "16", "--anchors", "2"]
    ],
    "report": ["report", "run"],
    "compare": [
        *["compare", "data.csv", *COLUMNS, "--hidden", "2", "--methods", "full", "--starts", "1"],
        *["--budget", "300", "--out", "cmp", "--force", "--quiet"],
    ],
}  # fmt: skip

NAMES = "open write fsync mkdir rename replace unlink rmdir chmod"
CALLS = [*((os, name) for name in NAMES.split()), (fcntl, "flock"), (fcntl, "lockf")]
"""What changes the disk, or locks."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
KINDS = ("error", "kill", "SIGTERM", "SIGINT", "later SIGTERM", "later SIGINT", "later SIGKILL")

SECONDS = 120
"""That a process may take."""


@dataclass
class Score:
    """What came of it."""

    cases: int = 0
    by_command: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def make_world(folder: Path) -> None:
    """What is there before: data, a run with a diagnosis and a page, predictions, and notes."""
    make_data(folder)
    for command in ([*FIT, "--out", "run"], *map(COMMANDS.get, ("predict", "diagnose", "report"))):
        code, told = process(folder, command or [])
        assert code == 0, told
    (folder / "run" / "notes").write_text("mine")


def warm(folder: Path) -> None:
    """Run every command once in this process, so that those forked from it need import nothing."""
    from typer.testing import CliRunner

    from bptt.cli._app import app

    place = folder / "warm"
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    try:
        make_data(place)
        for command in ([*FIT, "--out", "run"], *COMMANDS.values()):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, result.output
    finally:
        os.chdir(before)


def make_data(folder: Path) -> None:
    """A small table."""
    draw = np.random.default_rng(0)
    rows = [f"{a:.4f},{b:.4f}" for a, b in draw.normal(size=(80, 2))]
    (folder / "data.csv").write_text("\n".join(["u,y", *rows, ""]))


def process(
    folder: Path, command: list[str], arm: Callable[[], None] = lambda: None, later: Any = None
) -> tuple[int, str]:
    """Run a command in a process of its own: its exit code, negative for a signal, and what it
    said. ``later`` is a signal and the seconds after which it is sent."""
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            _child(folder, command, arm, out.fileno())
        began, sent = time.monotonic(), later is None
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            passed = time.monotonic() - began
            if not sent and passed > later[1]:
                os.kill(child, later[0])
                sent = True
            if passed > SECONDS:
                os.kill(child, signal.SIGKILL)
                raise TimeoutError(f"{command} takes too long")
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        return code, out.read().decode(errors="replace")


def _child(folder: Path, command: list[str], arm: Callable[[], None], out: int) -> NoReturn:
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # of this process alone
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        app = bptt.cli.prepared()
        arm()
        app(prog_name="bptt", args=command)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


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
        import atexit

        counting(count)
        atexit.register(lambda: None)
        real = os._exit

        def ending(code: int) -> NoReturn:
            Path("calls").write_text(str(seen[0]))
            real(code)

        os._exit = ending  # type: ignore[assignment]

    code, told = process(folder, command, arm)
    assert code == 0, told
    found = int((folder / "calls").read_text())
    (folder / "calls").unlink()
    return found


def fault(kind: str, number: int, at: int) -> Callable[[], None]:
    """What prepares a process for its fault at call ``at``."""
    seen = [0]

    def count(name: str) -> None:
        seen[0] += 1
        if seen[0] != at:
            return
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
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.ends: dict[str, Path] = {}
        for name in names:
            self.ends[name] = self._copy(f"end {name}".replace("/", "-"))
            began = time.monotonic()
            self.calls[name] = calls_of(self.ends[name], COMMANDS[name])
            self.seconds[name] = time.monotonic() - began

    def _copy(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.world, place)
        return place

    def case(self, name: str, draw: random.Random) -> None:
        """One fault, the state after it, and the end after that."""
        kind = draw.choice(KINDS)
        at, number = draw.randint(1, self.calls[name]), draw.choice(ERRORS)
        delay = draw.uniform(0.1, 0.1 + self.seconds[name])  # once the process has its handlers
        place = self._copy("case")
        if kind.startswith("later"):
            later = (getattr(signal, kind.removeprefix("later ")), delay)
            code, told = process(place, COMMANDS[name], later=later)
        else:
            code, told = process(place, COMMANDS[name], fault(kind, number, at))
        which = f"{name}, {kind} {errno.errorcode[number]} at call {at} or after {delay:.3f} s"
        self.score.cases += 1
        for counts, key in ((self.score.by_command, name), (self.score.by_kind, kind)):
            counts[key] = counts.get(key, 0) + 1
        for problem in (
            *_told(kind, code, told),
            *self._after(name, place),
            *self._gone_on(name, place, code),
        ):
            self.score.lost.append(f"{which}: exit code {code}: {problem}: {told[-1500:]}")
            print(self.score.lost[-1], flush=True)

    def _after(self, name: str, place: Path) -> list[str]:
        """What of what was there is not there any more."""
        lost = []
        for path in (path for path in self.world.rglob("*") if path.is_file()):
            inside = path.relative_to(self.world)
            if inside.parts[0] == "run" and name in ("fit --force", "fit --resume"):
                continue  # looked at as a run
            allowed = [path.read_bytes()]
            if (self.ends[name] / inside).is_file():
                allowed.append((self.ends[name] / inside).read_bytes())
            if name == "diagnose" and inside.suffix in (".png", ".html"):
                continue  # drawn anew from the numbers, each apart
            if not (place / inside).is_file() or (place / inside).read_bytes() not in allowed:
                lost.append(f"{inside} is not what it was")
        if (place / "run" / "notes").read_text() != "mine":
            lost.append("the notes are gone")
        allowed = [model(self.world / "run"), model(self.ends[name] / "run")]
        if model(place / "run") not in allowed:
            lost.append("the run is neither the old one nor the new one")
        return lost

    def _gone_on(self, name: str, place: Path, code: int) -> list[str]:
        """How the end differs from the undisturbed one, if the command is repeated or resumed."""
        command, lost = COMMANDS[name], []
        fits = name.startswith("fit")
        run = {"fit": "new", "fit --starts": "more"}.get(name, "run")
        if code != 0:
            begun = [place / run / "job.json", *place.glob(f"{run}/checkpoints-*/job.json")]
            resumed = fits and any(path.exists() for path in begun)
            again = ["fit", "--resume", run, "--quiet"] if resumed else command
            if name == "fit --resume":
                again = command
            if name == "fit --force" and not list(place.glob(f"{run}/checkpoints-*/job.json")):
                again = command
            code, told = process(place, again)
            if code != 0:
                lost.append(f"{' '.join(again)} ended with {code}: {told[-1500:]}")
        if fits and model(place / run) != model(self.ends[name] / run):
            lost.append("it ended with other weights")
        files = [one / "p.csv" for one in (place, self.ends[name])]
        if name == "predict" and files[0].read_bytes() != files[1].read_bytes():
            lost.append("it ended with other predictions")
        left = [p for p in place.rglob(".*") if not p.is_dir() or any(p.iterdir())]
        if fits and left:
            lost.append(f"{left} is left")
        return lost


def model(run: Path) -> bytes | None:
    """The weights of a run, None where there is none."""
    try:
        return read_run(run).parts["model.safetensors"]
    except (BpttError, KeyError):
        return None


def _told(kind: str, code: int, told: str) -> list[str]:
    if code in (-signal.SIGKILL, 0):
        return []
    if "Traceback" in told or code not in (1, 2, 130, 143):
        return ["a traceback, or an exit code that means nothing"]
    if code in (130, 143) and len([x for x in told.splitlines() if x.startswith("Stopped. ")]) != 1:
        return ["it does not say in one line what is saved"]
    return []


def torture(cases: int, seed: int, names: list[str], told: Callable[[str], None] = print) -> Score:
    """So many cases, of all ``names`` in turn."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        made = Torture(Path(folder), names)
        told(f"calls that can fail: {made.calls}")
        for number in range(cases):
            made.case(names[number % len(names)], draw)
            if number % 50 == 49:
                told(f"{number + 1} cases, {len(made.score.lost)} lost")
            if len(made.score.lost) > 5:
                break
    return made.score


def main() -> None:
    """Parse the command line, torture, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    score = torture(
        options.cases, options.seed, options.commands, lambda text: print(text, flush=True)
    )
    found = {**asdict(score), "seed": options.seed, "seconds": round(time.perf_counter() - began)}
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if score.lost:
        sys.exit(1)


if __name__ == "__main__":
    main()
