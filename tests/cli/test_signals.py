"""Ctrl-C and SIGTERM at any moment: exit codes 130 and 143, one line, no traceback, no orphan."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer

import bptt
from bptt.cli._show import stop

from .cases import call, write_table
from .test_resume import same

COLUMNS = ("--inputs", "u", "--target", "y")
SMALL = ("--hidden", "4", "--depth", "10", "--stride", "10", "--quiet")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

Path_of_bptt = str(Path(bptt.__file__).parents[1])


def start(*arguments):
    """The command line in a process of its own, which leads a group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": Path_of_bptt}
    return subprocess.Popen(
        [sys.executable, "-m", "bptt", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def group_of(process):
    """The processes of its session that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process and fields[0] != "Z":
            found.append(int(path.name))
    return found


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("after", [0, 0.3, 0.8, 1.6])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_while_all_is_imported(number, after):
    process = start("fit", "nothing.csv")
    wait_until(lambda: _catches(process.pid, number))
    time.sleep(after / 4)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    if after and "there is no file" in told:
        pytest.skip("it came to its end before")
    assert process.returncode == CODES[number], told
    assert told == "Stopped. Nothing was written.\n"
    assert os.listdir() == []


def test_before_all_else_is_imported():
    """Where PyTorch cannot be imported yet, both signals are taken already."""
    code = (
        "import signal, sys; sys.argv[0] = 'bptt'; sys.modules['torch'] = None\n"
        "try: import bptt\n"
        "except ImportError: print(*(signal.getsignal(n).__name__ for n in (1, 2, 15)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": Path_of_bptt},
    )
    assert done.stdout == "end end end\n", done.stderr


@pytest.mark.parametrize("how", ["script", "module", "bptt"])
def test_only_the_command_takes_signals(how, tmp_path):
    """Not a program that imports `bptt`, whatever arguments it is given."""
    told = "import signal, sys; sys.modules['torch'] = None\n"
    told += "try: import bptt\nexcept ImportError: pass\n"
    told += "print(getattr(signal.getsignal(15), '__name__', None))"
    package = tmp_path / ("bptt" if how == "bptt" else "mine")
    package.mkdir()
    (package / "__init__.py").write_text(told if how == "module" else "")
    (package / "__main__.py").write_text(told if how == "script" else "")
    if how == "bptt":  # what `python -m bptt` imports first
        ending = Path(bptt.__file__).with_name("_ending.py").read_text()
        (package / "__init__.py").write_text(f"{ending}\nprint(signal.getsignal(15).__name__)")
    given = [str(package)] if how == "script" else ["-m", package.name]
    done = subprocess.run(
        [sys.executable, "-S", *given, "-m", "bptt"],  # -S: not the package that is installed
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), Path_of_bptt])},
    )
    assert done.stdout.split() == ["end" if how == "bptt" else "None"], done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_python_takes_itself_apart(number):
    """All is done by then, the handlers of signals among it: the exit code tells of the command."""
    program = f"""
import os, sys
from bptt import _ending

class Last:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        os.write(1, b"there")

_ending.take()
last = Last()  # of the module, which goes after the handlers
sys.exit(3)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert (found.returncode, found.stdout) == (3, b"there"), found


def test_a_start_that_cannot_be_saved_has_not_failed(tmp_path, monkeypatch):
    data = write_table(tmp_path / "data.csv")
    fit = ("fit", data, *COLUMNS, *SMALL, "--epochs", "2", "--starts", "2")
    assert call(*fit, "--out", "whole").exit_code == 0
    real, seen = os.rename, []

    def full(*given):
        seen.append(given)
        if len(seen) == 2:
            raise OSError(28, "No space left on device")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        stopped = call(*fit, "--out", "run")
    assert stopped.exit_code == 1
    assert "no room for a checkpoint" in " ".join(stopped.output.split())
    assert call("fit", "--resume", "run", "--quiet").exit_code == 0
    same("whole", "run")


def _catches(process, number):
    """Whether a process has a handler of its own for a signal; before, Python has not begun."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("SigCgt"):
            caught = int(line.split()[1], 16)
            # SIGTERM is taken by `bptt` alone, and with it Ctrl-C.
            return bool(caught >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
)
def test_workers_end_with_the_process_that_asked_for_them(number, tmp_path):
    pytest.importorskip("joblib")
    data = write_table(tmp_path / "data.csv")
    many = (
        "fit",
        data,
        *COLUMNS,
        *SMALL,
        "--epochs",
        "4000",
        "--patience",
        "4000",
        "--starts",
        "3",
    )
    process = start(*many, "--jobs", "2", "--out", "run", "--checkpoint", "20")
    saved = [Path(f"run/checkpoints/start-{i}") for i in range(2)]
    try:
        wait_until(lambda: all(list(path.glob("checkpoint-*")) for path in saved))
        assert len(group_of(process.pid)) >= 3
        if number == signal.SIGINT:  # as a terminal does: to all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, told = process.communicate(timeout=60)
        wait_until(lambda: not group_of(process.pid), 20)
    finally:
        for one in group_of(process.pid):
            os.kill(one, signal.SIGKILL)
    if number != signal.SIGKILL:
        assert process.returncode == CODES[number], told
        assert told.splitlines()[-1].startswith("Stopped. Training is saved. Go on with: bptt fit")
        assert "Traceback" not in told
        assert not re.search("failed", told)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = call("fit", "--resume", "run", "--epochs", "3", "--quiet", "--jobs", "1")
        assert resumed.exit_code == 0, resumed.output
        assert "failed" not in resumed.output
    finally:
        torch.set_num_threads(before)


def test_a_start_that_is_locked_is_not_a_start_that_failed(tmp_path, monkeypatch):
    from bptt.training import Hold, _starts

    data = write_table(tmp_path / "data.csv")
    fit = ("fit", data, *COLUMNS, *SMALL, "--epochs", "2", "--starts", "2")
    assert call(*fit, "--out", "whole").exit_code == 0
    assert call(*fit, "--out", "run").exit_code == 0
    monkeypatch.setattr(_starts, "PATIENCE", 0.2)
    with Hold(Path("run/checkpoints/start-1")):
        refused = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
    assert refused.exit_code == 2
    assert "being written to by another run" in " ".join(refused.output.split())
    same("whole", "run")
    assert call("fit", "--resume", "run", "--quiet").exit_code == 0
    same("whole", "run")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_one_says_that_they_are_stopped(rank, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(typer.Exit) as left:
        stop(signal.SIGTERM)
    assert left.value.exit_code == 143
    assert capsys.readouterr().err.count("Stopped.") == (rank == "0")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_processes_of_torchrun_end_with_it():
    """The system kills torchrun, as where memory runs out: nobody else would end its processes, and
    they would hold the run for ever."""
    write_table(Path("data.csv"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": Path_of_bptt}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    fit = ["-m", "bptt", "fit", "data.csv", *COLUMNS, *SMALL, "--cell", "gru", "--lanes", "2"]
    long = ["--epochs", "100000", "--patience", "100000", "--out", "run"]
    agent = subprocess.Popen(
        [*torchrun, *fit, *long],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    wait_until(lambda: Path("run/checkpoints/checkpoint-00000000").exists())
    ranks = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert len(ranks) == 2
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))
    assert len(list(Path("run/checkpoints").glob("checkpoint-*"))) > 1
