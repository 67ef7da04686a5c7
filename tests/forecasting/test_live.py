"""Row by row, a forecaster predicts what it predicts of all rows at once; and feeds itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.errors import OptionError

from .cases import drawn, driven, made, positive, quick
from .test_causality import SHAPES


@settings(max_examples=40, deadline=None)
@given(**SHAPES, known=st.integers(1, 39), cell=st.sampled_from(["gru", "lstm"]))
def test_row_by_row_it_is_the_same(
    seed, rows, columns, horizon, seasons, missing, simulate, known, cell
):
    columns = max(columns, int(simulate))
    forecaster = drawn(seed, columns, horizon, seasons if not simulate else (), simulate, cell)
    series = positive(rows, seed, missing, columns)
    expected = forecaster.predict(series)
    known = min(known, rows)
    live = forecaster.live(series.rows(known))
    found = [live.prediction]
    for t in range(known, rows):
        found.append(live.read(series.inputs[t], series.target[t]))
        assert live.prediction == found[-1]
    np.testing.assert_allclose(found, expected[known - 1 :], rtol=1e-5, atol=1e-5)


def test_targets_before_the_first_known_one():
    """They are the same to the network and to the linear model, however they are read."""
    forecaster, series = drawn(horizon=2, seasons=(4,)), positive(30)
    series.target[:9] = np.nan
    live = forecaster.live(series.rows(3))
    found = [
        live.prediction,
        *(live.read(series.inputs[t], series.target[t]) for t in range(3, 30)),
    ]
    np.testing.assert_allclose(found, forecaster.predict(series)[2:], rtol=1e-5)


def fed_back(forecaster, series, known, steps):
    """Predictions of whole series, each with those before it as targets."""
    target, inputs = list(series.target[:known]), series.inputs
    found = []
    for step in range(steps):
        rows = known + step
        given = inputs[:rows] if inputs.shape[1] else np.empty((rows, 0))
        found.append(forecaster.predict(made(target, given))[-1])
        target.append(found[-1])
    return found


@pytest.mark.parametrize("cell", ["gru", "lstm", "leaky"])
@pytest.mark.parametrize("seasons", [(), (5,)])
def test_a_free_run_is_predictions_fed_back(seasons, cell):
    forecaster, series = drawn(columns=1, seasons=seasons, cell=cell), positive(40)
    expected = fed_back(forecaster, series, 28, 12)
    hidden = made(series.target.copy(), series.inputs)
    hidden.target[28:] = np.nan
    np.testing.assert_allclose(forecaster.free_run(hidden, 12), expected, rtol=1e-5)
    alone, past = drawn(columns=0, seasons=seasons, cell=cell), made(series.target)
    expected = fed_back(alone, past, 40, 12)
    np.testing.assert_allclose(alone.free_run(past, 12), expected, rtol=1e-5)


def test_a_free_run_without_inputs_goes_past_the_end():
    y = 10 + np.sin(np.arange(160) / 3)
    found = quick(made(y)).forecaster.free_run(made(y), 12)
    np.testing.assert_allclose(found, 10 + np.sin(np.arange(160, 172) / 3), atol=0.02)


def test_a_free_run_is_refused_where_nothing_is_fed_back():
    simulating = drawn(simulate=True, horizon=0)
    with pytest.raises(OptionError, match="nothing to feed back"):
        simulating.free_run(positive(20), 3)
    with pytest.raises(OptionError, match="needs horizon 1, not 2"):
        drawn(horizon=2).free_run(positive(20), 3)
    for steps in (0, 20):
        with pytest.raises(OptionError):
            drawn().free_run(positive(20), steps)


def test_a_trained_one_is_the_same_row_by_row(fitted):
    series = driven()
    assert fitted.forecaster.gain > 0
    live = fitted.forecaster.live(series.rows(60))
    found = [live.read(series.inputs[t], series.target[t]) for t in range(60, 120)]
    np.testing.assert_allclose(found, fitted.forecaster.predict(series)[60:], rtol=1e-6)
