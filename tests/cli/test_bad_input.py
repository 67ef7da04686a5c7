"""Bad input at the command line: exit code 2, a message that names the mend, nothing written."""

import os

import pytest
import torch

from .cases import FAST, call, words

COLUMNS = ("--inputs", "u", "--target", "y")


def good(rows=60):
    return "u,y\n" + "".join(f"{i % 7},{(3 * i) % 11}\n" for i in range(rows))


def with_cell(row, column, value):
    lines = good().splitlines()
    cells = lines[row].split(",")
    cells[column] = value
    lines[row] = ",".join(cells)
    return "\n".join(lines) + "\n"


# name: (content of data.csv or None, arguments after DATA, words of the message)
FIT = {
    "no such file": (None, COLUMNS, "there is no file data.csv"),
    "an empty file": ("", COLUMNS, "data.csv is empty"),
    "a header alone": ("u,y\n", COLUMNS, "has a header but no rows"),
    "one row": ("u,y\n1,2\n", COLUMNS, "the data have 1 row"),
    "few rows": (good(8), COLUMNS, "too few"),
    "no header": ("1,2\n3,4\n", COLUMNS, "its first row must name the columns"),
    "a ragged row": (good() + "1,2,3\n", COLUMNS, "row 61: 3 fields, but the header names 2"),
    "an input misspelled": (good(), ("--inputs", "U", "--target", "y"), "no column 'U'"),
    "a target misspelled": (good(), ("--target", "yy"), "Did you mean 'y'?"),
    "no target": (good(), ("--inputs", "u"), "say which one to forecast with --target"),
    "the target as input": (good(), ("--inputs", "u,y", "--target", "y"), "both an input and"),
    "an input twice": (good(), ("--inputs", "u,u", "--target", "y"), "named twice"),
    "a column twice": (good().replace("u,y", "y,y", 1), ("--target", "y"), "2 columns 'y'"),
    "text in an input": (
        with_cell(5, 0, "high"),
        COLUMNS,
        "row 5, column 'u': 'high' is no number",
    ),
    "text in the target": (with_cell(9, 1, "?"), COLUMNS, "row 9, column 'y': '?' is no number"),
    "a decimal comma": (with_cell(9, 1, '"1,5"'), COLUMNS, "with a decimal point"),
    "NaN in an input": (
        with_cell(7, 0, "nan"),
        COLUMNS,
        "row 7, column 'u': the number is missing",
    ),
    "NaN in a masked input": (
        with_cell(7, 0, ""),
        (*COLUMNS, "--missing", "mask"),
        "fill it or remove the row",
    ),
    "NaN in the target": (with_cell(7, 1, "NaN"), COLUMNS, "--missing mask"),
    "infinity in the target": (with_cell(7, 1, "inf"), COLUMNS, "the number is infinite"),
    "infinity in an input": (with_cell(7, 0, "-inf"), COLUMNS, "the number is infinite"),
    "all targets masked": (
        "u,y\n" + "1,\n" * 60,
        (*COLUMNS, "--missing", "mask"),
        "are missing",
    ),
    "numbers too large": (with_cell(7, 0, "1e308").replace("u,y", "u,y", 1), COLUMNS, "too large"),
    "no share": (good(), (*COLUMNS, "--test", "1.5"), "share between 0 and 1"),
    "nothing to validate": (good(), (*COLUMNS, "--validation", "0"), "share between 0 and 1"),
    "everything to test": (good(), (*COLUMNS, "--test", "60"), "too few"),
    "validation that is no number": (good(), (*COLUMNS, "--validation", "nan"), "share between"),
    "horizon 0 in prediction": (good(), (*COLUMNS, "--horizon", "0"), "--simulate"),
    "a negative horizon": (good(), (*COLUMNS, "--horizon", "-1"), "at least 0"),
    "a horizon past the data": (good(), (*COLUMNS, "--horizon", "99"), "too few"),
    "simulation without inputs": (good(), ("--target", "y", "--simulate"), "there are none"),
    "a window too deep": (
        good(),
        (*COLUMNS, "--method", "sliding-window", "--depth", "50"),
        "give a depth below",
    ),
    "a window and horizon 2": (
        good(),
        (*COLUMNS, "--method", "sliding-window", "--depth", "5", "--horizon", "2"),
        "horizon 1",
    ),
    "depth 0": (good(), (*COLUMNS, "--depth", "0"), "depth must be at least 1"),
    "stride 0": (good(), (*COLUMNS, "--stride", "0"), "stride must be at least 1"),
    "too many units": (good(), (*COLUMNS, "--hidden", "9" * 30), "hidden must be at most 1048576"),
    "too many layers": (good(), (*COLUMNS, "--layers", "2000"), "layers must be at most 1024"),
    "too many starts": (good(), (*COLUMNS, "--starts", "9" * 12), "starts must be at most 1000000"),
    "no units": (good(), (*COLUMNS, "--hidden", "0"), "hidden must be at least 1"),
    "no epochs": (good(), (*COLUMNS, "--epochs", "0"), "epochs must be at least 1"),
    "a negative rate": (good(), (*COLUMNS, "--lr", "-1"), "lr must be a finite number above 0"),
    "a rate that is no number": (good(), (*COLUMNS, "--lr", "nan"), "lr must be a finite"),
    "negative decay": (good(), (*COLUMNS, "--weight-decay", "-1"), "weight_decay must be"),
    "a negative seed": (good(), (*COLUMNS, "--seed", "-1"), "seed must be at least 0"),
    "no lags": (good(), (*COLUMNS, "--lags", "0"), "lags must be at least 1"),
    "lags that are no number": (good(), (*COLUMNS, "--lags", "many"), "--lags"),
    "too many lags": (good(), (*COLUMNS, "--lags", "20"), "lags must be at most"),
    "a season of one step": (good(), (*COLUMNS, "--season", "7,1"), "season must be at least 2"),
    "a season that is no number": (
        good(),
        (*COLUMNS, "--season", "week"),
        "--season takes whole numbers of steps, separated by commas, or none.",
    ),
    "half a step": (good(), (*COLUMNS, "--season", "2.5"), "takes whole numbers"),
    "an endless season": (good(), (*COLUMNS, "--season", "9" * 5000), "takes whole numbers"),
    "no season, nor none": (good(), (*COLUMNS, "--season", ","), "takes whole numbers"),
    "too long a season": (good(), (*COLUMNS, "--season", "7,20"), "at most 19, half of the 38"),
    "a season of a simulation": (
        good(),
        (*COLUMNS, "--simulate", "--season", "7"),
        "leave season out",
    ),
    "a number out of proportion": (with_cell(45, 0, "1e40"), COLUMNS, "row 45, column 'u': 1e+40"),
    "no starts": (good(), (*COLUMNS, "--starts", "0"), "starts must be at least 1"),
    "jobs without starts": (good(), (*COLUMNS, "--jobs", "2"), "give --starts as well"),
    "clip with lbfgs": (
        good(),
        (*COLUMNS, "--optimizer", "lbfgs", "--clip", "1"),
        "does not go with lbfgs",
    ),
    "an unknown cell": (good(), (*COLUMNS, "--cell", "gruu"), "is not one of"),
    "an unknown method": (good(), (*COLUMNS, "--method", "half"), "is not one of"),
    "an unknown option": (good(), (*COLUMNS, "--hiden", "3"), "--hidden"),
    "text for a number": (good(), (*COLUMNS, "--hidden", "many"), "--hidden"),
}


