"""What cannot be shown is dropped: the work goes on, and comes to its end."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bptt.cli
from bptt.training._progress import bar

from .cases import COLUMNS, FAST, in_fork
from .test_signals import Path_of_bptt

FIT = ("fit", "data.csv", *COLUMNS, *FAST[:-1], "--out", "run")
WRITTEN = {"model.safetensors", "run.json", "history.csv", "loss.png", "prediction.png"}


def command(streams, *arguments):
    """The exit code of a command in a process forked here, whose ``streams`` are prepared by their
    functions; what it shows beside those goes to the file ``told``."""

    def work():
        told = os.open("told", os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(told, number)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        for number, prepare in streams.items():
            prepare(number, ("stdin", "stdout", "stderr")[number])
        try:
            bptt.cli.prepared()(prog_name="bptt", args=[str(a) for a in arguments])
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            return end.code or 0
        except BaseException as error:
            os.write(told, repr(error).encode())
        return 99

    return in_fork(work)


def full(number, name):
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def unread(number, name):
    """A pipe whose reader ended."""
    reader, writer = os.pipe()
    os.dup2(writer, number)
    os.close(reader)


def closed(number, name):
    os.close(number)
    setattr(sys, name, None)


def ascii_alone(number, name):
    setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "ascii", "strict"))


STREAMS = [{1: prepare} for prepare in (full, unread, closed, ascii_alone)]
STREAMS += [{2: prepare} for prepare in (full, unread, closed)]
STREAMS += [{0: closed, 1: closed, 2: closed}, {1: full, 2: full}]


def named(streams):
    return ", ".join(f"{number} {prepare.__name__}" for number, prepare in streams.items())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")
@pytest.mark.parametrize("streams", STREAMS, ids=named)
def test_a_run_is_trained_and_written(streams, table):
    code = command(streams, *FIT)
    assert code == 0, Path("told").read_text()
    assert set(os.listdir("run")) >= WRITTEN
    if 1 not in streams:
        assert "Written to run" in Path("told").read_text()


@pytest.mark.parametrize("streams", STREAMS[:4], ids=named)
def test_other_commands(streams, runs):
    compare = ("--budget", "30", "--starts", "1", "--methods", "full", "--hidden", "2")
    for arguments in (
        ("compare", runs / "data.csv", "--target", "y", *compare, "--out", "cmp", "--force"),
        ("predict", runs / "predicting", runs / "data.csv", "--force"),
        ("fit", "--help"),
        ("--version",),
    ):
        assert command(streams, *arguments) == 0, (arguments, Path("told").read_text())
    assert command(streams, "predict", "nowhere") == 2


def test_what_the_terminal_does_not_have_is_a_question_mark(runs):
    compare = ("--budget", "30", "--starts", "1", "--methods", "full", "--hidden", "2")
    command({1: ascii_alone}, "compare", runs / "data.csv", "--target", "y", *compare)
    assert "? full" in Path("told").read_text()


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors")
def test_closed_streams_are_not_the_next_files():
    """In a real process, from its first moment: a file that is opened gets a number of its own."""
    code = (
        "import sys; sys.argv[0] = 'bptt'\n"
        "from bptt import _ending; import os\n"
        "open('found', 'w').write(str(os.open('.', os.O_RDONLY) > 2))"
    )
    given = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": Path_of_bptt}
    shell = 'exec "$@" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", shell, "sh", *given], check=True, env=environment)
    assert Path("found").read_text() == "True"


class Failing(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Failing()])
def test_a_bar_ends_no_training(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(bar(range(3), enabled=True, mininterval=0)) == [0, 1, 2]


def test_what_fails_before_anything_is_saved_leaves_no_trace(table, monkeypatch):
    from .cases import call

    def fail(*given, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("bptt.forecasting.runs._train.fit", fail)
    result = call(*FIT)
    assert isinstance(result.exception, ZeroDivisionError)
    assert os.listdir() == ["data.csv"]
