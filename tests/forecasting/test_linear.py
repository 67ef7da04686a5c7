import numpy as np
import pytest

from bptt.errors import DataError
from bptt.forecasting import least_squares
from bptt.forecasting._linear import lagged
from bptt.forecasting._metrics import baselines

from .cases import driven, made


def ar2(rows, noise, seed=0):
    random = np.random.default_rng(seed)
    y = np.zeros(rows)
    y[:2] = 1.0, 0.5
    for t in range(2, rows):
        y[t] = 0.3 + 1.2 * y[t - 1] - 0.8 * y[t - 2] + noise * random.normal()
    return y


def test_lags_stand_newest_first_and_the_past_stands_still():
    found = lagged(np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]), 2)
    assert found.tolist() == [[1, 10, 1, 10], [2, 20, 1, 10], [3, 30, 2, 20]]


def test_a_known_ar2_is_recovered():
    y = ar2(4000, noise=1.0)
    found = least_squares(y[:, None], y, 1, len(y), max_order=2)
    assert found.order == 2
    np.testing.assert_allclose(found.weight, [1.2, -0.8], atol=0.03)
    assert found.bias == pytest.approx(0.3, abs=0.08)


def test_without_noise_it_is_exact_and_of_the_lowest_order():
    y = ar2(60, noise=0.0)
    found = least_squares(y[:, None], y, 1, 40)
    assert found.order == 2
    np.testing.assert_allclose(found.weight, [1.2, -0.8], atol=1e-8)
    np.testing.assert_allclose(found(y[:, None])[1:-1], y[2:], atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_aic_finds_the_order_or_one_close_above(seed):
    y = ar2(1500, noise=1.0, seed=seed)
    assert 2 <= least_squares(y[:, None], y, 1, len(y)).order <= 5


def test_a_finite_impulse_response_is_recovered():
    u = np.random.default_rng(1).normal(size=(300, 1))
    y = 2.0 + 0.5 * u[:, 0]
    y[3:] += 0.25 * u[:-3, 0]
    found = least_squares(u, y, 0, 200)
    assert found.order == 4
    np.testing.assert_allclose(found.weight, [0.5, 0, 0, 0.25], atol=1e-8)
    assert found.bias == pytest.approx(2.0)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_horizons_are_direct(horizon):
    y = ar2(400, noise=0.5)
    found = least_squares(y[:, None], y, horizon, 300, max_order=4)
    rows = np.arange(found.order - 1, 300 - horizon)
    design = np.column_stack([y[rows - k] for k in range(found.order)] + [np.ones(len(rows))])
    expected = np.linalg.lstsq(design, y[rows + horizon], rcond=None)[0]
    np.testing.assert_allclose([*found.weight, found.bias], expected, atol=1e-9)


def test_only_targets_before_stop_are_seen():
    y = ar2(200, noise=1.0)
    other = y.copy()
    other[150:] = 1e6
    one, two = (least_squares(v[:, None], v, 3, 150) for v in (y, other))
    assert one.order == two.order
    assert (one.weight == two.weight).all()


def test_missing_targets_are_not_counted():
    features = np.random.default_rng(0).normal(size=(80, 1))
    y = 3 * features[:, 0] + 1
    y[10:30] = np.nan
    found = least_squares(features, y, 0, 80)
    assert found.order == 1
    np.testing.assert_allclose([*found.weight, found.bias], [3, 1], atol=1e-10)


def test_the_order_shrinks_with_the_data_and_too_few_rows_are_refused():
    y = ar2(14, noise=1.0)
    assert least_squares(y[:, None], y, 1, 14).order <= 3
    with pytest.raises(DataError, match="too few"):
        least_squares(y[:, None], y, 1, 6)


def test_equal_columns_are_no_trouble():
    y = ar2(100, noise=1.0)
    found = least_squares(np.column_stack([y, y]), y, 1, 100)
    assert np.isfinite(found.weight).all()


def test_the_baselines_of_both_tasks():
    series = driven()
    features = np.column_stack([series.inputs, series.target])
    persistence, arx = baselines(features, series.target, 2, 90, simulate=False)
    assert (persistence.name, arx.name[:10]) == ("persistence", "linear ARX")
    assert (persistence.prediction == series.target).all()
    mean, fir = baselines(series.inputs, series.target, 0, 90, simulate=True)
    assert (mean.name, fir.name[:10]) == ("training mean", "linear FIR")
    assert mean.prediction[0] == pytest.approx(series.target[:90].mean())
    alone = made(series.target)
    assert baselines(alone.target[:, None], alone.target, 1, 90, False)[1].name[:9] == "linear AR"
