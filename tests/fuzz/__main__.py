"""``python -m tests.fuzz``: many cases in processes of limited memory; see docs/reliability.md.

Each target runs in a process of its own. A case passes if it ends well or with a `BpttError`; what
fails is any other exception, a death of the process, or more memory than the limit allows (which
shows as an exception). The bytes of a failing case are printed, for ``--case``.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, NoReturn

MEMORY = 1 << 30
"""Bytes that a target may take beyond what it has when it begins."""

SECONDS = 60
"""That one case may take."""

SHARES = {
    "model": 44, "checkpoint": 24, "table": 34, "stream": 34, "text": 13, "core": 50, "command": 1
}  # fmt: skip
"""Of two hundred cases."""


def limited() -> None:
    """From here on, allocate no more than `MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def cases(target: str, seed: int, count: int) -> Iterator[bytes]:
    """Strings of bytes of all lengths; some begin alike, as a fuzzer's do."""
    source = random.Random(f"{target} {seed}")
    for _ in range(count):
        yield source.randbytes(source.choice([8, 16, 32, 64, 160]))


class TooLong(BaseException):
    """A case took more than `SECONDS`; not an `Exception`, so that nothing takes it for its own."""


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


class Case:
    """Runs cases of one target, and remembers what failed."""

    def __init__(self, target: str, folder: Path) -> None:
        import torch
        from tests.fuzz.targets import Targets

        torch.set_num_threads(1)
        signal.signal(signal.SIGALRM, _too_long)
        self.run = Targets(folder).all[target]
        self.mark = folder.parent / "case"
        self.failed: dict[str, tuple[str, bytes]] = {}
        self.refused = 0

    def __call__(self, data: bytes) -> None:
        from tests.fuzz.damage import Draw

        from bptt import BpttError

        self.mark.write_text(data.hex())  # survives a death of the process
        signal.alarm(SECONDS)
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # native code takes no signals
        try:
            self.run(Draw(data))
        except BpttError:
            self.refused += 1
        except (Exception, TooLong) as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "bptt" in frame.filename] or frames
            where = " and ".join(f"{f.filename}:{f.lineno}" for f in (own[-1], frames[-1]))
            self.failed.setdefault(where, (f"{error!r:.300} <- {error.__cause__!r:.300}", data))
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()


def child(target: str, engine: str, seed: int, count: int, folder: str, case: str) -> int:
    """One target, in this process."""
    run = Case(target, Path(folder) / "files")
    warnings.simplefilter("ignore")
    run(bytes(64))  # imports what it needs before the limit is set
    limited()
    began = time.perf_counter()
    done = 0
    if case:
        run(bytes.fromhex(case))
    elif engine == "seeded":
        for data in cases(target, seed, count):
            run(data)
            done += 1
    else:
        return guided(run, target, seed, count)
    return report(run, target, engine, done, time.perf_counter() - began)


def guided(run: Case, target: str, seed: int, count: int) -> int:
    """Cases led by the coverage of the readers' Python code."""
    import atheris

    _instrument(atheris.instrument_func)
    began, done = time.perf_counter(), 0

    def one(data: bytes) -> None:
        nonlocal done
        run(data)
        done += 1
        if done == count:  # libFuzzer ends the process without coming back
            os._exit(report(run, target, "guided", done, time.perf_counter() - began))

    options = [f"-seed={seed + 1}", "-max_len=160", "-verbosity=0", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()
    return 1


def _instrument(instrumented: Any) -> None:
    """The functions that read what strangers wrote."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("bptt.forecasting", "bptt.streams", "bptt.training", "bptt.cli")):
            for known, value in list(vars(module).items()):
                if isinstance(value, FunctionType) and value.__module__ == name:
                    setattr(module, known, instrumented(value))


def report(run: Case, target: str, engine: str, done: int, seconds: float) -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{target:10} {engine:7} {done:7} cases, {run.refused:7} refused, "
        f"{len(run.failed)} kinds of failure, {seconds:.0f} s, at most {peak} MiB",
        flush=True,
    )
    for where, (error, data) in run.failed.items():
        print(f"  {error}\n    at {where}\n    --case {data.hex()}", flush=True)
    return bool(run.failed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=[], help="default: all")
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("seeded", "guided"), default="seeded")
    parser.add_argument("--case", default="", help="one case, as bytes in hexadecimal")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    targets = given.targets or list(SHARES)
    if given.child:
        return child(targets[0], given.engine, given.seed, given.cases, given.child, given.case)
    bad = 0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for target in targets:
        count = -(-given.cases * SHARES[target] // sum(SHARES[t] for t in targets))
        with tempfile.TemporaryDirectory(dir=memory) as name:
            (Path(name) / "files").mkdir()
            command = [sys.executable, "-m", "tests.fuzz", target, "--child", name]
            command += ["--cases", str(count), "--seed", str(given.seed), "--engine", given.engine]
            ended = subprocess.run([*command, "--case", given.case]).returncode
            if ended not in (0, 1):
                case = (Path(name) / "case").read_text()
                print(f"{target} died with {ended}\n    --case {case}", flush=True)
            bad += bool(ended)
    return bad


if __name__ == "__main__":
    sys.exit(main())
