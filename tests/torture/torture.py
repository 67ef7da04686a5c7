"""Kill training processes with SIGKILL at random moments, let them go on, and compare their end
with that of a process that was left alone.

    python -m tests.torture.torture --kills 120 --seed 0 --json docs/figures/torture.json
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.torture.commands import conclude
from tests.torture.victim import METHODS, OPTIMIZERS, train

BACKENDS = ("eager", "native")


@dataclass
class Score:
    """What came of it.

    Attributes:
        kills: processes killed while they trained or saved.
        unfinished: kills that left a half-written checkpoint behind.
        before: kills before the first update of their process.
        lost: combinations whose end was another, by name.
        combinations: how many ended as if never killed.
        updates_lost: updates that were made again, over all kills.
    """

    kills: int = 0
    unfinished: int = 0
    before: int = 0
    combinations: int = 0
    updates_lost: int = 0
    lost: list[str] = field(default_factory=list)


def cases() -> list[dict[str, Any]]:
    """Every combination."""
    parts = itertools.product(BACKENDS, METHODS, OPTIMIZERS)
    return [dict(zip(("backend", "method", "optimizer"), part, strict=True)) for part in parts]


class Victim:
    """A process of its own that trains, and tells of every update and of its end."""

    def __init__(self, case: dict[str, Any]) -> None:
        read, write = os.pipe()
        self.pid = os.fork()  # nothing is imported anew; nothing has run in this process yet
        if self.pid == 0:
            os.close(read)
            code = 1
            try:
                with os.fdopen(write, "w", buffering=1) as out:
                    out.write(f"end {train(case, [_telling(out)])}\n")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)
        self.lines = os.fdopen(read)

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        self.lines.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> str:
        """The checksum that it ends with."""
        told = [line for line in self.lines if line.startswith("end ")]
        assert self.wait() == 0
        return told[0]


def _telling(out: TextIO) -> Any:
    def tell(progress: Any) -> None:
        out.write(f"{progress.updates}\n")

    tell.every = 1  # type: ignore[attr-defined]  # a function's own attribute
    return tell


def torture(case: dict[str, Any], kills: int, draw: random.Random, score: Score) -> None:
    """Kill one combination so many times, then let it end."""
    name = "-".join(str(case[part]) for part in ("backend", "method", "optimizer"))
    expected = Victim(case).end()
    with tempfile.TemporaryDirectory() as folder:
        whole = {**case, "folder": folder, "every": draw.choice((1, 1, 2, 5))}
        reached = 0
        for _ in range(kills):
            reached = _kill(whole, draw, reached, score)
        ended = Victim(whole).end()
    if ended == expected:
        score.combinations += 1
    else:
        score.lost.append(name)


def _kill(case: dict[str, Any], draw: random.Random, reached: int, score: Score) -> int:
    """Start the process, and kill it a few updates and a random moment later."""
    victim = Victim(case)
    seen: list[int] = []
    wanted = draw.choice((0, 1, 1, 2, 4, 8))
    if wanted == 0:  # while it reads the checkpoint, writes the first, or traces the cell
        time.sleep(draw.uniform(0.0, 0.2))
        victim.kill()
    for line in victim.lines:
        if line.startswith("end"):
            break
        seen.append(int(line))
        if len(seen) == wanted:
            time.sleep(draw.expovariate(1 / 0.004))  # into the update, or into the saving of it
            victim.kill()
    code = victim.wait()
    if code != -signal.SIGKILL:
        assert code == 0, f"{case} failed"
        return reached
    score.kills += 1
    score.before += not seen
    score.unfinished += bool(list(Path(case["folder"]).glob(".*")))
    if seen:
        score.updates_lost += max(reached - seen[0] + 1, 0)
    return seen[-1] if seen else reached


def _rounds(draw: random.Random) -> Iterator[list[dict[str, Any]]]:
    """All combinations, again and again, in random order."""
    while True:
        yield draw.sample(cases(), len(cases()))


def main() -> None:
    """Parse the command line, torture, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--combinations", type=int, default=len(cases()), help="at least so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    score, began = Score(), time.perf_counter()
    for case in itertools.chain.from_iterable(_rounds(draw)):
        torture(case, 3, draw, score)
        print(f"{score.kills} killed, {len(score.lost)} lost", flush=True)
        enough = score.kills >= options.kills and score.combinations >= options.combinations
        if enough or score.lost:
            break
    conclude(score, options.seed, began, options.json)


if __name__ == "__main__":
    main()
