"""Forecasters trained from several starts: what is kept, told and drawn."""

import json

import pytest

from bptt.forecasting import Options, load, plan, save, train

from .cases import FAST, driven


@pytest.fixture(scope="module")
def result():
    return train(plan(driven(), Options(**FAST, starts=3)), progress=False)


def test_the_best_start_is_kept(result):
    history = result.history
    losses = [start.loss for start in history.starts]
    assert len({start.losses for start in history.starts}) == 3
    assert losses[history.start] == min(losses)
    assert min([history.initial_validation, *history.validations]) == min(losses)


def test_a_start_begins_at_the_linear_model(result):
    """The correction is put to zero again, whatever the layers in it draw."""
    single = train(plan(driven(), Options(**FAST)), progress=False)
    assert result.history.initial_validation == single.history.initial_validation


def test_the_run_folder_tells_and_draws_how_they_ended(result, tmp_path):
    files = save(result, tmp_path / "run")
    assert (tmp_path / "run" / "starts.png") in files
    training = json.loads((tmp_path / "run" / "run.json").read_text())["training"]
    assert training["start"] == result.history.start
    assert [start["loss"] for start in training["starts"]] == [
        start.loss for start in result.history.starts
    ]
    assert load(tmp_path / "run").options.starts == 3
    single = train(plan(driven(), Options(**FAST)), progress=False)
    save(single, tmp_path / "run", force=True)
    assert not (tmp_path / "run" / "starts.png").exists()  # it would be of another run
