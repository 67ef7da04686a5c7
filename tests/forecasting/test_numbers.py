"""Series that do not move, columns that say the same, numbers of any size."""

import numpy as np
import pytest

from bptt.errors import DataError
from bptt.forecasting import Options, linear_model, plan, read_table, select, train

from .cases import ar2, driven, made, quick, walk


@pytest.mark.parametrize("value", [0.0, 0.1, -3e15, 1e-300])
@pytest.mark.parametrize("simulate", [False, True])
def test_a_constant_target_is_predicted_exactly(simulate, value):
    series = made(np.full(60, value), driven(60).inputs)
    result = quick(series, simulate=simulate, epochs=1)
    np.testing.assert_allclose(result.prediction, value, rtol=1e-12)


def constant(inputs):
    return np.column_stack([inputs, np.full(len(inputs), 7.0)])


def twice(inputs):
    return np.column_stack([inputs, inputs])


def calendar(inputs):
    """Of which each is a linear function of the others, a year before."""
    day = 2 * np.pi * np.arange(len(inputs)) / 12
    return np.column_stack([inputs, np.sin(day), np.cos(day), np.sin(day) + np.cos(day)])


@pytest.mark.parametrize("more", [constant, twice, calendar])
@pytest.mark.parametrize("simulate", [False, True])
def test_columns_that_say_nothing_new_do_no_harm(simulate, more):
    u = np.random.default_rng(0).normal(size=(200, 1))
    y = np.zeros(200)
    y[2:] = u[1:-1, 0] + 0.5 * u[:-2, 0]
    y += 0.1 * np.random.default_rng(1).normal(size=200)
    horizon = 0 if simulate else 1
    errors = []
    for inputs in (u, more(u)):
        model = linear_model(inputs, y, horizon, 160, 120, simulate)
        assert all(np.isfinite(part.weight).all() for part in model.parts)
        assert max(np.abs(part.weight).max() for part in model.parts) < 10
        rows = np.arange(160 - horizon, 200 - horizon)
        errors.append(np.mean((model(inputs, y)[rows] - y[rows + horizon]) ** 2) ** 0.5)
    assert errors[0] < 0.15  # the noise is 0.1
    assert errors[1] < 1.1 * errors[0]


def test_a_column_that_moves_only_after_the_training_part_counts_for_nothing():
    """Nobody knows what it does."""
    u = np.random.default_rng(0).normal(size=200)
    step = np.where(np.arange(200) < 170, 0.0, 5.0)
    y = ar2(200, noise=1.0)
    model = linear_model(np.column_stack([u, step]), y, 1, 160, 120)
    for part in model.parts:
        assert (part.weight[:, 1] == 0).all()
        assert (part.weight[:, 0] != 0).any()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-9, 1e15, 1e140])
@pytest.mark.parametrize("inputs", [False, True])
def test_the_units_of_the_target_do_not_matter(inputs, scale):
    series = driven()
    given = series.inputs if inputs else None
    one, other = (quick(made(series.target * by, given)) for by in (1.0, scale))
    assert one.metrics[0].name == other.metrics[0].name
    # Below 1e-307 numbers have fewer digits.
    np.testing.assert_allclose(other.prediction / scale, one.prediction, rtol=1e-6)
    assert other.metrics[0].rmse / scale == pytest.approx(one.metrics[0].rmse, rel=1e-5)


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 1000.0), (-3.0, 2.0), (1e-6, -5.0)])
@pytest.mark.parametrize("horizon", [1, 4])
def test_other_units_of_the_target_are_other_units_of_predictions(horizon, factor, shift):
    """The root and the logarithm, for which 0 is what it is, are not tried here."""
    y, none = ar2(200, noise=1.0), np.empty((200, 0))
    one = linear_model(none, y, horizon, 160, 120, seasons=(5,))
    other = linear_model(none, shift + factor * y, horizon, 160, 120, seasons=(5,))
    for model in (one, other):
        assert {part.transform for part in model.parts} == {"none"}
    expected = shift + factor * one(none, y)
    np.testing.assert_allclose(
        other(none, shift + factor * y), expected, atol=1e-7 * abs(factor), rtol=1e-9
    )


@pytest.mark.parametrize("column", ["u0", "y"])
@pytest.mark.parametrize("row", [85, 110])
def test_a_number_out_of_all_proportion_is_refused_with_its_place(row, column):
    series = made(driven().target, driven().inputs)
    for value in (1e40, -1e200):
        (series.inputs[:, 0] if column == "u0" else series.target)[row] = value
        with pytest.raises(DataError, match=f"row {row + 1}, column '{column}': .* too large"):
            plan(series, Options())


def test_an_outlier_does_not_end_in_an_error():
    series = made(walk(120))
    series.target[40] = 1e6
    assert np.isfinite(quick(series).prediction).all()


def test_a_zero_in_new_data_does_not_take_the_logarithms_along():
    random = np.random.default_rng(1)
    swing = np.zeros(400)
    for t in range(1, 400):
        swing[t] = 0.9 * swing[t - 1] + 0.3 * random.normal()
    y = 100 * np.exp(swing)
    model = linear_model(np.empty((400, 0)), y, 1, 250, 200)
    assert any(part.transform == "log" for part in model.parts)
    broken, almost = y.copy(), y.copy()
    broken[260], almost[260] = 0.0, y[:250].min() / 2
    one, two = (model(np.empty((400, 0)), values) for values in (broken, almost))
    np.testing.assert_allclose(one[262:], two[262:], rtol=0.2)


def test_few_known_targets_are_fitted_on_or_refused_before_training():
    for known in (1, 3, 4, 8):
        y = ar2(200, noise=1.0)
        y[known:128] = np.nan
        try:
            planned = plan(made(y), Options(epochs=1, cell="gru"), "mask")
        except DataError:
            continue
        train(planned, progress=False)


def test_a_table_of_dates_alone_has_nothing_to_forecast(tmp_path):
    (tmp_path / "o.csv").write_text("day\n2024-01-01\n2024-01-02\n")
    with pytest.raises(DataError, match="no column beside those of time and group"):
        select(read_table(tmp_path / "o.csv"))


def test_no_group_is_none(tmp_path):
    (tmp_path / "o.csv").write_text("y\n1\n2\n")
    assert select(read_table(tmp_path / "o.csv"), group="").group_name is None
