"""torchrun starts all processes again when one of them failed: the new attempt goes on with what
the earlier one began, and with nothing else."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bptt.training import Hold

from .cases import COLUMNS, FAST, call, snapshot
from .test_resume import same
from .test_signals import Path_of_bptt, wait_until

FIT = ("fit", "data.csv", *COLUMNS, *FAST)


@pytest.fixture
def again(monkeypatch):
    """This process is the second attempt."""
    return lambda: monkeypatch.setattr("bptt.cli._fit.started_again", lambda: True)


def options(run):
    return json.loads(Path(run, "run.json").read_text())["options"]


@pytest.mark.parametrize("finished", [True, False])
def test_an_older_run_is_not_gone_on_with(finished, again, table, broken):
    mend = broken(11 if not finished else 10**9, MemoryError())
    call(*FIT, "--out", "run")
    mend()
    again()
    before = snapshot("run")
    refused = call(*FIT, "--seed", "4", "--out", "run")
    assert refused.exit_code == 2
    assert snapshot("run") == before
    assert call(*FIT, "--seed", "4", "--out", "run", "--force").exit_code == 0
    assert options("run")["seed"] == 4


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("older", [True, False])
def test_what_the_first_attempt_began_goes_on(older, force, again, table, broken):
    assert call(*FIT, "--out", "whole").exit_code == 0
    if older:
        force = ("--force",)
        assert call(*FIT, "--seed", "4", "--out", "run").exit_code == 0
    mend = broken(11, MemoryError())
    assert call(*FIT, "--out", "run", *force).exit_code == 1
    mend()
    again()
    saved = Path("run", "checkpoints-2" if older else "checkpoints")
    assert saved.is_dir()
    assert call(*FIT, "--out", "run", *force).exit_code == 0
    same("whole", "run")
    assert len(os.listdir("run/checkpoints")) == 2


def test_one_that_had_finished_is_made_anew_by_force(again, table):
    assert call(*FIT, "--out", "run").exit_code == 0
    rows = table.read_text().splitlines()
    rows[40] = rows[39]
    table.write_text("\n".join([*rows, ""]))
    again()
    assert call(*FIT, "--out", "run", "--force").exit_code == 0


def test_without_a_name_the_same_job_is_found(again, table, broken):
    for seed in ("0", "1", "1"):
        mend = broken(11, MemoryError())
        assert call(*FIT, "--seed", seed).exit_code == 1
        mend()
    assert call(*FIT).exit_code == 0
    again()
    with Hold(Path("bptt-run-3")):  # of the same job at the same time
        assert call(*FIT, "--seed", "1").exit_code == 0
    assert options("bptt-run-2")["seed"] == 1
    assert not Path("bptt-run-3/run.json").exists()
    assert call(*FIT, "--seed", "7").exit_code == 0
    assert options("bptt-run-5")["seed"] == 7


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_sigterm_while_the_others_are_waited_for(tmp_path):
    """Process 1 waits for process 0, which never comes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": Path_of_bptt,
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    code = (
        "import bptt.cli._processes as p, bptt.cli; from pathlib import Path; bptt.cli.prepared()\n"
        "real = p.join_processes\n"
        "p.join_processes = lambda *given: (Path('joining').touch(), real(*given))\n"
        "with p.joined(): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=-1)
    wait_until(lambda: Path("joining").exists())
    time.sleep(0.3)
    process.terminate()
    try:
        process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGTERM
