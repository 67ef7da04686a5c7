"""Runs and files that nothing can harm: what is there stays, whatever fails or is asked for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bptt import files
from bptt.cli._fit import TASKS
from bptt.runs import Made, begin, begun, put, read_run, settle
from bptt.training import Hold
from bptt.training._step import Stepper

from .cases import FAST, call, words, write_table

COLUMNS = ("--inputs", "u", "--target", "y")


def snapshot(folder):
    """Every file below a folder, with its content."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def fit(*arguments):
    result = call("fit", "data.csv", *COLUMNS, *FAST, *arguments)
    assert result.exit_code == 0, result.output
    return result


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


class TestRuns:
    @pytest.mark.parametrize("how", ["death", "error"])
    def test_a_fault_at_any_call_leaves_a_whole_run(self, how, table, monkeypatch):
        """Each of the calls that bring a run into its folder fails once, or is the last one of its
        process; one process is forked for each of them."""
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr("bptt.cli._fit.put", lambda folder, made, saved: kept.append(made) or [])
            patch.setattr("bptt.cli._fit.apart", lambda folder, pictures: [])
            fit("--out", "old")
            put(Path("old"), kept[0])
            fit("--out", "old", "--hidden", "5", "--force")
        os.mkdir("run")
        models = [made.parts["model.safetensors"] for made in kept]
        assert os.path.isdir("old/checkpoints-2")
        ends = set()
        for at in range(1, 99):
            shutil.rmtree("run")
            shutil.copytree("old", "run")
            code = in_fork(partial(faulty, how, at, Path("run"), kept[1]))
            found = read_run("run").parts["model.safetensors"]
            ends.add(models.index(found))
            with Hold(Path("run")):
                settle(Path("run"))
            assert read_run("run").parts["model.safetensors"] == found
            if code == DONE:
                break
            if at % 24 == 0:
                resumed = call("fit", "--resume", "run", "--quiet")
                assert resumed.exit_code == 0, resumed.output
                assert read_run("run").parts["model.safetensors"] == models[1]
                assert not [n for n in os.listdir("run") if n.startswith((".", "checkpoints-"))]
        assert at > 20
        assert code == DONE
        assert ends == {0, 1}

    def test_a_run_that_is_replaced_while_it_is_read_is_read_again(self, table, monkeypatch):
        """All of the replacement comes between the record and the model."""
        fit("--out", "run", "--checkpoint", "never")
        fit("--out", "other", "--seed", "1", "--checkpoint", "never")
        new = read_run("other")
        real, seen = files.read_bytes, []

        def read(path):
            data = real(path)
            if str(path) == "run/run.json" and not seen:
                seen.append(1)
                about = {k: v for k, v in new.record.items() if k not in ("files", "pictures")}
                put(Path("run").absolute(), Made(new.parts, about), saved=False)
            return data

        monkeypatch.setattr(files, "read_bytes", read)
        assert read_run("run").parts == new.parts

    def test_a_model_of_another_run_is_no_run(self, table):
        fit("--out", "run")
        fit("--out", "other", "--seed", "1")
        shutil.copy("other/model.safetensors", "run")
        result = call("predict", "run", table)
        assert result.exit_code == 2
        assert "its checksum is not the one named there" in words(result.output)

    @pytest.mark.parametrize("name", ["price_$_per_kg_$", "a^b_{c}$x$", "\\frac{$a$}{", "y" * 300])
    def test_names_of_any_kind_are_drawn(self, name, tmp_path):
        write_table(tmp_path / "data.csv")
        text = (tmp_path / "data.csv").read_text().replace("u,y,", f"u,{name},")
        (tmp_path / "data.csv").write_text(text)
        result = call("fit", "data.csv", "--target", name, *FAST, "--out", "run")
        assert result.exit_code == 0, result.output
        assert {"loss.png", "prediction.png", "model.safetensors"} <= set(os.listdir("run"))
        assert call("report", "run").exit_code == 0

    @pytest.mark.parametrize("error", [ValueError("no such glyph"), OSError(28, "No space left")])
    def test_a_picture_that_fails_costs_no_model(self, error, table, monkeypatch):
        def fail(*given):
            raise error

        monkeypatch.setattr("bptt.forecasting._pictures._loss", fail)
        with pytest.warns(UserWarning, match=r"loss.png was not drawn"):
            fit("--out", "run")
        assert {"model.safetensors", "run.json", "prediction.png"} <= set(os.listdir("run"))
        assert "loss.png" not in os.listdir("run")
        assert call("predict", "run", table).exit_code == 0

    def test_a_full_disk_at_the_end_is_told_with_the_way_to_go_on(self, table, monkeypatch):
        def full(*given):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("bptt.cli._fit.put", full)
            result = call("fit", table, *COLUMNS, *FAST, "--out", "run")
        assert result.exit_code == 1
        text = words(result.output)
        assert "None" not in text
        assert "bptt fit --resume run" in text
        assert call("fit", "--resume", "run", "--quiet").exit_code == 0


DONE = 7
"""Exit code of a process in which no call was left to fail."""


