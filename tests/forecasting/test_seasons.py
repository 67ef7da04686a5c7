"""Periods are found where there are some, and nowhere else."""

import numpy as np
import pytest

from bptt.forecasting import Options, plan
from bptt.forecasting.linear._seasons import seasons_of

from .cases import made, walk


def airline(rows=144):
    """Months: growth by a factor, and a year whose swing grows with it."""
    t = np.arange(rows)
    noise = 0.03 * np.random.default_rng(0).normal(size=rows)
    return 100 * np.exp(0.01 * t + 0.2 * np.sin(2 * np.pi * t / 12) + noise)


def weekly(rows=210):
    random = np.random.default_rng(0)
    return np.tile([5.0, 6, 6, 7, 8, 2, 1], rows // 7) + 0.5 * random.normal(size=rows)


def half_hourly(days=84):
    """A day of 48 steps, smaller at the end of the week."""
    t = np.arange(days * 48)
    day = np.sin(2 * np.pi * t / 48) + 0.5 * np.sin(4 * np.pi * t / 48)
    share = np.where((t // 48) % 7 >= 5, 0.4, 1.0)
    return 10 + share * day + 0.05 * np.random.default_rng(0).normal(size=len(t))


@pytest.mark.parametrize(
    ("target", "periods"),
    [(airline(), {12}), (weekly(), {7}), (half_hourly(), {48, 336})],
    ids=["airline", "weekly", "half-hourly"],
)
def test_periods_are_found(target, periods):
    assert set(seasons_of(target)) == periods  # and no multiples of them


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [60, 500, 3000])
def test_nothing_is_found_where_nothing_is(rows, seed):
    noise = np.random.default_rng(seed).normal(size=rows)
    assert seasons_of(noise) == ()
    assert seasons_of(noise.cumsum()) == ()


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e15, 1e150])
def test_the_units_do_not_matter(scale):
    assert seasons_of(airline() * scale) == seasons_of(airline())


@pytest.mark.parametrize("rows", [0, 1, 2, 8, 9, 30])
def test_a_constant_and_a_short_series_have_none(rows):
    assert seasons_of(np.full(rows, 0.1)) == ()
    assert seasons_of(np.arange(float(rows))) == ()


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_the_noise_on_a_slow_swing_is_no_period_of_two_steps(noise):
    t = np.arange(2000)
    random = np.random.default_rng(1)
    found = seasons_of(5 * np.sin(2 * np.pi * t / 48) + noise * random.normal(size=2000))
    assert 2 not in found


def test_two_steps_may_be_a_period():
    assert seasons_of(np.tile([1.0, 2.0], 100)) == (2,)


def test_those_that_are_given_are_taken():
    assert plan(made(weekly()), Options()).seasons[0] == 7
    assert plan(made(weekly()), Options(season=())).seasons == ()
    assert plan(made(weekly()), Options(season=(9, 5))).seasons == (9, 5)


def test_they_are_found_in_the_training_part():
    y = walk(240)
    y[150:] += 50 * np.sin(np.arange(90))  # 153 rows are to train
    assert plan(made(y), Options(validation=0.2, test=0.2)).seasons == ()
