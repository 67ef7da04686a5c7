"""What the command line says of the linear model, and lets one choose."""

import json
from pathlib import Path

import numpy as np
import pytest

from bptt.cli._forecast import _seasons

from .cases import FAST, call, words


def table(values):
    Path("data.csv").write_text("\n".join(["y", *map(repr, map(float, values)), ""]))
    return "data.csv"


def fit(values, *more):
    result = call("fit", table(values), *FAST, "--out", "run", *more)
    assert result.exit_code == 0, result.output
    return words(result.output), json.loads(Path("run/run.json").read_text())


def weekly(rows=140):
    random = np.random.default_rng(0)
    return np.tile([5.0, 6, 6, 7, 8, 2, 1], rows // 7) + 0.5 * random.normal(size=rows)


def test_the_seasons_that_are_found_are_told():
    text, record = fit(weekly())
    assert "28 to test; season of 7 steps" in text
    assert record["seasons"] == [7]
    assert record["options"]["season"] is None


@pytest.mark.parametrize(
    ("given", "seasons", "told"),
    [("none", [], None), (" 9, 5 ", [9, 5], "seasons of 9 and 5 steps"), ("6", [6], "of 6 steps")],
)
def test_those_that_are_given_are_taken(given, seasons, told):
    text, record = fit(weekly(), "--season", given)
    assert record["seasons"] == record["options"]["season"] == seasons
    assert ("season" in text) == (told is not None)
    assert told is None or told in text


@pytest.mark.parametrize("option", ["--season", "--lags"])
def test_a_text_has_neither(option):
    Path("book.txt").write_text("the cat sat on the mat.\n" * 60)
    result = call("fit", "book.txt", "--task", "text", option, "7")
    assert result.exit_code == 2
    assert f"{option} does not go with --task text" in words(result.output)


def test_three_seasons_are_a_list():
    assert _seasons((24, 12, 168)) == "; seasons of 24, 12 and 168 steps"


def test_a_run_goes_on_with_the_season_and_lags_it_was_begun_with():
    _, record = fit(weekly(), "--season", "7", "--lags", "3")
    assert record["options"]["lags"] == 3
    result = call("fit", "--resume", "run", "--epochs", "3", "--quiet")
    assert result.exit_code == 0, result.output
    again = json.loads(Path("run/run.json").read_text())
    assert again["linear"] == record["linear"]
    assert again["seasons"] == [7]
    assert again["training"]["epochs"] == 3
    refused = call("fit", "--resume", "run", "--lags", "4")
    assert "leave out --lags" in words(refused.output)


def test_the_model_reads_as_many_steps_as_it_is_told(monkeypatch):
    monkeypatch.setattr("bptt.forecasting.runs._train._better", lambda *_: True)
    _, record = fit(weekly(), "--season", "none", "--lags", "4")
    # Differences to the last value reach one step further.
    assert {part["order"] for part in record["linear"]["parts"]} <= {4, 5}


def echo(rows, lag=16):
    random = np.random.default_rng(0)
    return np.tile(random.normal(size=lag), rows // lag + 1)[:rows] + 0.1 * random.normal(size=rows)


def test_an_order_at_its_limit_is_told(monkeypatch):
    monkeypatch.setattr("bptt.forecasting.runs._train._better", lambda *_: True)
    text, _ = fit(echo(64), "--season", "none")
    assert "The linear model reads 16 steps, the most that were tried; more may serve" in text
    assert "--lags N, up to 20" in text
    text, _ = fit(echo(64), "--season", "none", "--lags", "16", "--force")
    assert "the most that were tried" not in text
    text, _ = fit(echo(200), "--season", "none", "--force")
    assert "the most that were tried" not in text


@pytest.mark.parametrize("simulate", [False, True])
def test_a_run_that_is_the_simplest_model_says_so_first(simulate):
    noise = np.random.default_rng(3).normal(size=(200, 2))
    columns = noise if simulate else noise.cumsum(axis=0)
    Path("data.csv").write_text("u,y\n" + "".join(f"{u},{y}\n" for u, y in columns))
    more = ("--simulate",) if simulate else ()
    result = call("fit", "data.csv", "--inputs", "u", "--target", "y", *FAST, *more)
    text = words(result.output)
    what = "the mean of the target" if simulate else "the last known value"
    said = f"Nothing was better on the validation part than {what}, by more than chance"
    assert said in text
    assert text.index(said) < text.index("Stopped after")
    assert "was kept" not in text


def test_skill_is_required_where_it_is_asked_for():
    walk = np.random.default_rng(3).normal(size=200).cumsum()
    Path("walk.csv").write_text("y\n" + "".join(f"{y}\n" for y in walk))
    plain = call("fit", "walk.csv", *FAST)
    assert plain.exit_code == 0
    required = call("fit", "walk.csv", *FAST, "--require-skill", "--out", "run")
    assert required.exit_code == 3
    assert Path("run/run.json").exists()  # written all the same
    again = call("fit", "--resume", "run", "--epochs", "3", "--require-skill", "--quiet")
    assert again.exit_code == 3
    Path("week.csv").write_text("y\n" + "".join(f"{y}\n" for y in weekly()))
    assert call("fit", "week.csv", *FAST, "--require-skill").exit_code == 0
    refused = call("fit", "week.csv", "--task", "text", "--require-skill")
    assert refused.exit_code == 2
    assert "--require-skill does not go with --task text" in words(refused.output)


def test_a_run_that_is_not_does_not():
    text, _ = fit(weekly())
    assert "Nothing was better" not in text


def test_an_epoch_that_is_not_delivered_was_not_kept(monkeypatch):
    answers = [True, False]  # the linear model beside the simplest; first the network beside it
    monkeypatch.setattr("bptt.forecasting.runs._train._better", lambda *_: answers.pop())
    text, record = fit(weekly(), "--season", "none", "--lags", "1")
    assert record["training"]["best_epoch"] > 0
    assert "the network did not help enough on the validation part to be added" in text
