import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bptt import files, text
from bptt.errors import DataError, OptionError
from bptt.files import sums
from bptt.forecasting import diagnose_run, load, save
from bptt.forecasting.runs import _record, _report, _run_folder
from bptt.runs import check_folder, read_run
from bptt.runs._owned import FORMAT, is_record

from .cases import driven, quick

FILES = ["history.csv", "loss.png", "model.safetensors", "prediction.png", "run.json"]


@pytest.fixture
def run(fitted, tmp_path):
    save(fitted, tmp_path / "run")
    return tmp_path / "run"


def test_a_round_trip_predicts_bit_for_bit(fitted, run):
    loaded = load(run)
    series = driven()
    assert (loaded.predict(series) == fitted.forecaster.predict(series)).all()
    assert (loaded.free_run(series, 5) == fitted.forecaster.free_run(series, 5)).all()
    assert loaded.reader.scaling == fitted.forecaster.reader.scaling
    assert loaded.options == fitted.forecaster.options
    assert (loaded.gain, loaded.spread) == (fitted.forecaster.gain, fitted.forecaster.spread)
    assert loaded.name == fitted.forecaster.name


@pytest.mark.parametrize(
    "given",
    [
        {"horizon": 3, "season": (6, 9)},
        {"simulate": True},
        {"cell": "lstm", "layers": 2, "lags": 2},
        {"season": (), "lr": 3.0, "epochs": 1},  # the linear model alone
    ],
    ids=str,
)
def test_every_kind_comes_back_bit_for_bit(given, tmp_path):
    result = quick(driven(), **given)
    save(result, tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert (loaded.predict(driven()) == result.forecaster.predict(driven())).all()
    assert loaded.reader.seasons == result.forecaster.reader.seasons
    assert (loaded.gain > 0) == (result.forecaster.gain > 0)
    parts = zip(loaded.reader.linear.parts, result.forecaster.reader.linear.parts, strict=True)
    for one, other in parts:
        assert one.weight.dtype == other.weight.dtype == np.float64
        assert (one.weight == other.weight).all()


def test_the_formats_of_records_are_known_to_all_runs(fitted, run):
    assert max(_record.FORMAT, text._model.FORMAT) <= FORMAT
    assert json.loads((run / "run.json").read_text())["format"] == _record.FORMAT
    assert is_record(json.loads((run / "run.json").read_text()))


def test_a_run_of_the_format_before_is_replaced_by_force(fitted, run):
    edit(run, format=2)
    with pytest.raises(DataError, match="linear model was another: fit the run again"):
        load(run)
    save(fitted, run, force=True)
    load(run)


def test_what_is_left(fitted, run):
    assert sorted(file.name for file in run.iterdir()) == FILES
    assert [file.name for file in run.parent.iterdir()] == ["run"]
    record = json.loads((run / "run.json").read_text())
    assert record["data"] == {
        "source": "made",
        "series": 1,
        "rows": 120,
        "training": 77,
        "validation": 19,
        "test": 24,
        "test_data": None,
        "errors_on": "test",
    }
    assert record["metrics"][0]["mse"] == fitted.metrics[0].mse
    assert record["versions"]["torch"] == str(torch.__version__)
    assert len((run / "history.csv").read_text().splitlines()) == 1 + len(fitted.history)
    assert (run / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_full_folder_is_kept_unless_forced(fitted, run):
    (run / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="--force"):
        save(fitted, run)
    save(fitted, run, force=True)
    assert (run / "notes.txt").read_text() == "mine"
    load(run)


@pytest.mark.parametrize("force", [False, True])
def test_the_record_takes_its_place_after_all_else_is_on_the_disk(
    force, fitted, tmp_path, monkeypatch
):
    """A disk may keep renames in another order than they were made in."""
    moved, flushed, at_last = set(), set(), []
    replace, flush = os.replace, files.flush

    def replaced(source, place):
        if Path(source).parent.name == ".whole":
            if Path(place).name == "run.json":
                at_last.append((set(moved), set(flushed)))
            moved.update({Path(source).parent, Path(place).parent})
            flushed.clear()
        replace(source, place)

    def flushing(folder):
        flushed.add(folder)
        flush(folder)

    if force:
        save(fitted, tmp_path / "run")
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(files, "flush", flushing)
    save(fitted, tmp_path / "run", force=force)
    run = tmp_path / "run"
    assert at_last == [({run, run / ".whole"}, {run, run / ".whole"})]


def test_what_is_diagnosed_is_one_run(run, monkeypatch):
    """Another may take its place while it is read."""
    read = []

    class Enough(Exception):
        pass

    def reading(folder):
        read.append(folder)
        return read_run(folder)

    def diagnosing(*given, **options):
        raise Enough

    for module in (_report, _run_folder):
        monkeypatch.setattr(module, "read_run", reading)
    monkeypatch.setattr(_report, "diagnose", diagnosing)
    with pytest.raises(Enough):
        diagnose_run(run, driven())
    assert read == [run]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(OptionError, match="is a file, no folder"):
        check_folder(tmp_path / "file" / "run")


def edit(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_part(run, **changes):
    linear = json.loads((run / "run.json").read_text())["linear"]
    linear["parts"][0].update(changes)
    edit(run, linear=linear)


def sign(run):
    """The checksum made right again, as a stranger would."""
    data = (run / "model.safetensors").read_bytes()
    record = json.loads((run / "run.json").read_text())
    record["files"] |= sums({"model.safetensors": data})
    (run / "run.json").write_text(json.dumps(record))


def weights_of(run):
    return load_file(run / "model.safetensors")


def damage_weights(run, name="network.readout.bias", value=None):
    tensors = load_file(run / "model.safetensors")
    del tensors[name]
    if value is not None:
        tensors[name] = value
    save_file(tensors, run / "model.safetensors")
    sign(run)


DAMAGES = {
    "no folder": (lambda run: run.rename(run.parent / "away"), "there is no run"),
    "no record": (lambda run: (run / "run.json").unlink(), "is no run"),
    "half a record": (lambda run: (run / "run.json").write_text('{"format": 3'), "is damaged"),
    "a list": (lambda run: (run / "run.json").write_text("[1]"), "no JSON object"),
    "binary": (lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "newer": (lambda run: edit(run, format=4), "has format 4.*reads up to 3: update"),
    "odd format": (lambda run: edit(run, format="x"), "damaged: format is 'x'"),
    "odd scaling": (lambda run: edit(run, scaling=3), "is damaged"),
    "odd options": (lambda run: edit(run, options={"cell": "gru"}), "options are not"),
    "other inputs": (lambda run: edit(run, inputs=["u", "v"]), "another number of inputs"),
    "another season": (lambda run: edit(run, seasons=[3, 4, 5]), "does not fit run.json"),
    "another order": (lambda run: edit_part(run, order=3), "does not fit run.json"),
    "an order without weights": (lambda run: edit_part(run, order=2**19), "bytes of weights"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "is incomplete"),
    "torn weights": (
        lambda run: (run / "model.safetensors").write_bytes(b"\x10\x00\x00"),
        "model.safetensors is damaged",
    ),
    "a weight absent": (damage_weights, "network.readout.bias is absent in the file"),
    "a weight of another shape": (
        lambda run: damage_weights(run, value=torch.zeros(3)),
        r"readout.bias is \[3\] in the file and \[1\]",
    ),
    "a linear weight that is no number": (
        lambda run: damage_weights(
            run, "linear_0", torch.full_like(weights_of(run)["linear_0"], float("inf"))
        ),
        "linear_0 holds NaN",
    ),
    "a weight that is no number": (
        lambda run: damage_weights(run, value=torch.full((1,), float("nan"))),
        "holds NaN",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_refused(run, name):
    damage, words = DAMAGES[name]
    damage(run)
    with pytest.raises(DataError, match=words):
        load(run)