def in_fork(work):
    """The exit code of a process that does ``work``."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def faulty(how, at, folder, made):
    """Bring a run into its folder; call number ``at`` of those that touch the disk fails, or ends
    the process."""
    seen = [0]

    def fails(real):
        def do(*given, **options):
            seen[0] += 1
            if seen[0] == at and how == "death":
                os._exit(9)
            if seen[0] == at:
                raise OSError(28, "No space left on device")
            return real(*given, **options)

        return do

    for name in ("open", "replace", "rename", "unlink", "rmdir", "fsync", "mkdir", "write"):
        setattr(os, name, fails(getattr(os, name)))
    try:
        put(folder, made)
    except OSError:
        return 1
    return DONE if seen[0] < at else 0


class TestPredictions:
    def test_what_is_read_is_never_replaced_whatever_its_name(self, runs, tmp_path):
        shutil.copytree(runs / "predicting", "run")
        shutil.copy(runs / "data.csv", "data.csv")
        os.link("data.csv", "hard.csv")
        os.symlink("data.csv", "soft.csv")
        os.link("run/model.safetensors", "model.csv")
        before = snapshot(".")
        for out in ("hard.csv", "soft.csv", "model.csv", "run/run.json", "./data.csv"):
            for command in (("predict", "run", "data.csv"), ("report", "run")):
                if command[0] == "report" and out.endswith(("hard.csv", "soft.csv", "data.csv")):
                    continue
                result = call(*command, "--out", out, "--force")
                assert result.exit_code == 2, out
                assert "name another place" in words(result.output)
        assert snapshot(".") == before

    @pytest.mark.parametrize("kind", ["FIFO", "device"])
    @pytest.mark.parametrize("command", ["predict", "report"])
    def test_what_is_no_file_is_refused_at_once(self, command, kind, runs):
        out = "/dev/full" if kind == "device" else "fifo"
        if kind == "FIFO":
            os.mkfifo(out)
        data = [runs / "data.csv"] if command == "predict" else []
        result = call(command, runs / "predicting", *data, "--out", out, "--force")
        assert result.exit_code == 2
        assert f"is a {kind}" in words(result.output)

    def test_what_exists_is_replaced_when_it_is_asked_for(self, runs):
        Path("p.csv").write_text("mine")
        command = ("predict", runs / "predicting", runs / "data.csv", "--out", "p.csv")
        refused = call(*command)
        assert refused.exit_code == 2
        assert "--force" in refused.output
        assert Path("p.csv").read_text() == "mine"
        assert call(*command, "--force").exit_code == 0
        assert Path("p.csv").read_text().startswith("row,truth")

    def test_a_full_disk_costs_nothing(self, runs):
        """A limit on the size of files, which the system answers as it does a full disk."""
        Path("p.csv").write_text("mine")
        code = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512));"
            "from bptt.cli import main; main()"
        )
        command = ["predict", runs / "predicting", runs / "data.csv", "--out", "p.csv", "--force"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "p.csv: File too large" in words(done.stderr)
        assert os.listdir() == ["p.csv"]
        assert Path("p.csv").read_text() == "mine"

    def test_a_page_of_ones_own_is_kept(self, runs):
        shutil.copytree(runs / "predicting", "run")
        Path("run/report.html").write_text("<html>mine</html>")
        assert call("report", "run").exit_code == 2
        assert Path("run/report.html").read_text() == "<html>mine</html>"
        os.unlink("run/report.html")
        for _ in range(2):  # its own it replaces
            assert call("report", "run").exit_code == 0


def test_fifos_as_data_and_runs_are_refused_at_once(runs, tmp_path):
    os.mkfifo("data.csv")
    os.mkfifo("book.txt")
    shutil.copytree(runs / "predicting", "run")
    for name in ("run.json", "model.safetensors", "history.csv"):
        os.unlink(f"run/{name}")
        os.mkfifo(f"run/{name}")
        for command in (
            ("predict", "run", runs / "data.csv"),
            ("report", "run"),
            ("diagnose", "run", runs / "data.csv"),
        ):
            result = call(*command)
            assert result.exit_code == 2
            assert "is a FIFO" in words(result.output)
        os.unlink(f"run/{name}")
        shutil.copy(runs / "predicting" / name, f"run/{name}")
    for command in (
        ("fit", "data.csv", "--out", "x"),
        ("fit", "book.txt", "--task", "text", "--out", "x"),
        ("compare", "data.csv", "--out", "x"),
        ("predict", "run", "data.csv"),
        ("fit", "--out", "book.txt"),
    ):
        result = call(*command)
        assert result.exit_code == 2
        assert "FIFO" in words(result.output)


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b"odd-\xff.csv")
    write_table(tmp_path / name)
    run = os.fsdecode(b"run-\xff")
    result = call("fit", name, "--target", "y", *FAST, "--out", run)
    assert result.exit_code == 0, result.output
    assert json.loads(Path(run, "run.json").read_text())["data"]["source"] == "odd-\\udcff.csv"
    assert call("predict", run, name).exit_code == 0
    assert call("report", run).exit_code == 0
    assert call("fit", "--resume", run, "--epochs", "3", "--quiet").exit_code == 0


def test_errors_of_small_and_large_targets_are_told(tmp_path):
    lines = write_table(tmp_path / "data.csv").read_text().splitlines()
    for power in ("e-300", "e140"):
        rows = [f"{line.split(',')[1]}{power}" for line in lines[1:]]
        (tmp_path / "small.csv").write_text("\n".join(["y", *rows]) + "\n")
        result = call("fit", "small.csv", *FAST, "--out", f"run{power}")
        assert result.exit_code == 0, result.output
        metrics = json.loads(Path(f"run{power}/run.json").read_text())["metrics"]
        assert all(m["rmse"] >= m["mae"] > 0 for m in metrics)
        assert f"{metrics[0]['rmse']:.4g}" in words(result.output)
