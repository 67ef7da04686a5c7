"""Runs, tables and surroundings of strangers: refused in words, and nothing of the user's shown."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bptt
from bptt import _ending, files
from bptt.comparison import Budget
from bptt.errors import CheckpointError, DataError, OptionError
from bptt.training import _store

from .cases import COLUMNS, FAST, call, fit, snapshot, words


def changed(**changes):
    """The record of a run with other contents, and its parts signed anew."""
    path = Path("run/run.json")
    record = {**json.loads(path.read_text()), **changes}
    for name in record["files"]:
        data = Path("run", name).read_bytes()
        record["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(record))


class TestRecords:
    @pytest.mark.parametrize(
        "change",
        [
            {"training": {"starts": [1]}},
            {"training": {"starts": 5}},
            {"metrics": 5},
            {"metrics": [{"name": "a", "rmse": "x", "mse": 1, "mae": 1}]},
            {"data": 5},
            {"groups": [7]},
        ],
        ids=str,
    )
    def test_a_page_of_a_damaged_record(self, change, table):
        fit("--out", "run")
        changed(**change)
        result = call("report", "run")
        assert result.exit_code == 2, (result.output, result.exception)
        assert "is damaged" in words(result.output)
        assert not Path("run/report.html").exists()

    def test_a_history_that_holds_no_numbers(self, table):
        fit("--out", "run")
        Path("run/history.csv").write_text("epoch,loss\n1,1.e.2\n")
        changed()
        result = call("report", "run")
        assert result.exit_code == 2, result.exception
        assert "is damaged" in words(result.output)

    def test_a_page_shows_pictures_alone(self, table):
        fit("--out", "run")
        Path("secret").write_text("the user's own")
        for name in ("loss.png", "prediction.png"):
            os.remove(f"run/{name}")
        os.symlink(Path("secret").absolute(), "run/loss.png")
        Path("run/prediction.png").write_text("the user's own")
        assert call("report", "run").exit_code == 0
        assert "base64" not in Path("run/report.html").read_text()

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.float64])
    def test_weights_of_another_dtype(self, dtype, table):
        fit("--out", "run")
        weights = load_file("run/model.safetensors")
        name = "network.readout.bias"
        weights[name] = weights[name].to(torch.float32).to(dtype)
        save_file(weights, "run/model.safetensors")
        changed()
        result = call("predict", "run", table)
        assert result.exit_code == 2, result.exception
        assert "is damaged" in words(result.output)

    def test_a_record_that_cannot_be_read_is_not_said_to_be_damaged(self, table, monkeypatch):
        fit("--out", "run")
        read = files.read_bytes

        def failing(path):
            if Path(path).name in ("run.json", "job.json"):
                raise OSError(5, "Input/output error", str(path))
            return read(path)

        monkeypatch.setattr(files, "read_bytes", failing)
        for arguments in (["predict", "run", table], ["fit", "--resume", "run"]):
            result = call(*arguments)
            assert result.exit_code == 1, result.output
            assert "damaged" not in result.output
            assert "Input/output error" in words(result.output)


class TestPlaces:
    def test_a_strangers_file_among_the_checkpoints_stops_nothing(self, table):
        fit("--out", "run")
        Path("run/checkpoints/.DS_Store").write_text("mine")
        result = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
        assert result.exit_code == 0, result.output
        assert Path("run/checkpoints/.DS_Store").read_text() == "mine"
        forced = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--force")
        assert forced.exit_code == 2

    def test_a_diagnosis_is_not_put_where_a_link_leads(self, table):
        fit("--out", "run")
        os.mkdir("else")
        os.symlink(Path("else").absolute(), "run/diagnosis")
        result = call("diagnose", "run", table)
        assert result.exit_code == 2
        assert "is a link" in words(result.output)
        assert os.listdir("else") == []

    def test_a_page_does_not_replace_the_numbers_of_a_diagnosis(self, table):
        fit("--out", "run")
        assert call("diagnose", "run", table, "--parts", "dynamics").exit_code == 0
        before = snapshot("run/diagnosis")
        result = call("report", "run", "--out", "run/diagnosis/diagnosis.json", "--force")
        assert result.exit_code == 2
        assert snapshot("run/diagnosis") == before


class TestRecordsStayTrue:
    def test_fewer_epochs_than_were_trained(self, table):
        fit("--out", "run")
        before = snapshot("run")
        result = call("fit", "--resume", "run", "--epochs", "1", "--quiet")
        assert result.exit_code == 2, result.output
        assert "has trained 2 epochs" in words(result.output)
        assert snapshot("run") == before
        assert call("fit", "--resume", "run", "--epochs", "2", "--quiet").exit_code == 0

    def test_a_picture_that_was_not_drawn_is_nobodys(self, table, monkeypatch):
        def refused(*arguments):
            raise ValueError("it cannot be drawn")

        with monkeypatch.context() as patch:
            patch.setattr("bptt.forecasting.runs._pictures.save", refused)
            fit("--out", "run")
        assert not Path("run/loss.png").exists()
        assert json.loads(Path("run/run.json").read_text())["pictures"] == []
        Path("run/loss.png").write_text("mine")
        result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--force")
        assert result.exit_code == 2
        assert Path("run/loss.png").read_text() == "mine"


class TestStarts:
    """What no start is to blame for stops all: a start that is left out gives another result."""

    def interrupted(self, table, monkeypatch):
        from bptt.training._step import Stepper

        real, seen = Stepper.apply, []

        def apply(*arguments):
            seen.append(1)
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Stepper, "apply", apply)
            result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--starts", "3")
        assert result.exit_code == 143, result.output

    def test_data_that_changed(self, table, monkeypatch):
        self.interrupted(table, monkeypatch)
        lines = Path(table).read_text().splitlines()
        lines[3], lines[4] = lines[4], lines[3]
        Path(table).write_text("\n".join(lines) + "\n")
        before = snapshot("run")
        result = call("fit", "--resume", "run", "--quiet")
        assert result.exit_code == 2, result.output
        assert "changed" in words(result.output)
        assert snapshot("run") == before

    def test_a_full_disk_while_the_job_is_noted(self, table, monkeypatch):
        self.interrupted(table, monkeypatch)
        real = os.replace

        def full(source, place):
            if Path(place).name == "job.json":
                raise OSError(28, "No space left on device", str(place))
            return real(source, place)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            result = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
        assert result.exit_code == 1, result.output
        assert not Path("run/run.json").exists()
        assert call("fit", "--resume", "run", "--epochs", "3", "--quiet").exit_code == 0
        starts = json.loads(Path("run/run.json").read_text())["training"]["starts"]
        assert [start["error"] for start in starts] == [None] * 3


class TestMoments:
    def test_what_fails_when_work_has_begun_has_failed(self, table, monkeypatch):
        """Exit code 1 and the way to go on, whatever the system's reason is."""
        save = _store.write
        seen = []

        def refused(*arguments, **options):
            seen.append(1)
            if len(seen) == 2:
                error = CheckpointError("it cannot be written")
                error.errno = 13
                raise error
            return save(*arguments, **options)

        monkeypatch.setattr(_store, "write", refused)
        result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--checkpoint", "1")
        assert result.exit_code == 1, result.output
        assert "bptt fit --resume run" in words(result.output)

    def test_a_prediction_in_whose_place_something_came(self, table, monkeypatch):
        from bptt.cli import _predict

        fit("--out", "run")
        real = _predict._forecasts

        def slow(*arguments):
            Path("out.csv").write_text("another's")
            return real(*arguments)

        monkeypatch.setattr(_predict, "_forecasts", slow)
        result = call("predict", "run", table, "--out", "out.csv")
        assert result.exit_code == 1, result.output
        assert Path("out.csv").read_text() == "another's"


