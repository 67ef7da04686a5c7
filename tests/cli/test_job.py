"""What a run was begun with, as a stranger may have written it: refused in words."""

import json
import math
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from bptt import forecasting, text
from bptt.errors import BpttError, OptionError

from .cases import call, words

INSIDE = re.compile(
    r"\.\.|supported between|__init__|unexpected keyword|float\(\)|unhashable|NoneType"
)
"""Two points, and what Python says of itself."""

VALUES = [math.nan, math.inf, -1, 0, 1.5, True, "0.1", "x", None, [], [1], {}, 10**400, 1e308]
OPTIONS = [
    (kind, field.name)
    for kind in (forecasting.Options, text._model.Options)
    for field in fields(kind)
]


@pytest.mark.parametrize(("kind", "name"), OPTIONS, ids=lambda one: getattr(one, "__module__", one))
def test_options_of_any_kind_are_refused_in_words(kind, name):
    told = []
    for value in VALUES:
        try:
            kind(**{name: value})
        except BpttError as error:
            told.append(str(error))
    assert told
    assert not list(filter(INSIDE.search, told))


@pytest.mark.parametrize("kind", [forecasting.Options, text._model.Options])
@pytest.mark.parametrize("name", ["lr", "clip", "validation", "test", "hidden", "epochs", "seed"])
@pytest.mark.parametrize("value", [True, "0.1", math.nan])
def test_what_is_no_number_is_refused(value, name, kind):
    with pytest.raises(OptionError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": math.nan}, "lr must be a finite number above 0, not nan. Begin the run again."),
        ({"lr": "0.1"}, "lr must be a finite number above 0, not '0.1'."),
        ({"lr": True}, "lr must be a finite number above 0, not True."),
        ({"hiden": 3}, "there is no option 'hiden'."),
        ({"hidden": "16"}, "hidden must be a whole number, not '16'."),
        ({"cell": ["gru"]}, "cell=['gru'] is unknown."),
        ({"simulate": "no"}, "simulate must be True or False, not 'no'."),
        ({"test": "0.2"}, "test must be a share between 0 and 1 or a whole number of rows"),
        (None, "options are no JSON object."),
    ],
)
def test_a_damaged_job_is_told_in_words(options, message, runs):
    shutil.copytree(runs / "predicting", "run")
    path = Path("run/job.json")
    job = json.loads(path.read_text())
    job["options"] = None if options is None else {**job["options"], **options}
    path.write_text(json.dumps(job))
    result = call("fit", "--resume", "run")
    assert result.exit_code == 2
    assert message in words(result.output)
    assert not INSIDE.search(words(result.output))
