"""A test part in another file, none at all, and which rows a run was trained on."""

from dataclasses import replace

import numpy as np
import pytest

from bptt.errors import DataError, OptionError
from bptt.forecasting import Metrics, Options, load, plan, save, seen, train
from bptt.forecasting.data._split import TEST, VALIDATION, Split

from .cases import FAST, driven, made

QUICK = {**FAST, "season": (), "lags": 3, "test": 0}


@pytest.fixture(scope="module")
def result():
    test = replace(driven(40, 9), source="other")
    return train(plan(driven(100), Options(**QUICK), test=test), progress=False)


def test_it_trains_as_without_the_test_data(result):
    alone = train(plan(driven(100), Options(**QUICK)), progress=False)
    series = driven(80, 5)
    assert (alone.forecaster.predict(series) == result.forecaster.predict(series)).all()
    assert alone.history.validations == result.history.validations
    assert alone.forecaster.trained == result.forecaster.trained


def test_the_errors_are_those_on_the_test_data_read_by_themselves(result):
    test = driven(40, 9)
    own = result.forecaster.predict(test)[:-1]
    expected = Metrics.of(result.forecaster.name, own, test.target[1:])
    assert result.metrics[0] == expected
    assert (result.prediction == own).all()
    assert (result.plan.split.train, result.plan.split.fitted) == (80, 100)
    assert result.plan.tested == "other"


def test_without_a_test_part_models_are_judged_that_know_the_training_part_alone():
    series = driven(100)
    found = train(plan(series, Options(**QUICK)), progress=False)
    split = found.plan.split
    assert not split.tests
    assert found.metrics[0].count == 20
    for one in found.metrics:
        if one.name.startswith("linear") and "+" not in one.name:
            known = found.plan.study.fitted(VALIDATION)
            inputs = found.plan.scaling.inputs(series)
            left = series.left_by(known(inputs, series.target), 1)[80:]
            assert one.rmse == pytest.approx(float(np.sqrt(np.mean(left**2))))
            break
    else:
        pytest.fail("no linear model is among the metrics")
    # What is delivered knows all rows.
    delivered, all_known = found.forecaster.reader.linear, found.plan.study.fitted(TEST)
    assert (delivered.parts[0].weight == all_known.parts[0].weight).all()


def test_two_test_parts_are_refused():
    with pytest.raises(OptionError, match="none is cut off"):
        plan(driven(100), Options(), test=driven(40, 9))


def test_other_columns_are_refused():
    other = made(driven(40).target)
    with pytest.raises(DataError, match="has other columns"):
        plan(driven(100), Options(**QUICK), test=other)


def test_test_data_too_short_to_predict_anything_are_refused():
    with pytest.raises(DataError, match=r"test data have 3 rows: with horizon 3"):
        plan(driven(100), Options(**QUICK, horizon=3), test=driven(3))
    target = driven(40).target * np.nan
    with pytest.raises(DataError, match="targets of the test part are missing"):
        plan(driven(100), Options(**QUICK), "mask", test=replace(driven(40), target=target))


def test_sizes_of_parts():
    split = Split.of([100], 1, 0.2, 0, apart=[30, 20])
    assert (split.train, split.fitted, split.total) == (80, 100, 150)
    assert split.judged.sum() == 48
    for test in (-1, 0.5j, "0", 1.5):
        with pytest.raises(OptionError, match="test must be"):
            Options(test=test)


def test_rows_trained_on_are_known_again_from_the_run(tmp_path):
    series = driven(100)
    result = train(plan(series, Options(**{**QUICK, "test": 20})), progress=False)
    save(result, tmp_path / "run")
    trained = load(tmp_path / "run").trained
    longer = driven(100)
    assert seen(longer, trained).tolist() == [True] * 80 + [False] * 20
    assert seen(longer.rows(80), trained).all()
    assert not seen(longer.rows(79), trained).any()
    other = longer.inputs.copy()
    other[0] += 1e-12
    assert not seen(replace(longer, inputs=other), trained).any()
    assert not seen(longer, {}).any()


def test_missing_targets_are_the_same_whatever_bytes_they_have():
    target = driven(60).target
    target[5] = np.nan
    one = replace(driven(60), target=target)
    result = train(plan(one, Options(**QUICK), "mask"), progress=False)
    other = target.copy()
    other[5] = -np.nan
    assert seen(replace(one, target=other), result.forecaster.trained).all()
