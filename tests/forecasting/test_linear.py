"""The regressions: exact on what is linear, and what the textbook says they are."""

import itertools

import numpy as np
import pytest

from bptt.errors import DataError, OptionError
from bptt.forecasting import Linear, linear_model
from bptt.forecasting.data._numbers import hold
from bptt.forecasting.data._split import TEST
from bptt.forecasting.linear import _ridge
from bptt.forecasting.linear._forms import FORGETTING, Data, Family, Form, in_levels
from bptt.forecasting.linear._judging import Judged, Judging
from bptt.forecasting.linear._linear import Part
from bptt.forecasting.linear._ridge import Sums, ridge
from bptt.forecasting.linear._study import Study, _ratios, _weighed

from .cases import ar2, at, made, quick

NONE = np.empty((300, 0))
SMALL = 1e-14
"""A ridge that is no more than rounding."""


def inputs(rows, columns=1, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def arx(u, noise=0.0):
    y = np.zeros(len(u))
    for t in range(2, len(u)):
        y[t] = 0.5 * y[t - 1] - 0.3 * y[t - 2] + 0.7 * u[t - 1, 0] + 2
    return y


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(_ridge, "RIDGES", np.array([SMALL]))


def solved(u, y, horizon, stop, form, simulate=False):
    """Weights [order, columns] and the constant, in the units of ``y``."""
    data = Data(u, y, horizon, at(stop // 2, stop, len(y), horizon), simulate)
    weights, biases = Family(data, "none", form.differences).solved(form, TEST)
    levels = in_levels(form, weights[:, 0], data)
    center, scale = data.scales["none"]
    factor = np.full(levels.shape[1], scale)
    if not simulate:
        factor[-1] = 1.0
    in_units = levels * factor
    own = 0.0 if simulate else in_units[:, -1].sum()
    return in_units, biases[0] * scale + center * (1 - own)


def test_an_ar_is_recovered_exactly_where_there_is_no_noise(exact):
    y = ar2(60, noise=0.0)
    weights, bias = solved(NONE[:60], y, 1, 40, Form("none", (), True, 2))
    np.testing.assert_allclose(weights[:, 0], [1.2, -0.8], atol=1e-9)
    assert bias == pytest.approx(0.3, abs=1e-9)


def test_an_arx_is_recovered_exactly(exact):
    u = inputs(200)
    weights, bias = solved(u, arx(u), 1, 150, Form("none", (), True, 2))
    # The input at t is a step before the target at t + 1.
    np.testing.assert_allclose(weights, [[0.7, 0.5], [0, -0.3]], atol=1e-9)
    assert bias == pytest.approx(2.0, abs=1e-9)


def test_a_finite_impulse_response_is_recovered_exactly(exact):
    u = inputs(300)
    y = 2.0 + 0.5 * u[:, 0]
    y[3:] += 0.25 * u[:-3, 0]
    weights, bias = solved(u, y, 0, 200, Form("none", (), True, 5), simulate=True)
    np.testing.assert_allclose(weights[:, 0], [0.5, 0, 0, 0.25, 0], atol=1e-9)
    assert bias == pytest.approx(2.0, abs=1e-9)


def test_the_model_of_all_forms_predicts_exactly_where_there_is_no_noise(exact):
    u = inputs(300)
    y = arx(u)
    found = linear_model(u, y, 1, 240, 180)
    assert found.name.startswith("linear ARX")
    rows = np.arange(found.order, 299)
    np.testing.assert_allclose(found(u, y)[rows], y[rows + 1], atol=1e-9)


def test_a_known_ar2_is_found_in_noise():
    y = ar2(4000, noise=1.0)
    weights, bias = solved(np.empty((4000, 0)), y, 1, 4000, Form("none", (), True, 2))
    np.testing.assert_allclose(weights[:, 0], [1.2, -0.8], atol=0.03)
    assert bias == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("rows", [5, 40])  # fewer than columns, and more
def test_the_ridge_is_the_solution_of_its_normal_equations(rows):
    random = np.random.default_rng(0)
    design, goal = 3 + random.normal(size=(rows, 7)) * np.arange(1, 8), random.normal(size=rows)
    weights, biases = ridge(Sums.of(design, goal))
    deviation = design.std(axis=0)
    scaled = (design - design.mean(axis=0)) / deviation
    for i, least in enumerate(_ridge.RIDGES):
        normal = scaled.T @ scaled + rows * least * np.eye(7)
        expected = np.linalg.solve(normal, scaled.T @ (goal - goal.mean())) / deviation
        np.testing.assert_allclose(weights[:, i], expected, rtol=1e-6, atol=1e-9)
        assert biases[i] == pytest.approx(goal.mean() - design.mean(axis=0) @ expected, rel=1e-6)


def test_a_tiny_ridge_is_least_squares(exact):
    random = np.random.default_rng(0)
    design, goal = 3 + random.normal(size=(50, 6)), random.normal(size=50)
    weights, biases = ridge(Sums.of(design, goal))
    expected = np.linalg.lstsq(np.column_stack([design, np.ones(50)]), goal, rcond=None)[0]
    np.testing.assert_allclose([*weights[:, 0], biases[0]], expected, atol=1e-10)


def test_sums_of_two_stretches_are_those_of_both():
    random = np.random.default_rng(0)
    design, goal = random.normal(size=(30, 4)), random.normal(size=30)
    whole = ridge(Sums.of(design, goal))
    both = ridge(Sums.of(design[:11], goal[:11]) + Sums.of(design[11:], goal[11:]))
    first = ridge(Sums.of(design, goal).first(3))
    for one, other in zip(whole, both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    for one, other in zip(first, ridge(Sums.of(design[:, :3], goal)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def undone(features, y, weights, differences, horizon):
    """Predictions [rows] of y(t + horizon) by regressions on differences: literally."""
    moved = features.copy()
    found = np.zeros(len(y))
    for step in differences:
        moved[step:] = moved[step:] - moved[:-step]
        moved[:step] = np.nan
    for k in range(len(weights)):
        found[k:] += moved[: len(y) - k] @ weights[k]
        found[:k] = np.nan
    own = [step * int(np.ceil(max(horizon, 1) / step)) for step in differences]
    # (1 − B^a)(1 − B^b) y = z, solved for y: signs of all products but the one of ones.
    for t in range(len(y)):
        for count in range(1, len(own) + 1):
            for chosen in itertools.combinations(own, count):
                place = t + horizon - sum(chosen)
                found[t] += -((-1) ** count) * y[place] if place >= 0 else np.nan
    return found


@pytest.mark.parametrize("lags", [0, 1, 3])
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("horizon", [1, 2, 7, 12])
@pytest.mark.parametrize("differences", [(), (1,), (6,), (1, 6), (7, 3)])
def test_a_model_of_differences_is_told_in_levels(differences, horizon, read, lags):
    if lags == 0 and not differences:
        lags = 2
    u = inputs(80, columns=2)
    y = inputs(80, seed=5)[:, 0].cumsum()
    data = Data(u, y, horizon, at(30, 60, len(y), horizon), simulate=False)
    columns = 3 if read else 1
    weights = np.random.default_rng(2).normal(size=(lags, columns))
    form = Form("none", differences, read, lags)
    levels = in_levels(form, weights.ravel(), data)
    found = Linear("", (Part("none", 0.0, 1.0, levels, 0.0),), False, 1e9, 0.0, 1.0)(u, y)
    features = np.column_stack([u, y]) if read else y[:, None]
    expected = undone(features, y, weights, differences, horizon)
    known = np.isfinite(expected)
    assert known.sum() > 50
    np.testing.assert_allclose(found[known], expected[known], atol=1e-9)


@pytest.mark.parametrize(("differences", "horizon"), [((), 3), ((1,), 2), ((1, 6), 8)])
def test_what_is_fitted_is_least_squares_on_differences(differences, horizon, exact):
    """Of what the target at t + horizon is beside that which its differences set out from."""
    y, stop = ar2(150, noise=1.0), 120
    form = Form("none", differences, True, 3)
    weights, bias = solved(NONE[:150], y, horizon, stop, form)
    moved = y.copy()
    for step in differences:
        moved[step:] = moved[step:] - moved[:-step]
    base = undone(y[:, None], y, np.zeros((0, 1)), differences, horizon)
    rows = np.arange(form.order - 1, stop - horizon)
    rows = rows[np.isfinite(base[rows])]
    design = np.column_stack([*(moved[rows - k] for k in range(3)), np.ones(len(rows))])
    expected = np.linalg.lstsq(design, y[rows + horizon] - base[rows], rcond=None)[0]
    own = [weights[:, 0] @ y[t - np.arange(len(weights))] + bias for t in rows[20:]]
    np.testing.assert_allclose(own, (base[rows] + design @ expected)[20:], atol=1e-8)


def test_missing_targets_are_not_counted(exact):
    u = inputs(80)
    y = 3 * u[:, 0] + 1
    y[10:30] = np.nan
    weights, bias = solved(u, y, 0, 80, Form("none", (), True, 1), simulate=True)
    np.testing.assert_allclose([weights[0, 0], bias], [3, 1], atol=1e-10)


def test_the_last_known_target_stands_in_for_missing_ones():
    y = np.array([np.nan, 1.0, np.nan, np.nan, 4.0])
    assert hold(y, 7.0).tolist() == [7.0, 1.0, 1.0, 1.0, 4.0]


@pytest.mark.parametrize("simulate", [False, True])
def test_a_prediction_stays_near_what_was_seen(simulate):
    part = Part("none", 0.0, 1.0, np.array([[1000.0] if simulate else [1000.0, 0.0]]), 0.0)
    model = Linear("", (part,), simulate, 2.0, -1.0, 1.0)
    u, y = np.array([[5.0], [-5.0]]), np.array([0.5, 0.25])
    expected = [3.0, -3.0] if simulate else [2.5, -1.75]
    assert model(u, y).tolist() == expected


@pytest.mark.parametrize("lags", [1, 3])
def test_as_many_lags_as_are_asked_for(lags):
    y = ar2(200, noise=1.0)
    study = Study.of(NONE[:200], y, 1, at(120, 160, 200), lags=lags)
    assert {form.lags for form, _, _ in study.chosen} == {lags}
    assert study.widest == lags


def test_more_lags_than_rows_bear_are_refused():
    y = ar2(60, noise=1.0)
    most = Study.of(NONE[:60], y, 1, at(40, 50, 60)).most
    linear_model(NONE[:60], y, 1, 50, 40, lags=most)
    with pytest.raises(OptionError, match=f"lags must be at most {most}, not {most + 1}"):
        linear_model(NONE[:60], y, 1, 50, 40, lags=most + 1)


def test_it_is_told_where_the_most_lags_that_were_tried_count_most():
    random = np.random.default_rng(0)
    y = np.tile(random.normal(size=16), 30) + 0.1 * random.normal(size=480)
    few, many = (Study.of(np.empty((480, 0)), y, 1, at(n - 40, n, 480)) for n in (90, 480))
    assert (few.widest, few.at_limit) == (24, False)
    short = Study.of(np.empty((480, 0)), y, 1, at(40, 60, 480))
    assert (short.widest, short.at_limit, short.most) == (16, True, 20)
    assert (many.widest, many.at_limit) == (256, False)


def test_too_few_rows_are_refused():
    y = ar2(9, noise=1.0)
    for rows, given in ((4, {}), (8, {}), (9, {"lags": 1})):
        with pytest.raises(DataError, match="training rows with a known target are too few"):
            quick(made(y[:rows]), **given)
    assert quick(made(y)).metrics[0].count == 2


def test_what_is_judged_is_fitted_on_the_rows_before(exact):
    """A regression on two lags, by least squares, refitted before each of six stretches."""
    y, split = ar2(150, noise=1.0), at(90, 120, 150)
    found = Study.of(NONE[:150], y, 1, split, lags=2)
    found.chosen = [(Form("none", (), True, 2), 0, 1.0)]
    rolled = found.rolled()
    ends = [45, 60, 75, 90, 100, 110, 120]
    assert np.isnan(rolled[:45]).all()
    assert np.isnan(rolled[120:]).all()
    for start, stop in itertools.pairwise(ends):
        rows = np.arange(2, start)
        design = np.column_stack([y[rows - 1], y[rows - 2], np.ones(len(rows))])
        weights = np.linalg.lstsq(design, y[rows], rcond=None)[0]
        rows = np.arange(start, stop)
        expected = np.column_stack([y[rows - 1], y[rows - 2], np.ones(len(rows))]) @ weights
        np.testing.assert_allclose(rolled[rows], expected, atol=1e-9)


def test_the_mean_of_forms_is_judged_as_it_is_weighted():
    y = ar2(150, noise=1.0)
    found = Study.of(NONE[:150], y, 1, at(90, 120, 150))
    chosen, whole = found.chosen, found.rolled()
    assert len(chosen) > 1
    parts = []
    for form, place, weight in chosen:
        found.chosen = [(form, place, 1.0)]
        parts.append(weight * found.rolled())
    known = np.isfinite(parts).all(axis=0)
    assert known[90:120].all()
    np.testing.assert_allclose(whole[known], np.sum(parts, axis=0)[known], rtol=1e-9)


def test_a_form_that_was_judged_on_fewer_rows_is_compared_on_those():
    """Two rows of ten are easy. A form that was judged on those alone is no better for it."""
    y = ar2(150, noise=1.0)
    data = Study.of(NONE[:150], y, 1, at(90, 120, 150)).data
    family = Family(data, "none", ())
    (one,) = Judging(family, True, [2]).judged([2])
    _, rows, found = zip(*Judging(family, True, [2]).predicted([2]), strict=True)
    ahead, errors = np.concatenate(rows), np.concatenate(found) - y[np.concatenate(rows)][:, None]
    easy = np.argsort(np.abs(errors[:, 0]))[:15]
    counts = one.counts[easy]
    squares = counts @ (errors[easy] / data.spread) ** 2 / counts.sum()
    other = Judged(Form("none", (), True, 3), squares, ahead[easy], counts)
    weights = {form.lags: 0.0 for form in (one.form, other.form)}
    place = int(one.error.argmin())
    both = [one, other]
    for form, ridge_place, weight in _weighed(both, _ratios(data, both)):
        if ridge_place == place:
            weights[form.lags] += weight
    assert weights[3] == pytest.approx(weights[2], rel=1e-6)


def test_few_and_large_errors_suffice_where_they_are_always_lower():
    """A wave whose jumps are known in advance: six of them in the validation part."""
    random = np.random.default_rng(0)
    wave = 10.0 * ((np.arange(400) // 20) % 2) + 0.2 * random.normal(size=400)
    found = quick(made(wave))
    assert "linear" in found.metrics[0].name
    assert found.metrics[0].rmse < 0.3


@pytest.mark.parametrize("differences", [(1,), (12,), (1, 12)])
def test_smoothing_is_its_recursion(differences):
    """The errors of (1 − B^d)(1 − B^s) y = (1 − θB^d)(1 − θ'B^s) e, one after another."""
    y = 100 + inputs(90, seed=5)[:, 0].cumsum()
    lags = 90 - sum(differences)
    data = Data(NONE[:90], y, 1, at(30, 60, 90), simulate=False)
    form = Form("none", differences, True, lags, smooth=True)
    weights, biases = Family(data, "none", differences).solved(form, TEST)
    ways = list(itertools.product(FORGETTING, repeat=len(differences)))
    assert weights.shape == (lags, len(ways))
    for way, kept in enumerate(ways):
        levels = in_levels(form, weights[:, way], data)
        part = Part("none", 0.0, 1.0, levels, biases[way])
        found = Linear("", (part,), False, 1e9, 0.0, 1.0)(NONE[:90], y)[-1]
        z, first = y.copy(), sum(differences)
        for step in differences:
            z[step:] = z[step:] - z[:-step]
        terms: dict[int, float] = {0: 1.0}
        for step, share in zip(differences, kept, strict=True):
            terms = {
                lag: terms.get(lag, 0.0) - share * terms.get(lag - step, 0.0)
                for lag in {*terms, *(lag + step for lag in terms)}
            }
        e = np.zeros(91)  # none before the first difference
        for t in range(first, 90):
            e[t] = z[t] - sum(c * e[t - k] for k, c in terms.items() if k and t >= k)
        ahead = sum(c * e[90 - k] for k, c in terms.items() if k)
        base = undone(y[:, None], y, np.zeros((0, 1)), differences, 1)[-1]
        assert found == pytest.approx(base + ahead, rel=1e-9)


def test_smoothing_serves_where_the_level_wanders_beneath_noise():
    """An ARIMA(0, 1, 1) whose best prediction has an error of deviation 1."""
    e = np.random.default_rng(0).normal(size=200)
    y = np.cumsum(np.r_[0.0, e[1:] - 0.7 * e[:-1]])
    study = Study.of(NONE[:200], y, 1, at(128, 160, 200))
    assert any(form.smooth for form, _, _ in study.chosen)
    found = study.fitted(TEST)(NONE[:200], y)[159:199] - y[160:]
    assert np.sqrt(np.mean(found**2)) < 1.1 * e[160:].std()


def test_the_first_rows_of_a_series_are_predicted_by_what_reads_no_more_than_they_have():
    t = np.arange(600)
    y = 50 + 10 * np.sin(2 * np.pi * t / 24) + np.random.default_rng(0).normal(size=600)
    study = Study.of(np.empty((600, 0)), y, 1, at(400, 500, 600))
    model = study.fitted(TEST)
    assert model.order > 100
    whole = [part for part in model.parts if part.last is None]
    starts = [part for part in model.parts if part.last is not None]
    assert {part.first for part in whole} == {model.order - 1}
    assert [part.first for part in starts] == [0, *(part.last for part in starts[:-1])]
    assert starts[-1].last == model.order - 1
    for part in starts[1:]:
        assert len(part.weight) == part.first + 1
    # Another series begins at another place of the wave, and is short.
    short = y[530:560]
    errors = model(NONE[:30], short)[:-1] - short[1:]
    assert np.sqrt(np.mean(errors**2)) < 0.6 * np.diff(short).std()
    # What comes before a series that has begun is never read.
    both = model(np.empty((60, 0)), np.r_[y[:30], short], np.r_[np.arange(30), np.arange(30)])
    np.testing.assert_allclose(both[30:], model(NONE[:30], short), rtol=1e-12)


@pytest.mark.parametrize("horizon", [1, 5, 24, 40])
def test_one_model_predicts_after_each_row_whatever_the_horizon(horizon):
    """Over a horizon beyond the season a form of a low order may reach back further."""
    y = 50 + np.random.default_rng(1).normal(size=400).cumsum()
    data = Study.of(np.empty((400, 0)), y, horizon, at(260, 330, 400, horizon)).data
    kinds = [(0, (12,)), (0, (1, 12)), (16, ()), (30, ()), (60, ())]
    forms = [Form("none", differences, False, lags) for lags, differences in kinds]
    ordered = sorted(forms[:-1], key=lambda form: form.order)
    study = Study(data, [(forms[-1], 0, 1.0)], [(form, 0) for form in ordered], 60, 60)
    parts = study.fitted(TEST).parts
    age = np.arange(100)
    told = np.zeros(100, int)
    for part in parts:
        told[part.rows(age)] += 1
    assert (told == 1).all(), [(part.first, part.last) for part in parts]