@pytest.mark.parametrize("name", FIT)
def test_fit_refuses(name, tmp_path):
    content, arguments, message = FIT[name]
    if content is not None:
        (tmp_path / "data.csv").write_text(content)
    # The quick options come first, so that those of the case win.
    result = call("fit", "data.csv", *FAST, *arguments, "--out", "run")
    check(result, message)
    assert set(os.listdir()) <= {"data.csv"}


def check(result, message):
    assert result.exit_code == 2, result.output
    text = words(result.output)
    assert message in text, text
    assert "Traceback" not in text
    assert len(result.output.splitlines()) < 24  # one screen


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data.xlsx", b"PK", "neither CSV"),
        ("data.parquet", b"PAR1 and no more", "no whole Parquet file"),
        ("data.csv", b"u,y\n1,\xff\xfe\n", "UTF-8"),
    ],
)
def test_fit_refuses_other_files(file, content, message, tmp_path):
    (tmp_path / file).write_bytes(content)
    check(call("fit", file, *COLUMNS, "--out", "run"), message)
    assert os.listdir() == [file]


def test_fit_refuses_a_run_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    check(call("fit", "--out", "run"), "run is a file")


def test_fit_refuses_columns_without_data():
    check(call("fit", "--inputs", "u"), "name columns of DATA")
    assert os.listdir() == []


