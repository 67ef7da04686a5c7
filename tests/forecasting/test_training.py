import dataclasses

import numpy as np
import pytest
import torch

from bptt.errors import DataError, OptionError
from bptt.forecasting import Options, Scaling, Split, Tapped, plan, train
from bptt.forecasting._linear import lagged

from .cases import FAST, driven, made


def quick(series, missing="refuse", **given):
    return train(plan(series, Options(**{**FAST, **given}), missing), progress=False)


def test_the_parts_follow_each_other():
    assert Split.of(296, 1, 0.2, 96) == Split(160, 200, 296)
    assert Split.of(309, 1, 0.2, 0.2) == Split(198, 247, 309)
    assert Split.of(100, 0, 10, 30) == Split(60, 70, 100)


def test_scaling_is_of_the_training_part_and_comes_back():
    series = driven()
    scaling = Scaling.fit(series, 50)
    assert scaling.target_mean == pytest.approx(series.target[:50].mean())
    assert scaling.input_deviation == pytest.approx([series.inputs[:50].std()])
    np.testing.assert_allclose(scaling.unscale(scaling.scale(series.target)), series.target)


def test_a_constant_column_is_left_in_its_units():
    assert Scaling.fit(made(np.full(30, 0.1)), 20).target_deviation == 1.0


def test_held_targets_stand_in_for_missing_ones():
    series = made([np.nan, 1.0, np.nan, np.nan, 4.0])
    features = Scaling((), (), 10.0, 2.0).features(series, simulate=False)
    assert features[:, 0].tolist() == [0.0, -4.5, -4.5, -4.5, -3.0]


def test_the_delay_line_is_the_lags_of_the_linear_model():
    torch.manual_seed(0)
    cell = Tapped(torch.nn.GRUCell(2, 3), 2, taps=4)
    features = np.random.default_rng(0).normal(size=(7, 2))
    state = cell.initial_state(1)
    for t, row in enumerate(lagged(features, 4)):
        state = cell(torch.tensor(features[t : t + 1], dtype=torch.float32), state)
        np.testing.assert_allclose(cell.output(state)[0, :8].detach(), row, rtol=1e-6)


def test_the_start_is_the_linear_model():
    series = driven()
    result = quick(series, lr=1e-12, weight_decay=0.0)
    np.testing.assert_allclose(result.metrics[0].mse, result.metrics[2].mse, rtol=1e-3)


def test_no_epoch_worse_on_validation_than_the_start_is_kept():
    history = quick(driven(), lr=3.0, epochs=3, weight_decay=0.0).history
    assert history.best_epoch == 0 or min(history.validations) < history.initial_validation


@pytest.mark.parametrize("simulate", [False, True])
def test_the_test_part_changes_nothing_that_is_learned(simulate):
    series = driven()
    changed = dataclasses.replace(series, target=series.target.copy(), inputs=series.inputs.copy())
    changed.target[96:] = -7.0
    changed.inputs[96:] = 30.0
    one, two = (quick(data, simulate=simulate) for data in (series, changed))
    assert one.plan.scaling == two.plan.scaling
    assert one.history.losses == two.history.losses
    for name, value in one.forecaster.network.state_dict().items():
        assert torch.equal(value, two.forecaster.network.state_dict()[name]), name
    assert [m.name for m in one.metrics] == [m.name for m in two.metrics]


def test_the_validation_part_does_not_change_the_scaling():
    series = driven()
    changed = dataclasses.replace(series, target=series.target.copy())
    changed.target[77:] += 100.0
    assert plan(series, Options()).scaling == plan(changed, Options()).scaling


def test_the_seed_repeats_and_matters(fitted):
    again, other = quick(driven()), quick(driven(), seed=1)
    assert (fitted.prediction == again.prediction).all()
    assert (fitted.prediction != other.prediction).any()


def test_the_test_prediction_is_that_of_the_forecaster(fitted):
    everything = fitted.forecaster.predict(driven())
    rows = slice(fitted.plan.split.fitted - 1, fitted.plan.split.total - 1)
    np.testing.assert_allclose(everything[rows], fitted.prediction, rtol=1e-5)


def test_predictions_see_no_future(fitted):
    series = driven()
    early = fitted.forecaster.predict(series.rows(60))
    np.testing.assert_allclose(early, fitted.forecaster.predict(series)[:60], rtol=1e-6)


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
    ],
    ids=str,
)
def test_every_choice_runs_and_is_near_the_linear_model(given):
    result = quick(driven(), **given)
    assert len(result.prediction) == 24 == result.metrics[0].count
    assert result.metrics[0].mse < 1.3 * result.metrics[2].mse


def test_masked_targets_are_counted_nowhere():
    series = driven()
    series.target[[20, 21, 80, 100, 119]] = np.nan
    result = quick(series, "mask")
    assert [m.count for m in result.metrics] == [22] * 3
    assert np.isfinite(result.prediction).all()
    assert result.history.epochs[0].counted < quick(driven()).history.epochs[0].counted


def test_free_run_is_manual_feedback(fitted):
    series, steps = driven(), 6
    scaling, network = fitted.forecaster.scaling, fitted.forecaster.network
    features = torch.tensor(scaling.features(series, False), dtype=torch.float32)
    state = None
    for row in features[: len(series) - steps]:
        prediction, state = network.step(row[None], state)
    found = [prediction]
    for row in features[len(series) - steps : -1]:
        prediction, state = network.step(torch.cat([row[None, :1], prediction], 1), state)
        found.append(prediction)
    expected = scaling.unscale(torch.cat(found)[:, 0].numpy().astype(np.float64))
    hidden = dataclasses.replace(series, target=series.target.copy())
    hidden.target[-steps:] = np.nan
    np.testing.assert_allclose(fitted.forecaster.free_run(hidden, steps), expected, rtol=1e-5)


def test_free_run_without_inputs_goes_past_the_end():
    y = 10 + np.sin(np.arange(120) / 3)
    forecaster = quick(made(y)).forecaster
    found = forecaster.free_run(made(y), 12)
    np.testing.assert_allclose(found, 10 + np.sin(np.arange(120, 132) / 3), atol=0.05)


def test_free_run_is_refused_where_nothing_is_fed_back(fitted):
    for given, words in (({"simulate": True}, "nothing to feed back"), ({"horizon": 2}, "horizon")):
        with pytest.raises(OptionError, match=words):
            quick(driven(), **given).forecaster.free_run(driven(), 3)
    for steps in (0, 120):
        with pytest.raises(OptionError):
            fitted.forecaster.free_run(driven(), steps)


def test_what_plan_refuses():
    with pytest.raises(OptionError, match="there are none"):
        plan(made(np.arange(50.0)), Options(simulate=True))
    series = driven()
    series.target[96:] = np.nan
    with pytest.raises(DataError, match="test part are missing"):
        plan(series, Options(), "mask")


def test_the_defaults_beat_persistence_on_the_gas_furnace(furnace):
    for simulate in (False, True):
        options = Options(simulate=simulate, test=96, epochs=30)
        network, simplest, linear = train(plan(furnace, options), progress=False).metrics
        assert network.mse < simplest.mse
        assert network.mse <= 1.05 * linear.mse


def test_the_defaults_beat_persistence_on_the_sunspots():
    from bptt.forecasting import sunspots

    network, simplest, _ = train(plan(sunspots(), Options(epochs=30)), progress=False).metrics
    assert network.rmse < 0.65 * simplest.rmse
