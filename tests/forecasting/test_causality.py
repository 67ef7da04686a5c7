"""No prediction reads what comes after it, and no fit what it is judged or tested on."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.forecasting import Options, plan
from bptt.forecasting.data._split import TEST, VALIDATION
from bptt.forecasting.linear._forms import Data, Family, Form
from bptt.forecasting.linear._study import Study

from .cases import ar2, at, drawn, driven, made, positive, quick

SHAPES = {
    "seed": st.integers(0, 10**6),
    "rows": st.integers(2, 40),
    "columns": st.integers(0, 3),
    "horizon": st.integers(1, 9),
    "seasons": st.lists(st.integers(2, 12), max_size=2, unique=True),
    "missing": st.sampled_from([0.0, 0.4]),
    "simulate": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**SHAPES, share=st.floats(0.05, 0.95))
def test_nothing_before_a_row_depends_on_it(
    seed, rows, columns, horizon, seasons, missing, simulate, share
):
    columns = max(columns, int(simulate))
    forecaster = drawn(seed, columns, horizon, seasons if not simulate else (), simulate)
    series = positive(rows, seed, missing, columns)
    cut = max(1, int(share * rows))
    other = made(series.target.copy(), series.inputs.copy())
    other.target[cut:] = np.random.default_rng(seed).uniform(-1e3, 1e3, rows - cut)
    other.inputs[cut:] += 1e3
    reader = forecaster.reader
    for read in (reader.linear, reader):
        one, two = (read(reader.scaling.inputs(s), s.target)[:cut] for s in (series, other))
        assert (one == two).all()
    assert (forecaster.predict(series)[:cut] == forecaster.predict(other)[:cut]).all()
    early = forecaster.predict(series.rows(cut))
    np.testing.assert_allclose(early, forecaster.predict(series)[:cut], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("simulate", [False, True])
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_test_part_changes_nothing_that_is_learned(horizon, simulate):
    series = driven()
    changed = made(series.target.copy(), series.inputs.copy())
    changed.target[96:] = 57.0 + np.arange(24)
    changed.inputs[96:] = 30.0
    one, two = (quick(data, simulate=simulate, horizon=horizon) for data in (series, changed))
    assert one.plan.scaling == two.plan.scaling
    assert one.plan.seasons == two.plan.seasons
    assert one.plan.study.chosen == two.plan.study.chosen
    assert one.history.losses == two.history.losses
    assert one.history.validations == two.history.validations
    state = two.forecaster.network.state_dict()
    for name, value in one.forecaster.network.state_dict().items():
        assert value.equal(state[name]), name
    assert one.forecaster.gain == two.forecaster.gain
    for a, b in zip(
        one.forecaster.reader.linear.parts, two.forecaster.reader.linear.parts, strict=True
    ):
        assert (a.weight == b.weight).all()
        assert dataclasses.replace(a, weight=0) == dataclasses.replace(b, weight=0)
    assert [m.name for m in one.metrics] == [m.name for m in two.metrics]
    assert all(a.mse != b.mse for a, b in zip(one.metrics, two.metrics, strict=True))


def validation_changed():
    """A series of 120 rows, of which 77 train and 19 validate, and one that differs in those 19."""
    target = 60 + ar2(120, noise=1.0)
    changed = target.copy()
    changed[77:96] = 80 + 9 * np.sin(np.arange(19))
    return made(target), made(changed)


def test_the_validation_part_changes_neither_scaling_nor_periods():
    one, two = (plan(series, Options()) for series in validation_changed())
    assert one.scaling == two.scaling
    assert one.seasons == two.seasons


@pytest.mark.parametrize("transform", ["none", "root", "log"])
@pytest.mark.parametrize("differences", [(), (1,), (1, 7)])
def test_the_validation_part_changes_no_form_that_is_fitted_before_it(differences, transform):
    form, found = Form(transform, differences, True, 4), []
    for series in validation_changed():
        # Both transforms are tried where the range is wide: so it is made here.
        target = np.where(np.arange(120) < 5, np.arange(5, 125) * 5.0, series.target)
        data = Data(np.empty((120, 0)), target, 2, at(77, 96, 120, 2), simulate=False)
        family = Family(data, transform, differences)
        weights, biases = family.solved(form, VALIDATION)
        rows = family.rows(form, 0, VALIDATION)
        scaled = family.design(form, rows) @ weights + biases + family.base[rows + 2][:, None]
        found.append(data.unscaled(transform, scaled))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_forms_are_judged_on_rows_that_they_were_not_fitted_on():
    """Noise: what many lags learn of it by heart is worth nothing on rows to come."""
    y = np.random.default_rng(0).normal(size=120)
    study = Study.of(np.empty((120, 0)), y, 1, at(60, 110, 120, 1))
    few = sum(weight for form, _, weight in study.chosen if form.lags <= 8)
    model = study.fitted(TEST)
    error = np.mean((model(np.empty((120, 0)), y)[40:109] - y[41:110]) ** 2)
    assert few > 0.2
    assert error > 0.5 * y.var()
