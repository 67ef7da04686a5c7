"""The commands under torture: what is there before them, and the processes that they run in."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

import bptt.cli
from bptt.errors import BpttError
from bptt.runs import read_run

ROOT = Path(__file__).parents[2]

SMALL = [
    "--epochs",
    "2",
    "--cell",
    "gru",
    "--hidden",
    "3",
    "--depth",
    "8",
    "--stride",
    "8",
    "--quiet",
]
COLUMNS = ["--inputs", "u", "--target", "y"]
FIT = ["fit", "data.csv", *COLUMNS, *SMALL]

RUNS = [[*FIT, "--out", "run"], [*FIT, "--starts", "2", "--out", "many"]]
"""What is there before: a run, and one of several starts."""

COMMANDS: dict[str, list[str]] = {
    "fit": [*FIT, "--out", "new"],
    "fit --starts": [*FIT, "--starts", "2", "--out", "more"],
    "fit --force": [*FIT, "--seed", "3", "--out", "run", "--force"],
    "fit --resume": ["fit", "--resume", "run", "--epochs", "3", "--quiet"],
    "fit --resume --starts": ["fit", "--resume", "many", "--epochs", "3", "--quiet"],
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

SECONDS = 120
"""That a process may take."""


def make_world(folder: Path) -> None:
    """What is there before: data, runs, one with a diagnosis and a page, predictions, and notes."""
    make_data(folder)
    for command in (*RUNS, *map(COMMANDS.get, ("predict", "diagnose", "report"))):
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
        for command in (*RUNS, *COMMANDS.values()):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, result.output
    finally:
        os.chdir(before)


def conclude(score: Any, seed: int, began: float, path: Path | None) -> None:
    """Print a score, a dataclass that lists what was ``lost``, and keep it; exit with 1 if anything
    was."""
    found = {**asdict(score), "seed": seed, "seconds": round(time.perf_counter() - began)}
    print(json.dumps(found, indent=2))
    if path:
        path.write_text(json.dumps(found, indent=2) + "\n")
    if score.lost:
        sys.exit(1)


def make_data(folder: Path, seed: int = 0) -> None:
    """A small table, put in the place of an older one at once."""
    draw = np.random.default_rng(seed)
    rows = [f"{a:.4f},{b:.4f}" for a, b in draw.normal(size=(80, 2))]
    (folder / "data.new").write_text("\n".join(["u,y", *rows, ""]))
    (folder / "data.new").rename(folder / "data.csv")


class Later(NamedTuple):
    """What is done to a process a while after it takes signals."""

    act: Callable[[int], object]
    seconds: float


def process(
    folder: Path,
    command: list[str],
    *,
    arm: Callable[[], None] = lambda: None,
    later: Later | None = None,
    anew: bool = False,
) -> tuple[int, str]:
    """Run a command in a process of its own, forked after the imports or begun ``anew``: its exit
    code, negative for a signal, and what it said."""
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            _child(folder, command, arm, out.fileno(), anew)
        began = time.monotonic()
        ready = None if later is not None else 0.0
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = time.monotonic()
            if ready is None and takes_signals(child):
                ready = now
            if later is not None and ready is not None and now > ready + later.seconds:
                later.act(child)
                later = None
            if now > began + SECONDS:
                os.kill(child, signal.SIGKILL)
                raise TimeoutError(f"{command} takes too long")
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        return code, out.read().decode(errors="replace")


def takes_signals(process: int) -> bool:
    """Whether a process has a handler for SIGTERM: Python has none, the command line sets one."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def model(run: Path) -> bytes | None:
    """The weights of a run, None where there is none."""
    try:
        return read_run(run).parts["model.safetensors"]
    except (BpttError, KeyError):
        return None


def _child(
    folder: Path, command: list[str], arm: Callable[[], None], out: int, anew: bool
) -> NoReturn:
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(folder)
        if anew:
            paths = os.pathsep.join([str(Path(bptt.__file__).parents[1]), str(ROOT)])
            given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
            os.execve(sys.executable, [sys.executable, "-m", "bptt", *command], given)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # of this process alone
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # the same
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