PREDICT = {
    "no such run": (("nowhere",), "there is no run nowhere"),
    "no data": (("predicting",), "give the DATA"),
    "no such data": (("predicting", "none.csv"), "there is no file none.csv"),
    "no target column": (("predicting", "inputs.csv"), "no column 'y'"),
    "no input column": (("simulating", "targets.csv"), "no column 'u'"),
    "a simulation run freely": (("simulating", "data.csv", "--free-run", "3"), "feed back"),
    "no steps": (("predicting", "data.csv", "--free-run", "0"), "at least 1"),
    "too many steps": (("predicting", "data.csv", "--free-run", "120"), "at most 119"),
    "a folder to write to": (("predicting", "data.csv", "--out", "."), "is a folder"),
    "an absent folder": (("predicting", "data.csv", "--out", "no/p.csv"), "there is no folder"),
    "the data to write to": (("predicting", "data.csv", "--out", "data.csv"), "is the data"),
}


@pytest.mark.parametrize("name", PREDICT)
def test_predict_refuses(name, runs, monkeypatch, tmp_path):
    arguments, message = PREDICT[name]
    for part in ("predicting", "simulating", "data.csv"):
        os.symlink(runs / part, tmp_path / part)
    (tmp_path / "inputs.csv").write_text("u\n1\n2\n")
    (tmp_path / "targets.csv").write_text("y\n1\n2\n")
    before = set(os.listdir())
    check(call("predict", *arguments), message)
    assert set(os.listdir()) == before


@pytest.mark.parametrize("starts", [1, 2])
def test_a_loss_that_explodes_is_told_and_the_last_checkpoint_kept(starts, tmp_path):
    (tmp_path / "data.csv").write_text(good())
    wild = ("--optimizer", "sgd", "--lr", "1e38", "--starts", starts)
    result = call("fit", "data.csv", *FAST, *COLUMNS, *wild, "--out", "run")
    assert result.exit_code == 1, result.output
    assert "A smaller learning rate" in words(result.output)
    assert "bptt fit --resume run" in words(result.output)
    assert sorted(os.listdir("run")) == ["checkpoints", "job.json"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_what_does_not_fit_into_memory_is_told(error, table, monkeypatch):
    def build(*arguments):
        raise error

    monkeypatch.setattr("bptt.forecasting.runs._train.build", build)
    result = call("fit", table, *COLUMNS, *FAST, "--out", "run")
    assert result.exit_code == 1
    assert "there is not enough memory for this" in words(result.output)


def test_other_errors_are_not_taken_for_it(table, monkeypatch):
    monkeypatch.setattr(
        "bptt.forecasting.runs._train.build", lambda *_: torch.zeros(2) @ torch.zeros(3)
    )
    result = call("fit", table, *COLUMNS, *FAST, "--out", "run")
    assert isinstance(result.exception, RuntimeError)
