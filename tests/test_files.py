"""Files are written whole or not at all, and what is no file is refused at once."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
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


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    killed = (
        "import os, signal; from bptt import files;"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL);"
        f"files.write_bytes({str(tmp_path / 'out')!r}, b'half')"
    )
    done = subprocess.run([sys.executable, "-c", killed], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(files.UNFINISHED)
    other = tmp_path / f"{left.rpartition('.')[0]}.{os.getppid()}"  # of a process that lives
    other.write_bytes(b"")
    files.write_bytes(tmp_path / "out", b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["out", other.name])


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


def test_names_of_any_length_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff" + b"x" * 250)
    files.write_bytes(path, b"data")
    assert files.read_bytes(path) == b"data"
    assert files.shown(path).endswith("\\udcff" + "x" * 250)


def test_room_is_never_contradicted(tmp_path: Path) -> None:
    assert "too little" in files.room(tmp_path, 1 << 60)
    assert "too little" not in files.room(tmp_path / "absent", 1)
