"""One exit code for what the system refuses and for what other processes do, at whatever moment."""

import errno
import os
import pickle

import pytest

from bptt.cli import _compare
from bptt.errors import CheckpointError, ProcessError
from bptt.training import _store

from .cases import FAST, call

FIT = ("fit", "data.csv", "--inputs", "u", "--target", "y", *FAST)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("starts", [(), ("--starts", "2")])
@pytest.mark.parametrize(
    ("name", "at"), [("mkdir", 1), ("mkdir", 2), ("fsync", 1), ("replace", 1), ("rename", 2)]
)
def test_what_the_system_refuses(name, at, starts, number, table, monkeypatch):
    """As the folder is made, as the run is noted, in a checkpoint, and as the run takes its
    place."""
    real, seen = getattr(os, name), []

    def refused(*given, **options):
        if name == "fsync" or "run" in str(given[0]):  # others make folders for themselves
            seen.append(given)
        if len(seen) == at:
            raise OSError(number, os.strerror(number))
        return real(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refused)
        result = call(*FIT, *starts, "--out", "run")
    assert len(seen) >= at
    assert result.exit_code == 1, result.output


def test_what_workers_are_refused_is_told_by_its_number(tmp_path):
    with pytest.raises(CheckpointError) as refused, _store.writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    sent = pickle.loads(pickle.dumps(refused.value))
    assert sent.errno == errno.ENOSPC
    assert str(sent) == str(refused.value)


def test_what_another_process_does(monkeypatch):
    def gone(*given):
        raise ProcessError("another process ended.")

    monkeypatch.setattr(_compare, "read_series", gone)
    assert call("compare", "--quiet").exit_code == 1
