"""``bptt fit --task text``, and ``bptt predict`` of such a run."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import bptt
from bptt import text

from .cases import FAST, call, words

FEW = ("--task", "text", "--epochs", "3", "--hidden", "24", "--depth", "20", "--lanes", "4")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text that repeats itself, ``book.txt`` beside it."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "book.txt").write_text("the cat sat on the mat.\n" * 300)
    result = call("fit", folder / "book.txt", *FEW, "--quiet", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    shown = words(result.output)
    assert "Predicting the next character" in shown
    assert "bits per character" in shown
    assert "frequencies of pairs" in shown
    return folder / "run"


def test_a_run_holds_no_pickle_and_says_what_it_learnt(run: Path) -> None:
    kept = {"model.safetensors", "run.json", "history.csv", "job.json", "checkpoints"}
    assert {file.name for file in run.iterdir()} == kept
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert content["vocabulary"] == "".join(sorted(set("the cat sat on the mat.\n")))
    bits = content["bits"]
    assert bits["network (gru)"] < bits["frequencies of pairs"] < bits["frequencies of symbols"]
    assert content["data"]["training"] + content["data"]["validation"] + content["data"][
        "test"
    ] == (24 * 300)


def test_counted_frequencies_are_those_of_the_text(run: Path) -> None:
    whole = "the cat sat on the mat.\n" * 300
    learnt = whole[: json.loads((run / "run.json").read_text())["data"]["training"]]
    tested = whole[-360:]
    symbols = sorted(set(whole))
    # Every target of the training part is counted, and every symbol once more.
    count = {s: learnt[1:].count(s) + 1 for s in symbols}
    total = sum(count.values())
    expected = -sum(math.log2(count[s] / total) for s in tested) / len(tested)
    found = json.loads((run / "run.json").read_text())["bits"]["frequencies of symbols"]
    assert found == pytest.approx(expected, rel=5e-3)


def test_the_bits_of_a_text_are_those_of_its_characters_one_by_one(run: Path) -> None:
    model = text.load(run)
    given = "the mat sat on the cat.\n"
    (run.parent / "other.txt").write_text(given)
    state, total = None, 0.0
    indices = model.vocabulary.encode(given)
    for now, following in itertools.pairwise(indices):
        scores, state = model.network.step(now[None], state)
        total -= float(torch.log_softmax(scores[0], 0)[following]) / math.log(2)
    stream = model.stream(run.parent / "other.txt")
    assert model.bits(stream) == pytest.approx(total / (len(given) - 1), rel=1e-4)
    result = call("predict", run, run.parent / "other.txt")
    assert f"{total / (len(given) - 1):.3f}" in result.output
    assert "24 characters" in words(result.output)


def test_a_sample_begins_as_it_is_told_and_repeats_with_its_seed(run: Path) -> None:
    one = call("predict", run, "--begin", "the m", "--sample", "40", "--seed", "3").output
    two = call("predict", run, "--begin", "the m", "--sample", "40", "--seed", "3").output
    three = call("predict", run, "--begin", "the m", "--sample", "40", "--seed", "4").output
    assert one == two != three
    assert one.startswith("the m")
    assert len(one) == 5 + 40 + 1
    cold = text.load(run).sample("the c", 60, temperature=0.01)
    assert cold.startswith("the cat sat on the ")
    assert len(text.load(run).sample("", 50)) == 50


def test_a_sample_keeps_nothing_for_gradients(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = bptt.Network.step

    def step(*given: Any) -> Any:
        seen.append(torch.is_grad_enabled())
        return real(*given)

    monkeypatch.setattr(bptt.Network, "step", step)
    text.load(run).sample("the", 5)
    assert seen
    assert not any(seen)


def test_bytes_are_learnt_too(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("äöü ßé\n" * 200)
    data = tmp_path / "b.txt"
    result = call("fit", data, *FEW, "--unit", "byte", "--quiet", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert "bits per byte" in result.output
    assert json.loads((tmp_path / "r" / "run.json").read_text())["vocabulary"] is None
    assert len(text.load(tmp_path / "r").sample("ä", 10).encode()) >= 10


def test_what_does_not_go_together_is_refused(run: Path, table: Path, tmp_path: Path) -> None:
    book = run.parent / "book.txt"
    (tmp_path / "short.txt").write_text("abcde")
    (tmp_path / "strange.txt").write_text("the ☃")
    for arguments, message in [
        (("fit", book, *FEW, "--simulate"), "--simulate does not go with --task text"),
        (("fit", "--task", "text"), "learns a text file: bptt fit book.txt"),
        (("fit", book, *FEW, "--test", "0.9"), "test must be a share of the text"),
        (("fit", tmp_path / "short.txt", *FEW), "short.txt has 5 characters, too few"),
        (("fit", tmp_path / "absent.txt", *FEW), "absent.txt"),
        (("fit", book, *FEW, "--out", run), "exists and is not empty"),
        (("fit", table, "--target", "y", "--unit", "byte"), "--unit goes with --task text alone"),
        (("predict", run, "--free-run", "3"), "--free-run forecasts a table"),
        (("predict", run, "--temperature", "0"), "temperature must be a finite number above 0"),
        (("predict", run, "--begin", "☃"), "'☃' is not in the vocabulary"),
        (("predict", run, tmp_path / "strange.txt"), "strange.txt, character 4"),
    ]:
        result = call(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        # Without spaces: a long path is broken at the end of a line.
        assert message.replace(" ", "") in words(result.output).replace(" ", ""), result.output


def test_a_table_has_no_samples(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "forecasts"
    assert call("fit", table, "--target", "y", *FAST, "--out", out).exit_code == 0
    result = call("predict", out, table, "--sample", "3")
    assert result.exit_code == 2
    assert "--sample is of a text" in words(result.output)
    with pytest.raises(bptt.DataError, match="is no run of a text"):
        text.load(out)


def test_a_damaged_run_is_refused(run: Path, tmp_path: Path) -> None:
    def damaged(**changes: object) -> Path:
        folder = tmp_path / "broken"
        folder.mkdir(exist_ok=True)
        content = json.loads((run / "run.json").read_text()) | changes
        del content["files"]  # as a stranger who knows of no checksums
        (folder / "run.json").write_text(json.dumps(content))
        (folder / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
        return folder

    for changes, message in [
        ({"format": 99}, "reads up to 1: update"),
        ({"options": {}}, "options are not those"),
        ({"options": {**json.loads((run / "run.json").read_text())["options"], "x": 1}}, "not th"),
        ({"vocabulary": "abc"}, "does not fit run.json"),
        ({"vocabulary": 5}, "vocabulary is no text"),
    ]:
        with pytest.raises(bptt.DataError, match=message):
            text.load(damaged(**changes))


@pytest.mark.parametrize("command", ["diagnose", "report"])
def test_what_is_of_tables_alone_is_refused_in_words(command: str, run: Path) -> None:
    result = call(command, run)
    assert result.exit_code == 2
    assert f"bptt {command} is of runs that forecast a table" in words(result.output)
