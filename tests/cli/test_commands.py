import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bptt

from .cases import FAST, call, words, write_table


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_fit_reports_in_units_beside_the_baselines(table):
    result = call("fit", table, "--inputs", "u", "--target", "y", *FAST, "--out", "run")
    assert result.exit_code == 0, result.output
    text = words(result.output)
    assert "Predicting y 1 step ahead from u, the past of y" in text
    assert "120 rows; 77 to train, 19 to validate, 24 to test" in text
    for name in (" + gru", "persistence", "linear ARX", "RMSE", "units of y"):
        assert name in text
    metrics = json.loads(Path("run/run.json").read_text())["metrics"]
    assert f"{metrics[0]['rmse']:.4g}" in text
    assert sorted(os.listdir("run")) == [
        "checkpoints",
        "history.csv",
        "job.json",
        "loss.png",
        "model.safetensors",
        "prediction.png",
        "run.json",
    ]


def test_fit_without_data_takes_the_sunspots_and_the_first_free_folder():
    for folder in ("bptt-run", "bptt-run-2"):
        result = call("fit", *FAST)
        assert result.exit_code == 0, result.output
        assert "309 rows" in result.output
        assert os.path.exists(f"{folder}/model.safetensors")


def test_a_full_folder_needs_force(table):
    columns = ("fit", table, "--target", "y", *FAST, "--out", "run")
    os.mkdir("run")
    open("run/notes", "w").close()
    refused = call(*columns)
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert os.listdir("run") == ["notes"]
    assert call(*columns, "--force").exit_code == 0
    assert {"notes", "run.json"} <= set(os.listdir("run"))


def test_predict_writes_the_row_that_each_prediction_is_of(runs):
    result = call("predict", runs / "predicting", runs / "data.csv")
    assert result.exit_code == 0, result.output
    found = rows("predictions.csv")
    assert [found[0]["row"], found[-1]["row"], len(found)] == ["2", "121", 120]
    truth = [row["y"] for row in rows(runs / "data.csv")]
    assert float(found[0]["truth"]) == float(truth[1])
    assert found[-1]["truth"] == ""
    assert "where the truth is known" in words(result.output)


def test_predict_a_simulation_without_the_target(runs, tmp_path):
    data = tmp_path / "inputs.csv"
    data.write_text("u\n0.1\n0.2\n-0.3\n")
    result = call("predict", runs / "simulating", data, "--out", "p.csv")
    assert result.exit_code == 0, result.output
    assert [(row["row"], row["truth"]) for row in rows("p.csv")] == [
        ("1", ""),
        ("2", ""),
        ("3", ""),
    ]


def test_free_run_past_the_end_of_the_sunspots(runs):
    result = call("predict", runs / "sunspots", "--free-run", 5, "--out", "p.csv")
    assert result.exit_code == 0, result.output
    found = rows("p.csv")
    assert [row["year"] for row in found] == ["2009", "2010", "2011", "2012", "2013"]
    assert all(row["truth"] == "" for row in found)


def test_free_run_with_inputs_does_not_read_the_last_targets(runs, tmp_path):
    lines = (runs / "data.csv").read_text().splitlines()
    hidden = [re.sub(r",[^,]*,", ",,", line) for line in lines[-4:]]
    data = tmp_path / "hidden.csv"
    data.write_text("\n".join([*lines[:-4], *hidden]) + "\n")
    for name, path in (("one", runs / "data.csv"), ("two", data)):
        result = call("predict", runs / "predicting", path, "--free-run", 4, "--out", f"{name}.csv")
        assert result.exit_code == 0, result.output
    one, two = rows("one.csv"), rows("two.csv")
    assert [row["prediction"] for row in one] == [row["prediction"] for row in two]
    assert [row["row"] for row in one] == ["117", "118", "119", "120"]


def test_missing_targets_can_be_masked(tmp_path):
    data = write_table(tmp_path / "data.csv")
    lines = data.read_text().splitlines()
    lines[31] = re.sub(r",[^,]*,", ",NaN,", lines[31])
    data.write_text("\n".join(lines) + "\n")
    columns = ("fit", data, "--inputs", "u", "--target", "y", *FAST, "--out", "run")
    refused = call(*columns)
    assert refused.exit_code == 2
    assert "row 31, column 'y'" in words(refused.output)
    assert not os.path.exists("run")
    assert call(*columns, "--missing", "mask").exit_code == 0
    assert call("predict", "run", data).exit_code == 0


def test_help_teaches():
    text = words(call("fit", "--help").output)
    for word in ("sunspot", "--simulate", "Examples", "--horizon", "persistence"):
        assert word in text
    assert "--free-run" in call("predict", "--help").output
    assert call("--version").output.startswith("bptt 0.")


def python(*arguments):
    # The package may be installed, or its source be on a path relative to where pytest began.
    source = str(Path(bptt.__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_the_module_runs_as_a_command():
    result = python("-m", "bptt", "fit", "--target", "y")
    assert result.returncode == 2
    assert "name columns of DATA" in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("absent", ["typer", "matplotlib"])
def test_without_the_extra_it_says_how_to_install_it(absent):
    hide = (
        "import importlib.util as u; find = u.find_spec; "
        f"u.find_spec = lambda name, *rest: None if name == {absent!r} else find(name, *rest); "
        "from bptt.cli import main; main()"
    )
    result = python("-c", hide)
    assert result.returncode == 2
    assert "pip install 'bptt[cli]'" in result.stderr
    assert absent in result.stderr


def test_several_starts(table):
    result = call("fit", table, "--inputs", "u", "--target", "y", *FAST, "--starts", "2")
    assert result.exit_code == 0, result.output
    assert re.search(r"Start [01] of 2 was kept, with a validation loss of", words(result.output))
    assert Path("bptt-run/starts.png").exists()
