"""Folders that nothing can harm: what is there stays, whatever is asked for."""

import json
import os
from pathlib import Path

import pytest

from bptt.cli._fit import TASKS
from bptt.runs import begin, begun
from bptt.training import Hold
from bptt.training._step import Stepper

from .cases import COLUMNS, FAST, call, fit, snapshot, words


class TestFolders:
    @pytest.mark.parametrize("name", ["checkpoints/llm.ckpt", "model.safetensors", "loss.png"])
    @pytest.mark.parametrize("beside", [False, True])
    def test_what_no_run_lists_is_never_replaced(self, name, beside, table):
        if beside:
            fit("--out", "project", "--checkpoint", "never")
        path = Path("project", name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("precious")
        if beside and name != "checkpoints/llm.ckpt":  # a record of a run that has no such file
            record = json.loads(Path("project/run.json").read_text())
            del record["files"]["model.safetensors"]
            Path("project/run.json").write_text(json.dumps({**record, "pictures": []}))
        before = snapshot("project")
        plain = call("fit", table, *COLUMNS, *FAST, "--out", "project")
        assert plain.exit_code == 2
        assert "exists and is not empty" in words(plain.output)
        forced = call("fit", table, *COLUMNS, *FAST, "--out", "project", "--force")
        assert forced.exit_code == 2
        assert "which no run there lists as its own" in words(forced.output)
        assert snapshot("project") == before

    def test_an_old_run_is_whole_until_the_new_one_is(self, table, monkeypatch):
        fit("--out", "run", "--starts", "2")
        Path("run/notes").write_text("mine")
        before = snapshot("run")
        real = Stepper.apply
        seen = []

        def apply(*arguments):
            seen.append(1)
            if len(seen) == 9:
                raise MemoryError
            return real(*arguments)

        monkeypatch.setattr(Stepper, "apply", apply)
        broken = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--force", "--hidden", "5")
        assert broken.exit_code == 1
        monkeypatch.setattr(Stepper, "apply", real)
        assert before.items() <= snapshot("run").items()
        assert call("predict", "run", table).exit_code == 0
        resumed = call("fit", "--resume", "run", "--quiet")
        assert resumed.exit_code == 0, resumed.output
        assert json.loads(Path("run/run.json").read_text())["options"]["hidden"] == 5
        names = {"model.safetensors", "history.csv", "loss.png", "prediction.png"}
        assert set(os.listdir("run")) == names | {"run.json", "job.json", "checkpoints", "notes"}
        assert not list(Path("run/checkpoints").glob("start-*"))
        fit("--out", "whole", "--hidden", "5")
        assert (
            snapshot("whole")["whole/model.safetensors"] == snapshot("run")["run/model.safetensors"]
        )

    def test_a_new_run_that_is_not_saved_takes_the_old_checkpoints_along(self, table):
        fit("--out", "run")
        fit("--out", "run", "--force", "--checkpoint", "never")
        assert not {"job.json", "checkpoints"} & set(os.listdir("run"))

    def test_a_run_that_was_abandoned_never_replaces_a_newer_one(self, table, broken):
        fit("--out", "run", "--seed", "1", "--checkpoint", "never")
        mended = broken(9, MemoryError())
        new = ("fit", table, *COLUMNS, *FAST, "--out", "run", "--force")
        assert call(*new, "--seed", "2").exit_code == 1
        mended()
        assert os.path.isdir("run/checkpoints-2")
        fit("--out", "run", "--seed", "3", "--force", "--checkpoint", "never")
        assert not os.path.exists("run/checkpoints-2")
        resumed = call("fit", "--resume", "run", "--quiet")
        assert resumed.exit_code == 2
        assert "holds no run that can go on" in words(resumed.output)
        assert json.loads(Path("run/run.json").read_text())["options"]["seed"] == 3

    @pytest.mark.parametrize("saved", ["30s", "never"])
    def test_a_second_run_is_refused_at_once(self, saved, table):
        os.mkdir("run")
        with Hold(Path("run")):
            result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--checkpoint", saved)
        assert result.exit_code == 2
        assert "being written to by another run" in words(result.output)
        assert os.listdir("run") == []

    def test_a_refused_resume_writes_nothing(self, table):
        fit("--out", "run")
        before = snapshot("run")
        with Hold(Path("run")):
            held = call("fit", "--resume", "run", "--epochs", "9", "--on-nonfinite", "skip")
        assert held.exit_code == 2
        assert snapshot("run") == before
        lines = table.read_text().splitlines()
        lines[40] = lines[39]
        table.write_text("\n".join(lines) + "\n")
        changed = call("fit", "--resume", "run", "--epochs", "9", "--on-nonfinite", "skip")
        assert changed.exit_code == 2
        assert "changed since the checkpoint" in words(changed.output)
        assert snapshot("run") == before

    @pytest.mark.parametrize("forced", [False, True])
    def test_starts_that_end_before_their_first_checkpoint_leave_nothing(
        self, forced, table, monkeypatch
    ):
        """The seed that they would have had blocks no other run."""
        more = ("--force",) if forced else ()
        if forced:
            fit("--out", "run", "--checkpoint", "never")
        before = snapshot(".")

        def full(*given):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", full)
            stopped = call("fit", table, *COLUMNS, *FAST, "--starts", "2", "--out", "run", *more)
        assert "no room for a checkpoint" in words(stopped.output)
        assert snapshot(".") == before
        assert not os.path.exists("run/checkpoints-2")
        fit("--starts", "2", "--seed", "4", "--out", "run", *more)

    @pytest.mark.parametrize("option", [(), ("--resume",)])
    def test_no_jobs_at_all_are_refused_before_anything_is_written(self, option, table):
        fit("--starts", "2", "--out", "there")
        before = snapshot(".")
        new = ("fit", table, *COLUMNS, *FAST, "--starts", "2", "--out", "run")
        result = call(*(("fit", "--resume", "there") if option else new), "--jobs", "0")
        assert result.exit_code == 2
        assert "jobs must be a number of starts at a time" in words(result.output)
        assert snapshot(".") == before
        assert not os.path.exists("run")

    def test_a_fault_before_the_job_is_noted_leaves_no_folder(self, table, monkeypatch):
        fit("--out", "run", "--checkpoint", "never")
        before = set(os.listdir("run"))

        def full(*given):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("bptt.runs._job.note", full)
            new = ("fit", table, *COLUMNS, *FAST, "--out", "run", "--force")
            assert call(*new).exit_code == 1
        assert set(os.listdir("run")) == before

    def test_a_replacement_is_the_newest_whatever_is_there(self, table):
        fit("--out", "run")
        os.mkdir("run/checkpoints-7")
        job = begun(Path("run"), TASKS)
        assert begin(Path("run"), job) == Path("run/checkpoints-8")
        assert begin(Path("run"), job) == Path("run/checkpoints-9")

    def test_what_is_refused_leaves_no_folder(self, table):
        result = call("fit", table, "--target", "x", *FAST, "--out", "a/b/run")
        assert result.exit_code == 2
        assert os.listdir() == ["data.csv"]
