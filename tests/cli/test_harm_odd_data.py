"""Data and runs of odd kinds: FIFOs, names that are no UTF-8, and very small or large numbers."""

import json
import os
import shutil
from pathlib import Path

from .cases import FAST, call, words, write_table


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
