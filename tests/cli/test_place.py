"""What a command may write to: what is not its own is refused, or stays, whatever leads there."""

import json
import os
import pydoc
import shutil
from functools import partial
from pathlib import Path

import pytest

from bptt import files
from bptt.errors import CheckpointError, DataError
from bptt.runs import Made, read_run, write_run
from bptt.training import Hold

from .cases import COLUMNS, FAST, call, fit, in_fork, snapshot, words

FIT = ("fit", "data.csv", *COLUMNS, *FAST)
NEVER = ("--checkpoint", "never")
ALONE = shutil.ignore_patterns("diagnosis", "report.html")
"""What other tests put beside the shared run."""


def edit(path, change):
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


class TestNames:
    """A stranger's record is not believed about what lies outside of its run."""

    @pytest.mark.parametrize("key", ["pictures", "files"])
    def test_a_record_names_only_files_of_a_run(self, key, table):
        fit("--out", "run", *NEVER)
        for folder in ("precious", "run/own"):
            os.mkdir(folder)
            Path(folder, "thesis").write_text("years of work")
        Path("run/notes").write_text("mine")
        names = ["../precious", os.path.abspath("precious"), "", ".", "..", "notes", "own"]
        names += ["sub/../notes", ".whole"]
        honest = Path("run/run.json").read_text()

        def add(record, named):
            if key == "pictures":
                record["pictures"] += named
            else:
                record["files"] |= {name: {"bytes": 1, "sha256": ""} for name in named}

        for name in names if key == "files" else ():
            edit("run/run.json", partial(add, named=[name]))
            with pytest.raises(DataError, match="is damaged: files are not"):
                read_run("run")
            Path("run/run.json").write_text(honest)
        edit("run/run.json", partial(add, named=names))
        mine = [Path(p) for p in ("precious/thesis", "run/own/thesis", "run/notes")]
        before = [path.read_bytes() for path in mine]
        assert call(*FIT, "--out", "run", "--force").exit_code == 0
        assert [path.read_bytes() for path in mine] == before

    @pytest.mark.parametrize("name", ["loss.png", "model.safetensors", "job.json"])
    def test_a_link_is_not_followed(self, name, table):
        fit("--out", "run")
        shutil.copy(f"run/{name}", "elsewhere")
        os.unlink(f"run/{name}")
        os.symlink("../elsewhere", f"run/{name}")
        before = snapshot(".")
        for command in ((*FIT, "--out", "run", "--force"), ("fit", "--resume", "run")):
            result = call(*command)
            assert result.exit_code == 2
            assert name in words(result.output)
        assert snapshot(".") == before
        assert os.path.islink(f"run/{name}")

    def test_a_strangers_record_owns_nothing(self, table):
        """Other programs write a ``run.json`` too."""
        os.mkdir("llm")
        Path("llm/run.json").write_text('{"format": "hf", "options": {"lr": 1}}')
        for name in ("model.safetensors", "loss.png"):
            Path("llm", name).write_text("years of work")
        before = snapshot("llm")
        result = call(*FIT, "--out", "llm", "--force")
        assert result.exit_code == 2
        assert "loss.png, model.safetensors, run.json, which no run" in words(result.output)
        assert snapshot("llm") == before

    def test_a_run_of_an_older_version_owns_what_it_surely_wrote(self, table):
        fit("--out", "run", *NEVER)

        def older(record):
            for name in ("files", "pictures", "saved"):
                del record[name]

        edit("run/run.json", older)
        before = snapshot("run")
        refused = call(*FIT, "--out", "run", "--force")
        assert "holds loss.png, prediction.png, which no run" in words(refused.output)
        assert snapshot("run") == before
        for name in ("loss.png", "prediction.png"):
            os.unlink(f"run/{name}")
        fit("--out", "run", "--force", *NEVER)

    @pytest.mark.parametrize("name", ["checkpoints", "checkpoints-2"])
    def test_checkpoints_that_a_link_leads_to_are_anothers(self, name, table):
        for run in ("run", "other"):
            fit("--out", run)
        if name == "checkpoints":
            shutil.rmtree("run/checkpoints")
        else:
            shutil.copy("other/job.json", "other/checkpoints")
        os.symlink("../other/checkpoints", f"run/{name}")
        before = snapshot("other")
        result = call(*FIT, "--out", "run", "--force")
        assert snapshot("other") == before
        assert os.path.islink(f"run/{name}")
        if name == "checkpoints":
            assert result.exit_code == 2
            assert "holds checkpoints, which no run" in words(result.output)

    def test_a_run_of_its_own_is_no_replacement(self, table):
        fit("--out", "run")
        shutil.copytree("run", "run/checkpoints-2")
        before = {p: s for p, s in snapshot("run").items() if "checkpoints-2" in p}
        fit("--out", "run", "--force")
        assert before.items() <= snapshot("run").items()


