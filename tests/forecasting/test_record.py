"""Every field of ``run.json``, absent or of another kind, is told and never taken."""

import json
import math

import pytest

from bptt.errors import DataError
from bptt.forecasting import load, save

WORDS = [None, True, 3, [], {}]
NUMBERS = [None, True, "1", [], {}, math.nan, math.inf]
POSITIVE = [*NUMBERS, 0, -1.0]
WHOLE = [None, True, "1", [], 0, -1, 1.5, math.nan, 2**20]

# path: what cannot stand there
FIELDS = {
    ("format",): [None, "x", 0, -1, 1.5, [], {}],
    ("options",): [None, 3, "x", [], {}],
    ("options", "cell"): [None, 3, "x", []],
    ("options", "hidden"): [*WHOLE, 2**19],
    ("options", "layers"): WHOLE,
    ("options", "horizon"): ["1", -1, 0, 1.5],
    ("options", "simulate"): [None, "x", 3, True],
    ("options", "lags"): ["1", 0, 1.5, []],
    ("options", "season"): ["1", 3, [1], ["x"], [[]], {"a": 1}],
    ("options", "seed"): [None, "1", -1, 1.5],
    ("inputs",): [None, 3, "u", {}, [3], [], ["u", "v"]],
    ("target",): WORDS,
    ("missing",): [*WORDS, "perhaps"],
    ("time",): [True, 3, [], {}],
    ("group",): [True, 3, [], {}],
    ("trained",): [None, 3, "x", [], {"": 3}, {"": []}, {"": [1, 2]}, {"": ["1", "x"]}],
    ("units",): [*WORDS, "x"],
    ("units", "kind"): [*WORDS, "other"],
    ("units", "of"): [
        None,
        3,
        "x",
        [],
        {"": 3},
        {"": [1]},
        {"": [1, 0]},
        {"": [1, -1]},
        {"": ["x", 1]},
    ],
    ("scaling",): [*WORDS, "x"],
    ("scaling", "input_mean"): [None, 3, "x", [], [None], [True], [math.nan], [1.0, 2.0]],
    ("scaling", "input_deviation"): [None, 3, "x", [], [0.0], [-1.0], [math.inf], [1.0, 2.0]],
    ("scaling", "target_mean"): NUMBERS,
    ("scaling", "target_deviation"): POSITIVE,
    ("seasons",): [None, 3, "x", {}, [1], [2.5], [True], ["6"], [2**20], [6, 7, 8, 9]],
    ("gain",): [*NUMBERS, -1.0],
    ("spread",): POSITIVE,
    ("linear",): [*WORDS, "x"],
    ("linear", "name"): WORDS,
    ("linear", "parts"): [None, 3, "x", [], {}, [None], [3], [{}], "all of them twice"],
    ("linear", "reach"): NUMBERS,
    ("linear", "low"): NUMBERS,
    ("linear", "high"): NUMBERS,
    ("linear", "parts", 0, "transform"): [*WORDS, "sine"],
    ("linear", "parts", 0, "center"): NUMBERS,
    ("linear", "parts", 0, "scale"): POSITIVE,
    ("linear", "parts", 0, "bias"): NUMBERS,
    ("linear", "parts", 0, "share"): NUMBERS,
    ("linear", "parts", 0, "order"): WHOLE,
    ("linear", "parts", 0, "first"): [None, "x", -1, 1.5, True],
    ("linear", "parts", 0, "last"): ["x", -1, 1.5, True],
}


@pytest.fixture
def run(fitted, tmp_path):
    save(fitted, tmp_path / "run")
    return tmp_path / "run"


def written(run, content):
    (run / "run.json").write_text(json.dumps(content))


def test_every_field_is_here(run):
    content = json.loads((run / "run.json").read_text())
    about = {"data", "training", "metrics", "versions", "files", "pictures", "saved", "groups"}
    assert {path[0] for path in FIELDS} == content.keys() - about
    for part in ("scaling", "linear"):
        assert {path[1] for path in FIELDS if path[0] == part and path[1:]} == content[part].keys()
    kinds = {path[3] for path in FIELDS if path[3:]}
    assert kinds == content["linear"]["parts"][0].keys()


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_field_of_another_kind_is_told(path, run):
    text = (run / "run.json").read_text()
    for value in FIELDS[path]:
        content = json.loads(text)
        place = content
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = place[path[-1]] * 4 if value == "all of them twice" else value
        written(run, content)
        with pytest.raises(DataError, match=r"is damaged|does not fit|of another run"):
            load(run)
    del place[path[-1]]
    written(run, content)
    with pytest.raises(DataError, match="is damaged"):
        load(run)
    (run / "run.json").write_text(text)
    load(run)
