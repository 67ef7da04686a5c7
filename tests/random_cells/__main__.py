"""``python -m tests.random_cells``: many random cells, in processes that are begun anew.

Each seed is a cell (`cells.written`) and a use of it (`uses.Use`), run under ``auto`` and under
``eager``. A seed fails if its numbers differ, if ``auto`` raises what ``eager`` does not, if it
draws from a generator or leaves something where ``eager`` does not, if it takes too long, or if the
process dies. ``--seed`` prints one and runs it; ``--first`` goes on from where a run ended.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
EACH = 500
"""Seeds that one process runs, so that memory is bounded."""


def work(first: int, count: int, until: float) -> None:
    """Run seeds and print a line of JSON before and after each."""
    import torch

    from .judging import verdict

    torch.set_num_threads(1)
    for seed in range(first, first + count):
        if time.time() > until:
            return
        print(json.dumps({"begun": seed}), flush=True)
        found = verdict(seed)
        print(json.dumps(vars(found)), flush=True)
        if "TimeoutError" in str(found.difference):
            os._exit(0)  # a thread of it may run on; the rest goes to a new process


def show(seed: int) -> int:
    """One seed, with its source and what differs."""
    from .cells import written
    from .judging import differs, verdict
    from .uses import Use

    drawn = written(seed)
    for number, line in enumerate(drawn.source.splitlines(), 1):
        print(f"{number:4d} {line}")
    print(f"\nspecial: {drawn.special}")
    runs = [Use(seed, "auto"), Use(seed, "eager")]
    found, expected = (use.run() for use in runs)
    print(f"use: {runs[0].kind}, {runs[0].dtype}")
    for _, one in found:
        if isinstance(one, Exception):
            traceback.print_exception(one)
    there = dict(found)
    for name, value in expected:
        problem = differs([(name, there.get(name))], [(name, value)], runs[0].dtype, 0.0)
        if problem is not None and name != "error":
            print(problem)
    found_out = verdict(seed)
    print(found_out)
    return int(found_out.difference is not None)


class Worker:
    """A process that runs some seeds."""

    def __init__(self, first: int, count: int, until: float) -> None:
        self.next, self.end, self.begun = first, first + count, None
        command = [sys.executable, "-W", "ignore", "-m", "tests.random_cells", "--worker"]
        command += ["--first", str(first), "--count", str(count), "--until", str(until)]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.rest = b""

    def read(self) -> list[dict[str, object]]:
        """The verdicts that have come since."""
        assert self.process.stdout is not None
        ended = self.process.poll() is not None
        self.rest += self.process.stdout.read() or b""
        *lines, self.rest = self.rest.split(b"\n")
        found = []
        for line in lines:
            one = json.loads(line)
            if "begun" in one:
                self.begun = one["begun"]
            else:
                found.append(one)
                self.begun, self.next = None, one["seed"] + 1
        if ended and self.begun is not None:
            found.append({"seed": self.begun, "use": "?", "special": [], "refused": None})
            found[-1]["difference"] = f"the process died with {self.process.returncode}"
            self.next, self.begun = self.begun + 1, None
        return found

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


class Runner:
    """Two workers at a time; a tally of what they say."""

    def __init__(self, first: int, count: int, until: float, workers: int) -> None:
        self.end, self.until = first + count, until
        self.parts = [
            (start, min(EACH, self.end - start)) for start in range(first, self.end, EACH)
        ]
        if len(self.parts) < workers:
            half = -(-count // workers)
            starts = range(first, self.end, half)
            self.parts = [(start, min(half, self.end - start)) for start in starts]
        self.workers: list[Worker] = []
        self.most = workers
        self.ran, self.failed, self.refused, self.native = 0, 0, 0, 0
        self.kinds: Counter[str] = Counter()
        self.left: list[int] = []

    def run(self) -> int:
        """All seeds; how many failed."""
        while self.parts or self.workers:
            while self.parts and len(self.workers) < self.most and time.time() < self.until:
                self.workers.append(Worker(*self.parts.pop(0), self.until))
            for worker in list(self.workers):
                ended = worker.done
                self._take(worker.read())
                if ended:
                    self._ended(worker)
            if time.time() > self.until and not self.workers:
                break
            time.sleep(0.2)
        self._tell()
        return self.failed

    def _ended(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if worker.next < worker.end:
            if time.time() < self.until:
                self.parts.insert(0, (worker.next, worker.end - worker.next))
            else:
                self.left.append(worker.next)

    def _take(self, verdicts: list[dict[str, object]]) -> None:
        for one in verdicts:
            self.ran += 1
            self.refused += one["refused"] is not None
            self.native += bool(one.get("native"))
            if one["difference"] is not None:
                self.failed += 1
                self.kinds[kind_of(str(one["difference"]))] += 1
                words = f"seed {one['seed']} ({one['use']}; {one['special']}): {one['difference']}"
                print(words, flush=True)
            if self.ran % 100 == 0:
                print(f"{self.ran} ran, {self.failed} failed", flush=True)

    def _tell(self) -> None:
        print(
            f"{self.ran} ran, {self.native} of them natively, {self.failed} failed; "
            f"{self.refused} are refused by eager, too."
        )
        for kind, number in self.kinds.most_common():
            print(f"{number:6d}  {kind}")
        rest = [*self.left, *(start for start, _ in self.parts)]
        if rest:
            print(f"Not all ran: go on with --first {min(rest)}.")


def kind_of(difference: str) -> str:
    """What many differences have in common."""
    return "".join(c for c in difference if not c.isdigit())[:90]


def main() -> int:
    """The command line."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(prog="tests.random_cells")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10000, help="how many")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--seed", type=int, help="print this one's source and run it")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=1e18, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.seed is not None:
        return show(given.seed)
    if given.worker:
        work(given.first, given.count, given.until)
        return 0
    until = time.time() + given.seconds
    return Runner(given.first, given.count, until, given.workers).run() > 0


if __name__ == "__main__":
    sys.exit(main())
