"""What is trained, and what is delivered of it."""

import numpy as np
import pytest
import torch

from bptt.errors import DataError, OptionError
from bptt.forecasting import Options, Scaling, Split, plan
from bptt.forecasting.data._split import TEST, VALIDATION
from bptt.forecasting.runs import _train
from bptt.forecasting.runs._train import _better

from .cases import ar2, driven, made, quick, walk


def test_the_parts_follow_each_other():
    for given, expected in (
        ((296, 1, 0.2, 96), (160, 200, 296)),
        ((309, 1, 0.2, 0.2), (198, 247, 309)),
        ((100, 0, 10, 30), (60, 70, 100)),
    ):
        split = Split.of([given[0]], *given[1:])
        assert (split.train, split.fitted, split.total) == expected


def test_scaling_is_of_the_training_part_and_comes_back():
    series = driven()
    scaling = Scaling.fit(series, 50)
    assert scaling.target_mean == pytest.approx(series.target[:50].mean())
    assert scaling.input_deviation == pytest.approx([series.inputs[:50].std()])
    np.testing.assert_allclose(scaling.unscale(scaling.scale(series.target)), series.target)


def test_a_constant_column_is_left_in_its_units():
    assert Scaling.fit(made(np.full(30, 0.1)), 20).target_deviation == 1.0


def test_the_network_starts_at_the_linear_model():
    """Its first loss is that of a network that is nothing: the mean of what it is to learn."""
    result = quick(driven())
    known, split = result.plan, result.plan.split
    linear = known.study.fitted(VALIDATION)
    inputs, target = known.scaling.inputs(known.series), known.series.target
    errors = (target[1:] - linear(inputs, target)[:-1]) / result.forecaster.spread
    validation = errors[split.train - 1 : split.fitted - 1]
    assert result.history.initial_validation == pytest.approx(np.mean(validation**2), rel=1e-5)


def test_no_epoch_worse_on_validation_than_the_start_is_kept():
    result = quick(driven(), lr=3.0, epochs=3, weight_decay=0.0)
    history = result.history
    assert history.best_epoch == 0
    assert min(history.validations) > history.initial_validation
    assert result.forecaster.gain == 0
    assert result.metrics[0].name.startswith("linear ARX")
    assert [m.name for m in result.metrics[1:]] == ["persistence"]  # and no model twice


def test_the_linear_model_that_is_delivered_knows_the_validation_part():
    result = quick(driven(), lr=3.0, epochs=1, weight_decay=0.0)
    study = result.plan.study
    weights = [study.fitted(stop).parts[0].weight for stop in (TEST, VALIDATION)]
    assert (result.forecaster.reader.linear.parts[0].weight == weights[0]).all()
    assert (weights[0] != weights[1]).any()


def test_the_seed_repeats_and_matters(fitted):
    again, other = quick(driven()), quick(driven(), seed=1)
    assert fitted.forecaster.gain > 0
    assert (fitted.prediction == again.prediction).all()
    assert (fitted.prediction != other.prediction).any()


def test_the_test_prediction_is_that_of_the_forecaster(fitted):
    everything = fitted.forecaster.predict(driven())
    rows = slice(fitted.plan.split.fitted - 1, fitted.plan.split.total - 1)
    assert (everything[rows] == fitted.prediction).all()


@pytest.mark.parametrize(
    "given",
    [
        {"horizon": 3},
        {"simulate": True},
        {"simulate": True, "horizon": 2},
        {"cell": "lstm", "layers": 2},
        {"cell": "elman", "method": "full"},
        {"cell": "leaky", "method": "sliding-window", "depth": 5, "epochs": 1},
        {"optimizer": "lbfgs", "method": "full", "loss": "huber"},
        {"optimizer": "sgd", "clip": 1.0, "loss": "mae"},
        {"lags": 3, "season": (6, 9)},
    ],
    ids=str,
)
def test_every_choice_runs_and_is_near_the_best_baseline(given):
    result = quick(driven(), **given)
    assert len(result.prediction) == 24 == result.metrics[0].count
    assert np.isfinite(result.prediction).all()
    assert result.metrics[0].mse < 1.3 * min(m.mse for m in result.metrics[1:])


def test_masked_targets_are_counted_nowhere():
    series, other = driven(), driven()
    for one in (series, other):
        one.target[[0, 20, 21, 80, 100, 119]] = np.nan
    result = quick(series, "mask")
    assert {m.count for m in result.metrics} == {22}
    assert np.isfinite(result.prediction).all()
    assert result.history.epochs[0].counted == quick(driven()).history.epochs[0].counted - 2


def test_most_random_walks_end_in_persistence():
    """Not all: among many forms one may do well on the validation part by chance."""
    names = [quick(made(walk(150, seed)), epochs=1).metrics[0].name for seed in range(6)]
    assert names.count("persistence") > 3


