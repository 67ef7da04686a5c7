"""Workers end with the process that asked for them, whatever they are about to do."""

import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bptt.errors import CheckpointError
from bptt.training import _workers
from bptt.training._workers import Asked, Watch, attend, deaf

from .cases import in_fork, write_table
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
        (signal.SIGINT, True),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.slow),
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
        asked = Asked(None)
        asked.process = os.getppid() + 1
        with asked.watched(saves=True):
            _workers._look()  # returns
            if not asked.left():
                return 1
        return 2

    assert in_fork(worker) == _workers.LEFT


def of_another(asked):
    """What a worker gets."""
    found = pickle.loads(pickle.dumps(asked))
    found.process = 17
    return found


def looks_again(asked):
    asked._next = 0.0
    return asked.left()


@pytest.mark.parametrize(("parent", "left"), [(True, True), (False, False)])
def test_a_file_that_is_gone_says_left_to_a_child_alone(parent, left, monkeypatch, tmp_path):
    """A worker on another machine never finds it."""
    monkeypatch.setattr(_workers, "_parent", 17 if parent else None)
    asked = of_another(Asked(tmp_path / "gone"))
    with asked.watched(saves=False):
        assert asked.left() == left


def test_a_worker_is_told(tmp_path):
    with Watch(tmp_path) as watch:
        asked = of_another(watch.asked)
        assert not watch.asked.left()
        with asked.watched(saves=True):
            assert not looks_again(asked)
            watch.leave()
            assert looks_again(asked)
        assert watch.asked.left()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_no_child_sees_that_the_process_was_killed(tmp_path):
    """By the lock, which is free; a lock that never reached it says nothing."""
    with Watch(tmp_path) as watch:
        asked, far = of_another(watch.asked), of_another(watch.asked)
        with asked.watched(saves=True):
            watch._marker.close()
            assert looks_again(asked)
        with far.watched(saves=True):
            assert not looks_again(far)


@pytest.mark.parametrize("failing", ["stat", "flock"])
def test_a_disk_that_does_not_answer_says_nothing(failing, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise OSError(errno.EIO, "no answer")

    with Watch(tmp_path) as watch:
        asked = of_another(watch.asked)
        with asked.watched(saves=True):
            with monkeypatch.context() as patch:
                patch.setattr(*{"stat": (os, "stat"), "flock": (fcntl, "flock")}[failing], fail)
                told = looks_again(asked)
            assert not told
            assert not looks_again(asked)


def test_where_nobody_can_be_told_nothing_begins(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(CheckpointError, match="no room"):
        Watch(tmp_path)


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


def test_what_killed_processes_left_is_swept(tmp_path):
    def killed(watch):
        watch.append(Watch(tmp_path))
        os._exit(9)

    in_fork(partial(killed, []))
    (left,) = tmp_path.iterdir()
    mine = tmp_path / f"{left.name}x"
    mine.write_text("mine")
    with Watch(tmp_path) as first, Watch(tmp_path) as second:
        names = {mine, first.asked.marker, second.asked.marker}
        assert set(tmp_path.iterdir()) == names
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize(
    ("number", "often"),
    [
        (signal.SIGTERM, "never"),
        pytest.param(signal.SIGKILL, "never", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "20", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_in_the_temporary_folder(number, often, tmp_path, monkeypatch):
    pytest.importorskip("joblib")
    data = write_table(tmp_path / "data.csv")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    process = start("fit", data, *COLUMNS, *SMALL, *LONG, "--out", "run", "--checkpoint", often)
    try:
        wait_until(lambda: workers_of(process.pid))
        time.sleep(1)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
        wait_until(lambda: not group_of(process.pid), 20)
    finally:
        for one in group_of(process.pid):
            os.kill(one, signal.SIGKILL)
    assert process.returncode == CODES.get(number, -number), told
    assert "leaked" not in told  # joblib's trackers remove it, and say nothing
    assert [p.name for p in (tmp_path / "temporary").iterdir() if "bptt" in p.name] == []
