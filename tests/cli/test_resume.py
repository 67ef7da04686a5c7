"""A run that is broken off goes on with `--resume`, and ends as one that never was."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file

import bptt

from .cases import FAST, call, words

COLUMNS = ("--inputs", "u", "--target", "y")
FILES = ("model.safetensors", "run.json")


def same(one, other):
    weights = [load_file(f"{run}/model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    rows = [Path(f"{run}/history.csv").read_text().splitlines() for run in (one, other)]
    kept = [[row.split(",")[:7] for row in run] for run in rows]  # without the clock's columns
    assert kept[0] == kept[1]
    records = [json.loads(Path(f"{run}/run.json").read_text()) for run in (one, other)]
    for found in ("metrics", "bits"):
        assert records[0].get(found) == records[1].get(found)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_shows_how_to_go_on(how, code, table, broken, tmp_path):
    assert call("fit", table, *COLUMNS, *FAST, "--out", "whole").exit_code == 0
    mend = broken(11, how)
    stopped = call("fit", table, *COLUMNS, *FAST, "--out", "my run")
    mend()
    assert stopped.exit_code == code
    assert "bptt fit --resume 'my run'" in words(stopped.output)
    assert sorted(os.listdir("my run")) == ["checkpoints", "job.json"]
    os.chdir("my run")  # the data are found from anywhere
    resumed = call("fit", "--resume", ".")
    os.chdir("..")
    assert resumed.exit_code == 0, resumed.output
    same("whole", "my run")


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the cat sat on the mat.\n" * 60)
    return path


TEXT = ("--task", "text", "--epochs", "2", "--hidden", "8", "--depth", "16", "--lanes", "4")


@pytest.mark.parametrize("how", [signal.SIGTERM, MemoryError()])
def test_a_text_goes_on(how, book, broken):
    assert call("fit", book, *TEXT, "--quiet", "--out", "whole").exit_code == 0
    mend = broken(27, how)  # in the second epoch
    stopped = call("fit", book, *TEXT, "--quiet", "--out", "run")
    mend()
    assert stopped.exit_code == (143 if how == signal.SIGTERM else 1)
    assert sorted(os.listdir("run")) == ["checkpoints", "job.json"]
    assert json.loads(Path("run/job.json").read_text())["task"] == "text"
    resumed = call("fit", "--resume", "run", "--quiet")
    assert resumed.exit_code == 0, resumed.output
    same("whole", "run")
    assert call("predict", "run", "--sample", "5").exit_code == 0


def test_a_text_whose_process_was_killed_goes_on(book):
    assert call("fit", book, *TEXT, "--quiet", "--out", "whole").exit_code == 0
    arguments = ["fit", book, *TEXT, "--quiet", "--out", "run", "--checkpoint", "1"]
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments], cwd=book.parent)
    try:
        deadline = time.monotonic() + 60
        while not Path("run/checkpoints/checkpoint-00000002").is_dir():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    resumed = call("fit", "--resume", "run", "--quiet")
    assert resumed.exit_code == 0, resumed.output
    same("whole", "run")


SLOWLY = """
import functools, math, time
import bptt.text._model
from bptt.cli import main
from bptt.training import Checkpoint
from bptt.training._step import Stepper
Checkpoint.__init__.__defaults__ = (*Checkpoint.__init__.__defaults__[:-1], math.inf)
bptt.text._model.Network = functools.partial(bptt.Network, backend="eager")
apply = Stepper.apply
Stepper.apply = lambda *arguments: (time.sleep(0.05), apply(*arguments))[1]
main()
"""
"""Saves after every update, and leaves the time to be killed."""


def test_a_text_goes_on_with_what_may_change(book):
    longer = [*TEXT[:2], "--epochs", "3", *TEXT[4:]]
    assert call("fit", book, *longer, "--quiet", "--out", "whole").exit_code == 0
    assert call("fit", book, *TEXT, "--quiet", "--out", "run").exit_code == 0
    refused = call("fit", "--resume", "run", "--jobs", "2")
    assert refused.exit_code == 2
    assert "--jobs does not go with --task text" in words(refused.output)
    more = ("--epochs", "3", "--on-nonfinite", "skip")
    assert call("fit", "--resume", "run", *more, "--quiet").exit_code == 0
    same("whole", "run")
    book.write_text("the mat sat on the cat.\n" * 60)
    changed = call("fit", "--resume", "run", "--epochs", "4")
    assert changed.exit_code == 2
    assert "changed since the checkpoint" in words(changed.output)
    book.write_text("the cow sat on the mat.\n" * 60)  # another alphabet
    misfit = call("fit", "--resume", "run", "--epochs", "4", "--force")
    assert misfit.exit_code == 2
    assert "does not fit the network" in words(misfit.output)


def test_starts_go_on(table, broken):
    starts = ("--starts", "2", *FAST)
    assert call("fit", table, *COLUMNS, *starts, "--out", "whole").exit_code == 0
    mend = broken(21, signal.SIGINT)
    assert call("fit", table, *COLUMNS, *starts, "--out", "run").exit_code == 130
    mend()
    assert call("fit", "--resume", "run", "--quiet").exit_code == 0
    same("whole", "run")


def test_a_crash_before_the_first_regular_checkpoint_loses_nothing_but_time(table, broken):
    assert call("fit", table, *COLUMNS, *FAST, "--out", "whole").exit_code == 0
    mend = broken(9, MemoryError())
    assert call("fit", table, *COLUMNS, *FAST, "--out", "run").exit_code == 1
    mend()
    assert call("fit", "--resume", "run", "--quiet").exit_code == 0
    same("whole", "run")


def test_a_finished_run_goes_on_to_more_epochs(table):
    longer = [*FAST[2:], "--epochs", "4"]
    assert call("fit", table, *COLUMNS, *longer, "--out", "whole").exit_code == 0
    assert call("fit", table, *COLUMNS, *FAST, "--out", "run").exit_code == 0
    assert call("fit", "--resume", "run", "--epochs", "4", "--quiet").exit_code == 0
    same("whole", "run")


def test_changed_data_are_refused_unless_forced(table, broken):
    mend = broken(9, signal.SIGINT)
    call("fit", table, *COLUMNS, *FAST, "--out", "run")
    mend()
    lines = table.read_text().splitlines()
    lines[40] = lines[40].replace(",5", ",6", 1).replace(",4", ",5", 1)
    table.write_text("\n".join(lines) + "\n")
    refused = call("fit", "--resume", "run")
    assert refused.exit_code == 2
    assert "changed since the checkpoint" in words(refused.output)
    assert "--force" in refused.output
    forced = call("fit", "--resume", "run", "--force", "--quiet")
    assert forced.exit_code == 0, forced.output


def test_a_new_run_in_its_place_begins_anew(table):
    for _ in range(2):
        result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--force")
        assert result.exit_code == 0, result.output
    assert len(os.listdir("run/checkpoints")) == 2


def test_never_saves_nothing(table):
    result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--checkpoint", "never")
    assert result.exit_code == 0
    assert not {"checkpoints", "job.json"} & set(os.listdir("run"))


def test_a_run_that_was_not_finite_goes_on_with_another_policy(table):
    wild = ("--optimizer", "sgd", "--lr", "1e30")
    stopped = call("fit", table, *COLUMNS, *FAST, *wild, "--out", "run")
    assert stopped.exit_code == 1
    assert "--resume run --on-nonfinite skip" in words(stopped.output)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bptt.NonFiniteWarning)
        call("fit", "--resume", "run", "--on-nonfinite", "rollback", "--quiet")
    assert json.loads(Path("run/job.json").read_text())["options"]["on_nonfinite"] == "rollback"


REFUSED = {
    "no run": (("--resume", "nowhere"), "nowhere holds no run that can go on"),
    "data": (("data.csv", "--resume", "run"), "leave out DATA"),
    "options": (("--resume", "run", "--hidden", "3", "--lr", "1"), "leave out --hidden, --lr"),
    "never": (("--resume", "run", "--checkpoint", "never"), "not never"),
    "no time": (("--checkpoint", "soon"), "every='soon' is no time"),
    "no updates": (("--checkpoint", "0"), "every must be at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    arguments, message = REFUSED[name]
    result = call("fit", *arguments)
    assert result.exit_code == 2
    assert message in words(result.output)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: {**job, "format": 8}, "has format 8; this version of bptt reads up to 3"),
        (lambda job: {**job, "options": {"hiden": 3}}, "is damaged"),
        (lambda job: {**job, "options": {**job["options"], "hidden": -1}}, "is damaged"),
        (lambda job: {k: v for k, v in job.items() if k != "data"}, "no 'data'"),
        (lambda job: {**job, "data": 3}, "is damaged"),
        (lambda job: {**job, "every": None}, "is damaged"),
        (lambda job: {**job, "every": True}, "is damaged"),
        (lambda job: {**job, "missing": "perhaps"}, "is damaged"),
        (lambda job: {**job, "task": "sculpture"}, "task is 'sculpture'"),
        (lambda job: {**job, "task": "text"}, "is damaged"),
        (lambda job: {k: v for k, v in job.items() if k != "task"} | {"every": []}, "neither a"),
        (lambda job: [job], "is damaged"),
        (lambda job: {**job, "data": "/nowhere/data.csv"}, "there is no file"),
    ],
)
def test_damaged_jobs_are_refused(change, message, table):
    assert call("fit", table, *COLUMNS, *FAST, "--out", "run").exit_code == 0
    path = Path("run/job.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    result = call("fit", "--resume", "run")
    assert result.exit_code == 2, result.output
    assert message in words(result.output)