def killed_before_settling(folder):
    """In a process of its own: a run ends as it is whole and waits in ``.whole``."""
    real = os.rename

    def rename(source, target):
        real(source, target)
        if str(target).endswith(".whole"):
            os._exit(9)

    os.rename = rename
    return call(*FIT, "--out", folder, *NEVER).exit_code


@pytest.mark.parametrize("there", [False, True])
def test_a_save_that_is_refused_leaves_the_folder_of_another_run(there, monkeypatch):
    """It may have been made by a run that is about to write to it."""
    if there:
        os.mkdir("run")
    real = files.make_folder
    held = []

    def made(folder):
        real(folder)
        held.append(Hold(folder))

    monkeypatch.setattr(files, "make_folder", made)
    with pytest.raises(CheckpointError, match="being written to by another run"):
        write_run("run", Made({}, {}))
    held[0].check()
    held[0].release()
    monkeypatch.undo()
    monkeypatch.setattr("bptt.files.write_folder", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_run("new", Made({}, {}))
    assert not os.path.exists("new")


class TestWaiting:
    def test_a_run_that_waits_is_a_run(self, table):
        assert in_fork(lambda: killed_before_settling("run")) == 9
        assert os.listdir("run") == [".whole"]
        before = read_run("run").parts
        refused = call(*FIT, "--seed", "5", "--out", "run", *NEVER)
        assert refused.exit_code == 2
        assert "exists and is not empty" in words(refused.output)
        assert read_run("run").parts == before
        fit("--out", "run", "--seed", "5", "--force", *NEVER)
        assert read_run("run").parts != before
        assert ".whole" not in os.listdir("run")

    @pytest.mark.parametrize("name", [".whole", ".whole/mine", ".whole/loss.png", ".writing-run/a"])
    @pytest.mark.parametrize("option", [(), ("--force",)])
    def test_what_only_bears_its_name_is_refused_before_training(
        self, name, option, table, monkeypatch
    ):
        monkeypatch.delattr("bptt.training._step.Stepper.apply")
        path = Path("run", name)
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        result = call(*FIT, "--out", "run", *NEVER, *option)
        assert result.exit_code == 2, result.output
        assert path.read_text() == "mine"

    def test_a_run_that_waits_replaces_nothing_that_is_not_listed(self, table, monkeypatch):
        fit("--out", "run", *NEVER)
        assert in_fork(lambda: killed_before_settling("other")) == 9
        shutil.move("other/.whole", "run")
        edit("run/run.json", lambda record: record["files"].pop("history.csv"))
        before = snapshot("run")
        for force in ((), ("--force",)):
            assert call(*FIT, "--out", "run", *force).exit_code == 2
        assert snapshot("run") == before


class TestUnfinished:
    @pytest.mark.parametrize(
        "name", [".writing-novel", ".writing-novel/a", ".writing-00000000.7", ".writing-run.txt"]
    )
    @pytest.mark.parametrize("place", [".", "checkpoints"])
    def test_only_what_was_being_written_here_is_swept(self, name, place, table):
        path = Path("run", place, name)
        if place != ".":
            fit("--out", "run")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        refused = call(*FIT, "--out", "run")
        assert refused.exit_code == 2
        assert "is not empty" in words(refused.output)
        call(*FIT, "--out", "run", "--force")
        call("fit", "--resume", "run", "--epochs", "3", "--quiet")
        assert path.read_text() == "mine"

    def test_what_was_is_swept(self, table):
        fit("--out", "run")
        dead = ".writing-0123456789abcdef"
        left = [
            Path("run", dead),
            Path("run/checkpoints", dead),
            Path("run/.writing-run/model.safetensors"),
            Path("run/checkpoints/.writing-checkpoint-00000007/state.json"),
            Path("run/checkpoints/.removing-checkpoint-00000007/state.json"),
        ]
        for path in left:
            path.parent.mkdir(exist_ok=True)
            path.write_text("half")
        with files.Unfinished(Path("run")) as live:
            assert call("fit", "--resume", "run", "--epochs", "3", "--quiet").exit_code == 0
            assert live.path.exists()
        assert not any(path.exists() for path in left)


def test_a_run_without_its_record_is_refused_before_training(table, monkeypatch):
    fit("--out", "run")
    os.unlink("run/run.json")
    before = snapshot("run")
    monkeypatch.delattr("bptt.training._step.Stepper.apply")
    result = call("fit", "--resume", "run", "--epochs", "9")
    assert result.exit_code == 2
    assert "which no run there lists" in words(result.output)
    assert snapshot("run") == before


REACH = ("--parts", "reach", "--lags", "16", "--anchors", "2")
COMPARE = ("--methods", "full", "--starts", "1", "--budget", "30", "--hidden", "2", "--quiet")


class TestDiagnosis:
    @pytest.mark.parametrize("name", ["diagnosis.json", "diagnosis.html", "reach.png"])
    @pytest.mark.parametrize("kind", ["file", "link to the data", "link to nothing", "folder"])
    def test_what_no_diagnosis_lists_is_refused(self, name, kind, runs, monkeypatch):
        monkeypatch.delattr("bptt.forecasting.runs._report.diagnose")  # before any work
        shutil.copytree(runs / "predicting", "run", ignore=ALONE)
        shutil.copy(runs / "data.csv", "data.csv")
        os.mkdir("run/diagnosis")
        path = Path("run/diagnosis", name)
        if kind == "file":
            path.write_text("mine")
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("../../data.csv" if kind == "link to the data" else "../../new")
        before = snapshot(".")
        result = call("diagnose", "run", "data.csv", *REACH)
        assert result.exit_code == 2
        assert f"{name}, which no diagnosis there lists" in words(result.output)
        assert snapshot(".") == before
        assert not os.path.exists("new")

    def test_a_file_in_its_place_is_refused(self, runs, monkeypatch):
        shutil.copytree(runs / "predicting", "run", ignore=ALONE)
        Path("run/diagnosis").write_text("mine")
        result = call("diagnose", "run", runs / "data.csv", *REACH)
        assert result.exit_code == 2
        assert "is a file, no folder" in words(result.output)

    def test_its_own_is_replaced_and_the_rest_stays(self, runs):
        shutil.copytree(runs / "predicting", "run", ignore=ALONE)
        command = ("diagnose", "run", runs / "data.csv", *REACH)
        assert call(*command[:3], "--parts", "dynamics").exit_code == 0
        mine = [Path("run/diagnosis", name) for name in ("surface.png", "notes")]
        for path in mine:
            path.write_text("mine")
        assert call(*command).exit_code == 0
        own = ["diagnosis.html", "diagnosis.json", "reach.png"]
        assert sorted(os.listdir("run/diagnosis")) == [*own[:2], "notes", own[2], "surface.png"]
        assert [path.read_text() for path in mine] == ["mine"] * 2
        Path("run/diagnosis/dynamics.png").write_text("mine")
        assert call(*command).exit_code == 0
        assert Path("run/diagnosis/dynamics.png").read_text() == "mine"


class TestData:
    """The data are never replaced, whatever the name that leads to them."""

    @pytest.mark.parametrize("name", ["comparison.json", "comparison.png"])
    @pytest.mark.parametrize("link", [os.link, os.symlink])
    def test_by_compare(self, name, link, table):
        os.mkdir("cmp")
        link(os.path.abspath("data.csv"), f"cmp/{name}")
        before = snapshot(".")
        result = call("compare", table, "--target", "y", *COMPARE, "--out", "cmp", "--force")
        assert result.exit_code == 2
        assert "is the data" in words(result.output)
        assert snapshot(".") == before

    @pytest.mark.parametrize("name", ["history.csv", "loss.png"])
    def test_by_fit(self, name, table):
        fit("--out", "run", *NEVER)
        shutil.copy("data.csv", f"run/{name}")
        before = snapshot(".")
        result = call("fit", f"run/{name}", *COLUMNS, *FAST, "--out", "run", "--force")
        assert result.exit_code == 2
        assert "is the data" in words(result.output)
        assert snapshot(".") == before

    @pytest.mark.parametrize("command", ["predict", "report"])
    @pytest.mark.parametrize("name", ["manifest.json", "new.csv", "../new.csv"])
    def test_checkpoints_are_the_runs_own(self, name, command, runs):
        shutil.copytree(runs / "predicting", "run", ignore=ALONE)
        os.symlink("run", "link")
        before = snapshot("run")
        data = [runs / "data.csv"] if command == "predict" else []
        out = Path("link/checkpoints/checkpoint-00000000", name)
        result = call(command, "run", *data, "--out", out, "--force")
        assert result.exit_code == 2
        assert "lies in checkpoints of the run" in words(result.output)
        assert snapshot("run") == before


def test_a_page_that_a_link_leads_to_is_kept(runs):
    shutil.copytree(runs / "predicting", "run", ignore=ALONE)
    assert call("report", "run").exit_code == 0
    shutil.move("run/report.html", "other.html")
    os.symlink("../other.html", "run/report.html")
    before = snapshot(".")
    assert call("report", "run").exit_code == 2
    assert snapshot(".") == before


class TestMoved:
    """The lock follows a folder that is moved, and so nothing more is written under its name."""

    @pytest.mark.parametrize("saved", ["5", "never"])
    @pytest.mark.parametrize("when", ["while reading", "in an update", "at the end"])
    @pytest.mark.parametrize("replaced", [False, True])
    def test_another_run_in_its_place_is_let_alone(self, replaced, when, saved, table, monkeypatch):
        fit("--out", "other", "--seed", "3")
        os.unlink("other/run.json")
        for name in ("model.safetensors", "history.csv", "loss.png", "prediction.png"):
            os.unlink(f"other/{name}")
        shutil.rmtree("other/checkpoints")  # it has just begun
        before, seen = snapshot("other"), []

        def move():
            seen.append(1)
            if len(seen) == (11 if when == "in an update" else 1):
                os.rename("run", "moved")
                if replaced:
                    os.rename("other", "run")

        def moving(real):
            return lambda *given: (move(), real(*given))[1]

        place = {
            "while reading": ("bptt.cli._forecast", "read_series"),
            "in an update": ("bptt.training._step.Stepper", "apply"),
            "at the end": ("bptt.cli._forecast", "made"),
        }[when]
        owner = pydoc.locate(place[0])
        with monkeypatch.context() as patch:
            patch.setattr(owner, place[1], moving(getattr(owner, place[1])))
            result = call(*FIT, "--out", "run", "--checkpoint", saved)
        assert result.exit_code == 1
        assert "while this process wrote to it" in words(result.output)
        assert "moved to" in words(result.output) or not os.path.isdir("/proc/self/fd")
        assert os.path.exists("run") == replaced
        if replaced:
            assert {p.replace("run", "other", 1): v for p, v in snapshot("run").items()} == before
        if saved == "5" and when != "while reading":
            assert call("fit", "--resume", "moved", "--quiet").exit_code == 0
