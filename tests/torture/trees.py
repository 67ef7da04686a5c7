"""Runs of several processes, of which one or all are killed or told to end at a random moment: the
workers of ``--jobs`` and the processes of torchrun. Nothing may be left running, and the run, which
goes on after each death, must end with the weights of the one that nothing disturbed.

    python -m tests.torture.trees --kills 300 --seed 0 --json docs/figures/trees.json
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.commands import COLUMNS, ROOT, SMALL, conclude, make_data, model, takes_signals

FIT = ["data.csv", *COLUMNS, *SMALL, "--checkpoint", "5", "--patience", "1000", "--out", "run"]
BPTT = [sys.executable, "-m", "bptt", "fit"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "bptt", "fit"]
COMMANDS = {
    "workers": (
        [*BPTT, *FIT, "--epochs", "30", "--starts", "3", "--jobs", "2"],
        [*BPTT, "--resume", "run", "--jobs", "2", "--quiet"],
    ),
    "torchrun": (
        [*TORCHRUN, *FIT, "--epochs", "30", "--lanes", "2"],
        [*TORCHRUN, "--resume", "run", "--quiet"],
    ),
}
"""How a run begins, and how it goes on."""

SIGNALS = {signal.SIGKILL: 3, signal.SIGTERM: 2, signal.SIGINT: 1}
SECONDS = 180
"""That a run may take, and that its processes may take to end."""


@dataclass
class Score:
    """What came of it: processes that were killed, by what they were and by the signal; runs that
    went on after that and ended; and what was lost."""

    kills: int = 0
    by_victim: dict[str, int] = field(default_factory=dict)
    by_signal: dict[str, int] = field(default_factory=dict)
    ended_before: int = 0
    runs: int = 0
    lost: list[str] = field(default_factory=list)


class Tree:
    """A command, and the processes that it begins: one session."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.out = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `end`
        given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=self.out, stderr=self.out, env=given, start_new_session=True
        )

    def living(self) -> list[int]:
        """Its processes."""
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def end(self) -> tuple[int, str, list[int]]:
        """Wait for all of it: the exit code, what it said, and what had to be killed."""
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = 99
        left = time.monotonic() + 20
        while (living := self.living()) and time.monotonic() < left:
            time.sleep(0.05)
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.out.seek(0)
        told = self.out.read().decode(errors="replace")
        self.out.close()
        return code, told, living


def _sessions() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                yield int(path.name), int(fields[3])


def _role(tree: Tree, pid: int) -> str:
    if pid == tree.process.pid:
        return "first process"
    with suppress(OSError):
        if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return "tracker"  # joblib's: without it joblib ends with errors of its own
    return "worker"


class Torture:
    """One kind of command, again and again."""

    def __init__(self, name: str, folder: Path, score: Score) -> None:
        self.name, self.folder, self.score = name, folder, score
        self.begin, self.go_on = COMMANDS[name]
        place = self._place("undisturbed")
        began = time.monotonic()
        code, told, living = Tree(place, self.begin).end()
        assert code == 0, told
        assert not living
        self.seconds = time.monotonic() - began
        self.expected = model(place / "run")
        assert self.expected is not None

    def _place(self, name: str) -> Path:
        place = self.folder / f"{self.name} {name}"
        place.mkdir()
        make_data(place)
        return place

    def run(self, draw: random.Random, deaths: int = 3) -> None:
        """One run that dies so many times, and then ends."""
        self.score.runs += 1
        place = self._place(str(self.score.runs))
        for number in range(deaths + 1):
            begun = (place / "run" / "job.json").exists()
            tree = Tree(place, self.go_on if begun else self.begin)
            which = "left alone" if number == deaths else self._disturb(tree, draw)
            code, told, living = tree.end()
            if living:
                self._lose(which, code, f"{len(living)} processes are left", told)
            if "Traceback" in told and self.name != "torchrun":  # which raises where one fails
                self._lose(which, code, "a traceback", told)
            if "is left out" in told:
                self._lose(which, code, "a start that was disturbed counts as failed", told)
            if code == 0 and number < deaths and model(place / "run") != self.expected:
                self._lose(which, code, "other weights", told)  # going on could mend them
            if number == deaths and code != 0:
                self._lose(which, code, "it does not go on", told)
        if model(place / "run") != self.expected:
            self._lose("at last", 0, "other weights", told)

    def _lose(self, which: str, code: int, what: str, told: str) -> None:
        self.score.lost.append(f"{self.name}, {which}: exit code {code}: {what}: {told[-2500:]}")
        print(self.score.lost[-1], flush=True)

    def _disturb(self, tree: Tree, draw: random.Random) -> str:
        """Kill one of its processes, or all, at a random moment."""
        while tree.process.poll() is None and not any(map(takes_signals, tree.living())):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, self.seconds))
        living = [pid for pid in tree.living() if _role(tree, pid) != "tracker"]
        if not living:
            self.score.ended_before += 1
            return "it had ended"
        (number,) = draw.choices(list(SIGNALS), list(SIGNALS.values()))
        if number == signal.SIGINT or draw.random() < 0.2:  # as a terminal, or a system that stops
            os.killpg(tree.process.pid, number)
            role = "all"
        else:
            victim = draw.choice(living)
            role = _role(tree, victim)
            with suppress(ProcessLookupError):
                os.kill(victim, number)
        self.score.kills += 1
        for counts, key in ((self.score.by_victim, role), (self.score.by_signal, number.name)):
            counts[key] = counts.get(key, 0) + 1
        return f"{number.name} to {role}"


def torture(kills: int, seconds: float, seed: int, names: list[str]) -> Score:
    """At least so many, unless the ``seconds`` are over."""
    draw, score = random.Random(seed), Score()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        made = [Torture(name, Path(folder), score) for name in names]
        while score.kills < kills and not len(score.lost) > 5 and time.monotonic() < until:
            made[score.runs % len(made)].run(draw)
            print(f"{score.kills} killed, {len(score.lost)} lost", flush=True)
    return score


def main() -> None:
    """Parse the command line, torture, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="at least so many")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    score = torture(options.kills, options.limit, options.seed, options.commands)
    conclude(score, options.seed, began, options.json)


if __name__ == "__main__":
    main()
