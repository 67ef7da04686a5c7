"""Files are written whole or not at all, and what is no file is refused at once."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bptt import files
from bptt.errors import DataError


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
def test_whatever_call_fails_the_old_file_is_intact(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    failing(monkeypatch, name, number)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        files.write_bytes(path, b"new" * 1000)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["old"]
    assert ("are free" in files.why(caught.value, 3000)) == (number == errno.ENOSPC)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_permissions_can_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    failing(monkeypatch, "chmod", number)
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_disk_that_flushes_no_folders_can_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:  # the disk fails
        with pytest.raises(OSError, match=os.strerror(number)):
            files.flush(tmp_path)
        return
    files.write_bytes(tmp_path / "out", b"new")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_folder_that_may_not_be_opened_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written to, but not listed."""
    real = os.open

    def opened(path: Any, *more: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *more)

    def listed(*given: Any) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "listdir", listed)
    files.write_bytes(tmp_path / "out", b"whole")
    assert (tmp_path / "out").read_bytes() == b"whole"


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    path, link, twin = tmp_path / "file", tmp_path / "link", tmp_path / "twin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    os.link(path, twin)
    files.write_bytes(link, b"new")
    assert path.read_bytes() == b"new"
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert twin.read_bytes() == b"old"  # another name of the old file keeps what it had


def run(code: str) -> int:
    """The exit code of another process."""
    before = "import os, signal; from pathlib import Path; from bptt import files\n"
    paths = {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    command = [sys.executable, "-c", before + code]
    return subprocess.run(command, check=False, env={**os.environ, **paths}).returncode


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    killed = (
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.write_bytes({str(tmp_path / 'out')!r}, b'half')"
    )
    assert run(killed) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(files.UNFINISHED)
    assert files.is_unfinished(left)
    with files.Unfinished(tmp_path) as other:
        files.write_bytes(tmp_path / "out", b"whole")
        assert sorted(os.listdir(tmp_path)) == sorted(["out", other.path.name])
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [os.getpid(), 2**22 + 1], ids=["living", "none"])
def test_the_number_of_a_process_says_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another container it is another process's, or nobody's."""
    real, swept = os.replace, f"files.sweep(Path({str(tmp_path)!r}))"

    def replace(unfinished: Any, place: Any) -> None:
        assert run(f"os.getpid = lambda: {number}\n{swept}") == 0
        real(unfinished, place)

    monkeypatch.setattr(os, "getpid", lambda: number)
    monkeypatch.setattr(os, "replace", replace)
    files.write_bytes(tmp_path / "out", b"whole")
    assert (tmp_path / "out").read_bytes() == b"whole"


def test_threads_that_write_one_file_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins while the first has written a part."""
    path, real = tmp_path / "out", os.write
    half, over = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def write(handle: int, data: Any) -> int:
        if threading.current_thread() is slow and len(data) > 4:
            written = real(handle, data[:4])
            half.set()
            over.wait(10)
            return written
        return real(handle, data)

    def work() -> None:
        try:
            files.write_bytes(path, b"slow" * 10)
        except Exception as error:
            failed.append(error)

    monkeypatch.setattr(os, "write", write)
    slow = threading.Thread(target=work)
    slow.start()
    half.wait(10)
    files.write_bytes(path, b"fast" * 10)
    assert path.read_bytes() == b"fast" * 10
    over.set()
    slow.join()
    assert failed == []
    assert path.read_bytes() == b"slow" * 10
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_is_tried_as_it_is_made_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the making of the file and its lock."""
    real, tried = fcntl.flock, []

    def flock(handle: int, kind: int) -> None:
        if not tried:
            tried.append(handle)
            assert run(f"files.sweep(Path({str(tmp_path)!r}))") == 0
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    files.write_bytes(tmp_path / "out", b"whole")
    assert tried
    assert os.listdir(tmp_path) == ["out"]


def test_where_there_are_no_locks_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    left = tmp_path / f"{files.UNFINISHED}0123456789abcdef"
    left.write_bytes(b"half")
    files.write_bytes(tmp_path / "out", b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted([left.name, "out"])
    monkeypatch.undo()
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=kind):
        files.read_bytes(path)
    with pytest.raises(DataError, match=kind):
        files.write_bytes(path, b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_folder_that_is_read_leaves_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            files.read_bytes(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_names_of_any_length_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff" + b"x" * 250)
    files.write_bytes(path, b"data")
    assert files.read_bytes(path) == b"data"
    assert files.shown(path).endswith("\\udcff" + "x" * 250)


def test_room_is_never_contradicted(tmp_path: Path) -> None:
    assert "too little" in files.room(tmp_path, 1 << 60)
    assert "too little" not in files.room(tmp_path / "absent", 1)