def test_what_nothing_beats_is_the_simplest_model():
    noise = np.random.default_rng(3).normal(size=(200, 2))
    result = quick(made(noise[:, 0], noise[:, 1:]), simulate=True)
    assert result.metrics[0].name == "training mean"
    assert result.forecaster.reader.linear.is_simplest
    np.testing.assert_allclose(result.prediction, noise[:160, 0].mean(), rtol=1e-12)
    result = quick(made(walk(300)))
    assert result.metrics[0].name == "persistence"
    np.testing.assert_allclose(result.prediction, result.plan.series.target[239:299], rtol=1e-12)


@pytest.mark.parametrize(
    ("network", "linear", "name"),
    [
        (True, True, "linear ARX, order 25 + gru"),
        (False, True, "linear ARX, order 25"),
        (True, False, "persistence"),
        (False, False, "persistence"),
    ],
)
def test_what_is_not_better_is_not_delivered(network, linear, name, monkeypatch):
    """The network beside the linear model alone, then both beside the simplest."""
    answers = [linear, network]
    monkeypatch.setattr("bptt.forecasting.runs._train._better", lambda *_: answers.pop())
    result = quick(driven())
    assert result.metrics[0].name == result.forecaster.name == name
    assert (result.forecaster.gain > 0) == name.endswith("gru")


def test_lower_errors_must_be_lower_by_more_than_chance():
    random = np.random.default_rng(0)
    errors = random.normal(size=100)
    assert not _better(errors, errors, 2.0)
    assert _better(0.9 * errors, errors, 2.0)
    assert not _better(errors, 0.9 * errors, 2.0)
    by_luck = np.where(np.arange(100) == np.abs(errors).argmax(), 0.9, 1.0)
    mixed = np.where(np.arange(100) % 2, 1.1, 0.9) * by_luck
    assert not _better(mixed * errors, errors, 0.5)


def test_a_linear_series_ends_in_the_linear_model():
    metrics = quick(made(10 + ar2(200, noise=1.0))).metrics
    assert metrics[0].name.startswith("linear AR")
    assert metrics[0].rmse < 1.2  # the noise is 1
    assert metrics[0].rmse < 0.7 * next(m for m in metrics if m.name == "persistence").rmse


def test_what_plan_refuses():
    with pytest.raises(OptionError, match="there are none"):
        plan(made(np.arange(50.0)), Options(simulate=True))
    with pytest.raises(OptionError, match="season must be at most 16, half of the 32 rows"):
        plan(made(np.arange(50.0)), Options(season=(3, 17)))
    with pytest.raises(OptionError, match="lags must be at most 16, not 17"):
        plan(made(np.arange(50.0)), Options(lags=17))
    series = driven()
    series.target[96:] = np.nan
    with pytest.raises(DataError, match="test part are missing"):
        plan(series, Options(), "mask")


def test_what_options_refuse():
    for season, words in (((1,), "at least 2"), (("x",), "whole number"), (12, "tuple of periods")):
        with pytest.raises(OptionError, match=words):
            Options(season=season)
    with pytest.raises(OptionError, match="reads no past targets"):
        Options(simulate=True, season=(12,))
    assert Options(simulate=True, season=()).season == ()
    assert Options(season=[12, 6, 12]).season == (12, 6)
    with pytest.raises(OptionError, match="lags must be at least 1"):
        Options(lags=0)


def test_the_defaults_beat_persistence_on_the_gas_furnace(furnace):
    for simulate in (False, True):
        metrics = quick(furnace, simulate=simulate, test=96).metrics
        simplest = next(m for m in metrics if m.name in ("persistence", "training mean"))
        assert metrics[0].mse < (0.4 if simulate else 0.3) * simplest.mse


def test_the_defaults_beat_persistence_on_the_sunspots():
    from bptt.forecasting import sunspots

    metrics = quick(sunspots(), epochs=10).metrics
    assert metrics[0].rmse < 0.6 * metrics[1].rmse


def test_a_cell_that_was_tried_is_that_of_more_epochs(monkeypatch):
    monkeypatch.setattr(_train, "TRIAL", 50)  # a fiftieth of the epochs, to save time
    cells = {
        plan(driven(), Options(simulate=True, epochs=epochs, hidden=2)).options.cell
        for epochs in (1, 700)
    }
    assert len(cells) == 1
    assert cells < {"gru", "state-space"}


@pytest.mark.parametrize(("hidden", "threads"), [(4, 1), (512, 2)])
def test_small_work_takes_one_thread(hidden, threads, monkeypatch):
    """And leaves the process as many as it had."""
    seen, real = [], _train.fit

    def fit(*arguments, **options):
        seen.append(torch.get_num_threads())
        return real(*arguments, **options)

    monkeypatch.setattr(_train, "fit", fit)
    torch.set_num_threads(2)  # the fixture of all tests puts it back
    quick(driven(), hidden=hidden, epochs=1)
    assert seen == [threads]
    assert torch.get_num_threads() == 2
