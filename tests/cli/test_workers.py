"""Workers end with the process that asked for them, whatever they are about to do."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bptt.training import _workers
from bptt.training._workers import Asked, Watch, attend, deaf

from .cases import write_table
from .test_harm import in_fork
from .test_signals import CODES, COLUMNS, SMALL, group_of, start, wait_until

LONG = ("--epochs", "4000", "--patience", "4000", "--starts", "6", "--jobs", "2")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def workers_of(process):
    """joblib's workers in the session of a process."""
    found = []
    for one in group_of(process):
        with suppress(OSError):
            if b"popen_loky" in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
    return found


@pytest.mark.parametrize(
    ("number", "whole"),
    [
        (signal.SIGTERM, False),
        (signal.SIGHUP, True),
        (signal.SIGINT, True),
        (signal.SIGKILL, False),
    ],
)
def test_as_the_workers_begin(number, whole, tmp_path):
    """The signal comes while they import; ``whole``: to all processes, as a terminal sends it."""
    pytest.importorskip("joblib")
    data = write_table(tmp_path / "data.csv")
    process = start("fit", data, *COLUMNS, *SMALL, *LONG, "--out", "run", "--checkpoint", "20")
    try:
        wait_until(lambda: workers_of(process.pid))
        time.sleep(0.3)  # into their imports, which take seconds
        (os.killpg if whole else os.kill)(process.pid, number)
        told = process.communicate(timeout=60)[1]  # its end comes when no process holds it
        wait_until(lambda: not group_of(process.pid), 10)
    finally:
        for one in group_of(process.pid):
            os.kill(one, signal.SIGKILL)
    assert process.returncode == CODES.get(number, -number), told
    assert "Traceback" not in told
    assert Path("run/job.json").exists()  # it goes on by --resume
    if number != signal.SIGKILL:
        assert told.splitlines()[-1].startswith("Stopped. Training is saved. Go on with: bptt fit")


def test_a_worker_without_a_start_ends_with_its_parent(monkeypatch):
    """Also where its parent was gone before it looked."""

    def worker():
        _workers._parent = os.getppid() + 1
        _workers._look()
        return 0

    assert in_fork(worker) == _workers.LEFT


def test_a_worker_that_saves_ends_after_it_has_saved(monkeypatch):
    def worker():
        _workers._parent = os.getppid() + 1
        asked = Asked("", os.getppid() + 1)
        with asked.watched(saves=True):
            _workers._look()  # returns
            if not asked.left():
                return 1
        return 2

    assert in_fork(worker) == _workers.LEFT


@pytest.mark.parametrize(("parent", "left"), [(True, True), (False, False)])
def test_a_file_that_is_gone_says_left_to_a_child_alone(parent, left, monkeypatch, tmp_path):
    """A worker on another machine never finds it."""
    monkeypatch.setattr(_workers, "_parent", 17 if parent else None)
    asked = Asked(str(tmp_path / "gone"), 17)
    with asked.watched(saves=False):
        assert asked.left() == left


def test_only_children_look_for_their_parent():
    """Workers of other kinds, and this process itself, are let alone."""
    before = [signal.getsignal(one) for one in _workers.SIGNALS], threading.active_count()
    attend(os.getpid())
    assert before == ([signal.getsignal(one) for one in _workers.SIGNALS], threading.active_count())
    assert _workers._parent is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_waits_while_workers_are_begun(number):
    caught = []
    before = signal.signal(number, lambda *_: caught.append(1))
    try:
        with deaf():
            os.kill(os.getpid(), number)
            child = subprocess.run(["grep", "SigBlk", "/proc/self/status"], stdout=-1, check=True)
        assert caught  # then, or before, where another thread takes it
    finally:
        signal.signal(number, before)
    assert int(child.stdout.split()[1], 16) >> (number - 1) & 1


def test_what_killed_processes_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def killed(watch):
        watch.append(Watch())
        os._exit(9)

    in_fork(partial(killed, []))
    (left,) = tmp_path.iterdir()
    mine = tmp_path / f"{left.name}x"
    mine.write_text("mine")
    with Watch() as first, Watch() as second:
        names = {str(mine), first.asked.file, second.asked.file}
        assert {str(path) for path in tmp_path.iterdir()} == names
    assert list(tmp_path.iterdir()) == [mine]
