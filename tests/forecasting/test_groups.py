"""Several series in one table: one model, and nothing is read from one series into another."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt import Stream, evaluate
from bptt.errors import DataError, OptionError
from bptt.forecasting import Options, plan, read_table, seen, select, train
from bptt.forecasting.data._numbers import hold
from bptt.forecasting.data._split import TEST, VALIDATION, Split
from bptt.forecasting.linear._forms import Data, Family, Form
from bptt.forecasting.linear._seasons import seasons_of

from .cases import FAST, driven, made


def together(*parts):
    """Several series as one table has them."""
    labels = tuple("abcdefgh"[: len(parts)])
    whole = replace(parts[0], labels=labels[:1], group_name="g")
    for part, label in zip(parts[1:], labels[1:], strict=True):
        whole = whole.followed_by(replace(part, labels=(label,)))
    return whole


def three(rows=(120, 90, 150)):
    return together(*(driven(count, seed) for seed, count in enumerate(rows)))


def heard(forecaster):
    """The forecaster, with a network that says something, whether training helped or not."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in forecaster.network.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return replace(forecaster, gain=forecaster.spread)


@pytest.fixture(scope="module")
def result():
    found = train(plan(three(), Options(**FAST, season=())), progress=False)
    return replace(found, forecaster=heard(found.forecaster))


def table_of(path, rows):
    path.write_text("g,u,y\n" + "".join(f"{g},{u!r},{y!r}\n" for g, u, y in rows))
    return select(read_table(path), ("u",), "y", group="g")


def rows_of(series):
    return [
        [(label, float(u), float(y)) for (u,), y in zip(one.inputs, one.target, strict=True)]
        for one, label in zip(series.each(), series.labels, strict=True)
    ]


def interleaved(rows, seed):
    """All rows, those of each series in their order."""
    random = np.random.default_rng(seed)
    order = random.permutation(np.repeat(np.arange(len(rows)), [len(one) for one in rows]))
    left = [iter(one) for one in rows]
    return [next(left[i]) for i in order]


def test_how_series_are_interleaved_changes_nothing(tmp_path):
    rows = rows_of(three((60, 40, 50)))
    found = []
    for seed in range(3):
        series = table_of(tmp_path / f"{seed}.csv", interleaved(rows, seed))
        assert series.labels == ("a", "b", "c")
        fitted = train(plan(series, Options(**FAST, season=(), lags=3)), progress=False)
        found.append((fitted.prediction, fitted.forecaster.predict(series)))
    for one in found[1:]:
        assert (one[0] == found[0][0]).all()
        assert (one[1] == found[0][1]).all()


@pytest.mark.parametrize(
    ("column", "name", "value"), [("inputs", "u", 1e40), ("target", "y", -1e40)]
)
def test_what_is_far_from_the_rest_is_named_by_its_series(column, name, value):
    series = three((60, 40, 50))
    getattr(series, column)[60 + 40 - 1] = value  # the last row of the second, which tests
    with pytest.raises(DataError, match=f"^row 40 of b, column '{name}': .*1e.40 is too large"):
        plan(series, Options(**FAST))
    alone = driven(60)
    getattr(alone, column)[59] = value
    with pytest.raises(DataError, match=f"^row 60, column '{name}'"):
        plan(alone, Options(**FAST))


def test_one_group_is_no_group():
    alone = driven(100)
    named = replace(alone, labels=("only",), group_name="g")
    one, two = (train(plan(s, Options(**FAST)), progress=False) for s in (alone, named))
    assert (one.prediction == two.prediction).all()
    assert [m.name for m in two.groups] == ["only"]
    assert one.groups == ()