class TestData:
    def test_rows_that_are_tested_on(self, table):
        fit("--out", "run")
        lines = Path(table).read_text().splitlines()
        lines[-1] = "0.500000,9.000000,x"
        Path(table).write_text("\n".join(lines) + "\n")
        before = snapshot("run")
        result = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
        assert result.exit_code == 2, result.output
        assert "changed" in words(result.output)
        assert snapshot("run") == before
        assert call("fit", "--resume", "run", "--epochs", "3", "--force", "--quiet").exit_code == 0

    def test_times(self):
        rows = [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00,{(7 * i) % 11}" for i in range(200)]
        Path("data.csv").write_text("\n".join(["when,y", *rows]) + "\n")
        columns = ("--time", "when", "--target", "y")
        assert call("fit", "data.csv", *columns, *FAST, "--out", "run").exit_code == 0
        text = Path("data.csv").read_text()
        Path("data.csv").write_text(text.replace("2024-", "1999-"))
        result = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
        assert result.exit_code == 2, result.output

    def test_a_diagnosis_of_other_weights(self, table):
        fit("--out", "run")
        assert call("diagnose", "run", table, "--parts", "dynamics").exit_code == 0
        fit("--out", "other", "--seed", "3")
        for name in ("run.json", "model.safetensors", "history.csv"):
            before = os.stat(f"run/{name}")
            os.replace(f"other/{name}", f"run/{name}")
            os.utime(f"run/{name}", (before.st_atime, before.st_mtime))
        assert call("report", "run").exit_code == 0
        assert "of other weights" in Path("run/report.html").read_text()


class TestSurroundings:
    @pytest.mark.parametrize(
        "environment",
        [
            {"RANK": "1"},
            {"RANK": "1", "WORLD_SIZE": "1"},
            {"RANK": "", "WORLD_SIZE": ""},
            {"RANK": "x", "WORLD_SIZE": "y"},
        ],
        ids=str,
    )
    def test_a_rank_without_torchrun(self, environment, table, monkeypatch):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert _ending.world() == 1
        assert _ending.speaks()
        result = call("fit", "nope.csv", *COLUMNS)
        assert result.exit_code == 2
        assert "nope.csv" in words(result.output)

    def test_processes_that_do_not_find_each_other(self, table):
        environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
        environment.pop("MASTER_ADDR", None)
        found = subprocess.run(
            [sys.executable, "-m", "bptt", "fit", table, *COLUMNS, *FAST],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 1, found.stderr
        assert "Traceback" not in found.stderr
        assert "torchrun" in found.stderr

    @pytest.mark.parametrize("budget", ["1e999", "nan", "infs", "-1", "1e999s"])
    def test_budgets_that_are_none(self, budget):
        with pytest.raises(OptionError, match="a budget is"):
            Budget.of(budget)

    def test_a_number_of_thousands_of_digits(self, table):
        result = call("fit", table, *COLUMNS, *FAST, "--out", "run", "--checkpoint", "1" * 5000)
        assert result.exit_code == 2, result.exception

    def test_what_a_terminal_would_obey_is_shown_as_text(self, table, capsys):
        text = Path(table).read_text().replace("u,y,note", "u,y\x1b[2J,note")
        Path(table).write_text(text)
        result = call("fit", table, "--inputs", "u", "--target", "y\x1b[2J", *FAST)
        assert result.exit_code == 0, result.output
        assert "\x1b[2J" not in result.output
        missing = call("fit", "no\x1b]0;pwned\x07.csv", *COLUMNS)
        assert "\x1b]" not in missing.output


class TestTables:
    def test_times_of_thousands_of_digits(self):
        lines = ["t,y", *(f"{'1' * 5000}{i},{i % 7}" for i in range(60))]
        Path("data.csv").write_text("\n".join(lines) + "\n")
        result = call("fit", "data.csv", "--time", "t", "--target", "y", *FAST)
        assert result.exit_code == 2, result.exception

    def test_groups_that_are_no_text(self, tmp_path):
        import pyarrow
        from pyarrow import parquet

        kinds = {
            "lists": pyarrow.array([[1]] * 40),
            "structs": pyarrow.array([{"a": 1}] * 40),
            "bytes": pyarrow.array([b"\xff"] * 40, pyarrow.binary()),
        }
        for name, groups in kinds.items():
            path = tmp_path / f"{name}.parquet"
            values = pyarrow.array(np.arange(40.0))
            parquet.write_table(pyarrow.table({"x": values, "y": values, "g": groups}), path)
            with pytest.raises(DataError, match="cannot be read as text"):
                bptt.Stream.from_files(path, inputs=["x"], targets=["y"], group="g")

    def test_a_short_line_of_a_table_with_groups(self, tmp_path):
        path = tmp_path / "data.csv"
        rows = [f"{i},{i},a" for i in range(30)]
        rows[9] = "1,a"
        path.write_text("\n".join(["x,y,g", *rows]) + "\n")
        with pytest.raises(DataError, match="row 9: 2 fields, but the header names 3"):
            bptt.Stream.from_files(path, inputs=["x"], targets=["y"], group="g")

    def test_an_open_quote_is_found_in_its_row(self, tmp_path):
        path = tmp_path / "data.csv"
        path.write_text('x,y\n\n1,2\n\n3,4\n5,"6\n7,8\n')
        with pytest.raises(DataError, match="row 2: a quote is not closed"):
            bptt.Stream.from_files(path, inputs=["x"], targets=["y"])
