"""Series whose scales differ by factors of a thousand, read by one model."""

from dataclasses import replace

import numpy as np
import pytest

from bptt.forecasting import Options, load, plan, save, train
from bptt.forecasting.data._units import KINDS, Units, kinds_for
from bptt.forecasting.runs import _pictures

from .cases import FAST, made


def several(sizes=(1.0, 1000.0, 0.01), lengths=(150, 180, 120), level=10.0):
    """A year of twelve steps beneath noise, of each size."""
    random = np.random.default_rng(0)
    targets = []
    for size, rows in zip(sizes, lengths, strict=True):
        year = 3 * np.sin(2 * np.pi * np.arange(rows) / 12)
        targets.append(size * (level + year + 0.5 * random.normal(size=rows)))
    begins = tuple(int(n) for n in np.cumsum([0, *lengths[:-1]]))
    labels = tuple("abc"[: len(sizes)])
    one = made(np.concatenate(targets))
    return replace(one, begins=begins, labels=labels, group_name="g")


def last_known(series, split):
    """The root mean squared error of the last known value on the test part of each series."""
    found = []
    for span in series.spans:
        y, judged = series.target[span], split.judged[span]
        found.append(np.sqrt(np.mean(np.diff(y, prepend=y[0])[judged] ** 2)))
    return found


@pytest.mark.parametrize("level", [10.0, 0.0])  # all above 0, and not
def test_small_series_are_not_ruined_by_large_ones(level):
    series = several(level=level)
    result = train(plan(series, Options(**FAST)), progress=False)
    assert result.plan.units.kind != "common"
    rivals = last_known(series, result.plan.split)
    for one, rival in zip(result.groups, rivals, strict=True):
        assert one.rmse < 0.6 * rival


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_undone(kind):
    series = several()
    units = Units.fit(kind, series, np.ones(len(series), dtype=bool))
    own = units.own(series)
    np.testing.assert_allclose(units.restored(own.target, series), series.target, rtol=1e-12)
    for each, single in zip(own.each(), series.each(), strict=True):
        assert (units.own(single).target == each.target).all()
        if kind == "deviation":
            assert each.target.std() == pytest.approx(1)
            assert each.target.mean() == pytest.approx(0, abs=1e-9)
        if kind == "mean":
            assert each.target.mean() == pytest.approx(1)


def test_units_are_of_the_training_part():
    series = several()
    changed = replace(series, target=series.target.copy())
    one = plan(series, Options(**FAST))
    changed.target[one.split.judged] *= 7
    two = plan(changed, Options(**FAST))
    assert one.units == two.units


@pytest.mark.parametrize("label", ["a", "new"])
def test_units_are_never_of_rows_that_are_tested_on(label):
    """A series of the test data that is not trained on has no units of its own."""
    series = several()
    test = replace(several((50.0,), (60,)), labels=(label,))
    planned = plan(series, Options(**FAST, test=0), test=test)
    assert (planned.units.kind == "common") == (label == "new")


def test_units_that_the_data_do_not_bear_are_not_tried():
    """In units of its mean the test part of a series would be beyond 32 bits."""
    series = several()
    series.target[series.spans[2].start : series.spans[2].stop - 30] *= 1e-40
    plan(series, Options(**FAST))


def test_one_series_and_simulations_have_common_units():
    series, trains = several(), np.ones(450, dtype=bool)
    assert kinds_for(series, trains, simulate=True) == ["common"]
    assert kinds_for(series.each()[0], trains[:150], simulate=False) == ["common"]
    assert kinds_for(series, trains, simulate=False) == list(KINDS)
    negative = replace(series, target=series.target - 100)
    assert kinds_for(negative, trains, simulate=False) == ["common", "deviation"]


def test_a_run_is_read_with_its_units(tmp_path):
    series = several()
    result = train(plan(series, Options(**FAST)), progress=False)
    save(result, tmp_path / "run")
    found = load(tmp_path / "run")
    assert found.units == result.forecaster.units
    expected = result.forecaster.predict(series)
    assert (found.predict(series) == expected).all()
    # Each by itself, row by row, and a series of another name by its own numbers.
    for one, span in zip(series.each(), series.spans, strict=True):
        assert (found.predict(one) == expected[span]).all()
        live = found.live(one.rows(100))
        for t in range(100, len(one)):
            assert live.prediction == pytest.approx(expected[span][t - 1], rel=1e-6)
            live.read(np.empty(0), one.target[t])
        stranger = replace(one, labels=("new",), target=one.target * 1e4)
        apart = found.predict(stranger)[50:-1] - stranger.target[51:]
        assert np.sqrt(np.mean(apart**2)) < 0.6 * np.diff(stranger.target).std()
        free = found.free_run(one, 24)
        assert np.abs(free - one.target.mean()).max() < 2 * np.ptp(one.target)


def test_each_series_is_drawn_with_its_own_error(monkeypatch, tmp_path):
    result = train(plan(several(), Options(**FAST)), progress=False)
    labels = []
    monkeypatch.setattr(_pictures, "save", lambda figure, path: labels.extend(legends(figure)))
    _pictures.pictures(result)["prediction.png"](tmp_path / "prediction.png")
    assert len(labels) == 3
    for label, one in zip(labels, result.groups, strict=True):
        assert label.endswith(f"RMSE {one.rmse:.3g}")


def legends(figure):
    """What is said of the predictions in each part of a picture."""
    return [axes.get_legend().get_texts()[1].get_text() for axes in figure.axes]