def test_labels_that_are_numbers_stand_by_size(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("g,y\n10,1\n9,2\n10,3\n NA ,4\n".replace(" NA ", "9"))
    series = select(read_table(path), target="y", group="g")
    assert (series.labels, series.begins) == (("9", "10"), (0, 2))
    assert series.target.tolist() == [2, 4, 1, 3]
    assert series.axis.tolist() == [1, 2, 1, 2]


def test_namibia_is_no_missing_group_but_an_empty_cell_is(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("g,y\nNA,1\nDE,2\n")
    assert select(read_table(path), target="y", group="g").labels == ("DE", "NA")
    path.write_text("g,y\nNA,1\n,2\n")
    with pytest.raises(DataError, match="row 2, column 'g': the group is missing"):
        select(read_table(path), target="y", group="g")


def test_times_rise_within_each_series_and_rows_are_those_of_the_file(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("g,t,y\na,1,1\nb,1,1\na,2,1\nb,2,1\nb,2,1\n")
    with pytest.raises(DataError, match="row 5, column 't': 2 is also the time of row 4"):
        select(read_table(path), target="y", group="g", time="t")
    path.write_text("g,t,y\na,1,1\nb,1,1\na,2,1\nb,2,nan\nb,3,1\n")
    with pytest.raises(DataError, match="row 4, column 'y': the number is missing"):
        select(read_table(path), target="y", group="g", time="t")
    series = select(read_table(path), target="y", group="g", time="t", missing="mask")
    assert [one.place(len(one)) for one in series.each()] == ["3", "4"]


def test_a_group_is_no_other_column(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("g,t,y\na,1,1\n")
    for uses in ({"inputs": ("g",)}, {"target": "g"}, {"time": "g"}):
        with pytest.raises(OptionError, match=r"--group"):
            select(read_table(path), **{"target": "y", "group": "g", **uses})


def test_each_series_is_predicted_as_if_it_were_alone(result):
    series, forecaster = result.plan.series, result.forecaster
    assert forecaster.gain > 0
    whole = forecaster.predict(series)
    for one, span in zip(series.each(), series.spans, strict=True):
        assert (whole[span] == forecaster.predict(one)).all()


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_a_prediction_reads_its_own_past_alone(result, data):
    series, forecaster = result.plan.series, result.forecaster
    before = forecaster.predict(series)
    row = data.draw(st.integers(0, len(series) - 1))
    span = next(s for s in series.spans if s.start <= row < s.stop)
    random = np.random.default_rng(row)
    others = np.ones(len(series), dtype=bool)
    others[span.start : row + 1] = False
    inputs, target = series.inputs.copy(), series.target.copy()
    inputs[others] += random.normal(size=(others.sum(), 1))
    target[others] = np.where(random.random(others.sum()) < 0.2, np.nan, 60.0)
    changed = replace(series, inputs=inputs, target=target)
    after = forecaster.predict(changed)
    # The network's steps are computed many at a time, and rounded as their number will have it.
    np.testing.assert_allclose(after[span.start : row + 1], before[span.start : row + 1], rtol=1e-6)


def ar2(rows, seed):
    random = np.random.default_rng(seed)
    y = random.normal(size=rows) * 3
    for t in range(2, rows):
        y[t] = 0.3 + 1.2 * y[t - 1] - 0.8 * y[t - 2]
    return y


@pytest.mark.parametrize("horizon", [1, 2])
def test_without_noise_all_series_are_exact(horizon):
    """A lag that reached into another series would leave an error in the fit."""
    series = together(*(made(ar2(rows, rows)) for rows in (30, 41, 26, 35)))
    planned = plan(series, Options(horizon=horizon, season=(), lags=2))
    linear = planned.study.fitted(TEST)
    left = series.left_by(linear(series.inputs, series.target, series.age), horizon)
    assert np.nanmax(np.abs(left[series.age >= horizon + 2])) < 1e-4
    assert np.isnan(left[series.age < horizon]).all()


def test_the_rows_of_a_regression_are_those_of_each_series():
    """Against the same by hand, series by series."""
    lengths, horizon, rows = (30, 22, 41), 2, 93
    random = np.random.default_rng(0)
    target, inputs = np.exp(random.normal(size=rows)), random.normal(size=(rows, 1))
    target[[0, 30, 31, 60]] = np.nan
    split = Split.of(lengths, horizon, 0.25, 5)
    data = Data(inputs, target, horizon, split, False)
    begins = np.cumsum([0, *lengths])
    for form in (
        Form("log", (), True, 3),
        Form("none", (1,), True, 2),
        Form("root", (4, 1), False, 2),
    ):
        family = Family(data, form.transform, form.differences)
        found = family.rows(form, 0, TEST)
        goals = family.goal[found + horizon]
        design = family.design(form, found)
        expected, wanted, aims = [], [], []
        for g, length in enumerate(lengths):
            own = slice(begins[g], begins[g + 1])
            alone = Split.of([length], horizon, 0.25, 5)
            part = Data(inputs[own], target[own], horizon, alone, False)
            part.scales = data.scales
            part.scaled = {name: data.scaled[name][own] for name in data.scaled}
            single = Family(part, form.transform, form.differences)
            these = single.rows(form, 0, TEST)
            expected += (begins[g] + these).tolist()
            wanted.append(single.design(form, these))
            aims.append(single.goal[these + horizon])
        assert found.tolist() == expected
        assert (design == np.concatenate(wanted)).all()
        assert (goals == np.concatenate(aims)).all()


def test_the_folds_are_those_of_each_series():
    lengths = (30, 22, 41)
    whole = Split.of(lengths, 1, 0.25, 0.2)
    parts = [Split.of([length], 1, 0.25, 0.2) for length in lengths]
    assert whole.fold.tolist() == [fold for part in parts for fold in part.fold]
    assert whole.training == tuple(part.train for part in parts)
    one = Split.of([30], 1, 9, 6)
    assert (
        one.fold.tolist()
        == [0] * 8 + [1] * 2 + [2] * 3 + [3] * 2 + [4] * 3 + [5] * 3 + [6] * 3 + [7] * 6
    )


def test_a_short_series_is_refused_by_its_name():
    series = together(driven(60), driven(8, 1))
    with pytest.raises(DataError, match="series 'b': 8 rows are too few"):
        plan(series, Options(test=4, validation=4))


def test_more_lanes_than_series_are_refused():
    with pytest.raises(OptionError, match="4 lanes are more than the 3 series"):
        plan(three(), Options(lanes=4))


def test_missing_targets_are_held_within_their_series():
    values = np.array([1.0, np.nan, np.nan, np.nan, 5.0, np.nan])
    age = np.array([0, 1, 0, 1, 2, 3])
    assert hold(values, 9.0, age).tolist() == [1, 1, 9, 9, 5, 5]


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_network_is_trained_and_validated_on_each_series_by_itself(lanes):
    series = three()
    planned = plan(series, Options(**FAST, season=(), lanes=lanes))
    found = train(planned, progress=False)
    known = heard(found.forecaster)
    known = replace(known, reader=replace(known.reader, linear=planned.study.fitted(VALIDATION)))
    split = planned.split
    for stream, fold in zip(
        known.parts(series, split), (split.trains, split.validation), strict=True
    ):
        total, count = 0.0, 0
        for one, span in zip(series.each(), series.spans, strict=True):
            left = one.left_by(known.predict(one), 1) / known.spread
            own = left[fold[span] & np.isfinite(left)]
            total, count = total + float(own @ own), count + len(own)
        seen_there = evaluate(known.network, stream, loss="mse")
        assert seen_there.count == count
        assert seen_there.loss == pytest.approx(total / count, rel=1e-4)


def test_a_stream_of_all_has_a_sequence_for_each(result):
    stream = result.forecaster.stream(result.plan.series)
    assert isinstance(stream, Stream)
    assert stream.steps == 360
    assert stream.counted == 360 - 3


def test_metrics_are_over_all_and_for_each(result):
    series, split = result.plan.series, result.plan.split
    truth = series.target[split.judged]
    whole = result.metrics[0]
    assert whole.count == len(truth) == split.total - split.fitted
    assert whole.mse == pytest.approx(float(np.mean((truth - result.prediction) ** 2)))
    assert [one.name for one in result.groups] == ["a", "b", "c"]
    assert sum(one.mse * one.count for one in result.groups) == pytest.approx(
        whole.mse * whole.count
    )


def test_copies_of_a_series_have_its_seasons():
    t = np.arange(150)
    y = np.sin(2 * np.pi * t / 12) + 0.3 * np.random.default_rng(0).normal(size=150)
    assert seasons_of(y) == seasons_of(y, y) == seasons_of(y, 7 * y - 3, y[:4])
    assert 12 in seasons_of(y, y)


def test_series_end_to_end_as_one_differ():
    """What is joined is another model: the boundaries count."""
    series = three()
    joined = replace(series, begins=(0,), labels=("",), group_name=None)
    options = Options(**FAST, season=(), lags=3)
    one, two = (plan(each, options).study.fitted(TEST) for each in (series, joined))
    assert not np.array_equal(one.parts[0].weight, two.parts[0].weight)


def test_a_live_forecaster_reads_one_series(result):
    series, forecaster = result.plan.series, result.forecaster
    with pytest.raises(OptionError, match="there are 3 series"):
        forecaster.live(series)
    with pytest.raises(OptionError, match="there are 3 series"):
        forecaster.free_run(series, 3)
    one = series.each()[1]
    live = forecaster.live(one.rows(50))
    for t in range(50, 60):
        found = live.read(one.inputs[t], one.target[t])
    assert found == pytest.approx(forecaster.predict(one)[59], rel=1e-5)


def test_what_was_trained_on_is_told_by_series(result):
    series, split = result.plan.series, result.plan.split
    expected = split.fold < TEST
    assert (seen(series, result.forecaster.trained) == expected).all()
    target = series.target.copy()
    target[series.spans[1].start] += 1e-9
    changed = seen(replace(series, target=target), result.forecaster.trained)
    assert not changed[series.spans[1]].any()
    assert (changed[series.spans[2]] == expected[series.spans[2]]).all()


def test_simulation_of_several_series():
    series = three()
    found = train(plan(series, Options(**FAST, simulate=True)), progress=False)
    whole = found.forecaster.predict(series)
    for one, span in zip(series.each(), series.spans, strict=True):
        assert (whole[span] == found.forecaster.predict(one)).all()
