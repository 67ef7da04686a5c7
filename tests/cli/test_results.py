"""What a command leaves: asked for before work, told truly, never in the place of another file."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch.distributed as dist
import typer
from tests.torture.commands import process

from bptt import _ending, files
from bptt.cli import _compare, _place, _predict, _processes
from bptt.cli._show import leave
from bptt.errors import CheckpointError, DataError, ProcessError
from bptt.text import Options
from bptt.training import Hold

from .cases import COLUMNS, FAST, call, words

REACH = ("--parts", "reach", "--lags", "16", "--anchors", "2")
COMPARE = ("--methods", "full", "--starts", "1", "--budget", "30", "--hidden", "2", "--quiet")
COMMANDS = {
    "fit": ("fit", "data.csv", *COLUMNS, *FAST, "--checkpoint", "never", "--out", "folder"),
    "compare": ("compare", "data.csv", *COLUMNS, *COMPARE, "--out", "folder"),
    "predict": ("predict", "run", "data.csv", "--out", "p.csv"),
    "report": ("report", "run"),
    "diagnose": ("diagnose", "run", "data.csv", *REACH),
}


@pytest.fixture
def _here(runs):
    shutil.copytree(runs / "predicting", "run", ignore=shutil.ignore_patterns("d*", "r*.html"))
    shutil.copy(runs / "data.csv", "data.csv")


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_written_is_refused_before_any_work(name, monkeypatch):
    for work in ("cli._fit.TASKS", "cli._compare.compare", "cli._predict.load"):
        monkeypatch.setattr(f"bptt.{work}", None)
    monkeypatch.setattr("bptt.forecasting.runs._report.diagnose", None)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    result = call(*COMMANDS[name])
    assert result.exit_code == 2, result.output
    assert "is write-protected" in words(result.output)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fit", "The run is written to folder."),
        ("compare", "Written to folder: comparison.json."),
        ("diagnose", "run/diagnosis/diagnosis.json is written."),
    ],
)
def test_a_signal_while_pictures_are_drawn_tells_what_is_written(name, said, monkeypatch):
    def stopped(*given, **options):
        signal.raise_signal(signal.SIGTERM)

    def arm():
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", stopped)

    code, told = process(Path(), list(COMMANDS[name]), arm=arm)
    assert code == 143
    assert told.splitlines()[-1] == f"Stopped. {said}"


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("name", "place", "work", "file"),
    [
        ("predict", _predict, "load", "p.csv"),
        ("compare", _compare, "compare", "folder/comparison.json"),
        ("compare", _compare, "compare", "folder/comparison.png"),
    ],
)
def test_a_file_that_comes_there_meanwhile_is_not_replaced(name, place, work, file, monkeypatch):
    real = getattr(place, work)

    def slowly(*given, **options):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text("mine")
        return real(*given, **options)

    monkeypatch.setattr(place, work, slowly)
    result = call(*COMMANDS[name])
    assert result.exit_code == 1, result.output
    assert f"{file} exists" in words(result.output)
    assert Path(file).read_text() == "mine"
    assert name == "predict" or "median" in result.output  # what was found is shown


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_one_tells_what_is_wrong(rank, monkeypatch, capsys):
    monkeypatch.setattr(_ending, "together", True)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(typer.Exit) as left:
        leave("Error", "the data are gone", 2)
    assert left.value.exit_code == 2
    assert capsys.readouterr().err.count("the data are gone") == (rank == "0")


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_one_process_is_told_by_the_first(failing, monkeypatch):
    """Seen from process 0."""

    def gather(told, mine):
        told[:] = [mine, "there is no file" if failing == 1 else None]

    def work():
        if failing == 0:
            raise DataError("no such column")
        return 1

    monkeypatch.setattr(_processes, "world", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    kind, said = {
        0: (DataError, "no such column"),
        1: (ProcessError, "process 1 could not begin: there is no file"),
    }[failing]
    with pytest.raises(kind, match=said):
        _processes.agreed(work)


def test_a_folder_that_is_replaced_as_it_is_locked_is_locked_again(monkeypatch):
    """Another process may remove the folder that it made, and a third one make it again."""
    seen = []

    def hold(folder):
        found = Hold(folder)
        if not seen:
            seen.append(found)
            os.rename(folder, "gone")
            os.mkdir(folder)
        return found

    monkeypatch.setattr(_place, "Hold", hold)
    with _place.held(lambda: Path("run"), lambda folder: None) as place:
        assert place.is_there()
        with pytest.raises(CheckpointError):
            Hold(Path("run"))
        Hold(Path("gone")).release()


def test_a_folder_that_another_run_has_just_taken_stays(monkeypatch):
    real, others = files.make_folder, []

    def make(folder):
        real(folder)
        others.append(Hold(folder))

    monkeypatch.setattr(files, "make_folder", make)
    with (
        pytest.raises(CheckpointError, match="being written to by another run"),
        _place.held(lambda: Path("run"), lambda folder: None),
    ):
        pass
    assert others[0].is_there()
    others[0].release()


def test_the_help_says_what_is_so(table):
    said = words(call("fit", "--help").output)
    own = Options()
    defaults = f"--hidden {own.hidden} --depth {own.depth} (and no --stride) --lr {own.lr}"
    assert defaults in said
    assert said.count("of a text, a share") == 2
    assert "Between the first save and the last" in said
    refused = call("fit", table, "--task", "text", "--stride", "9")
    assert "--stride does not go with --task text" in words(refused.output)
    refused = call("fit", table, "--task", "text", "--test", "96", "--out", "run")
    assert refused.exit_code == 2
