"""`bptt fit` with no option but the columns, beside what people would otherwise use.

    pip install 'bptt[bench]'
    python benchmarks/forecasting.py [--furnace gas-furnace.csv] [--seeds 5] [--only airline]
    python benchmarks/forecasting.py --others

One step ahead, the last fifth of the rows to test on, nothing chosen there. The contestants:

- persistence: the last known value;
- ridge: scikit-learn's `Ridge` on lags of target and inputs, standardised; the number of lags (up
  to 400) and the penalty are those of least error on the last fifth of the rows before the test
  part, and the model is then fitted on all of them;
- SARIMAX of statsmodels, where an order is known for the series: fitted before the test part, then
  carried on over it row by row. Airline passengers: the airline model of Box and Jenkins on
  logarithms; unemployment: two lags and the inputs of the quarter before; sunspots: nine lags;
- bptt: the median over seeds, with the least and the greatest.

`--others` runs 33 other series, of packages and made here (random walks, trends, seasons, steps,
collinear and constant inputs, outliers, short and long ones), beside persistence alone.

The series come with statsmodels, pmdarima and vega_datasets; the gas furnace of Box and Jenkins
(series J, columns InputGasRate and CO2) is data set "gas-furnace" of openmv.net.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

from bptt.forecasting import Options, Series, plan, train

HERE = Path(__file__).resolve().parents[1]
NATION = ("realgdp", "cpi", "m1", "tbilrate")
LAGS = (1, 2, 3, 4, 6, 8, 12, 13, 18, 24, 25, 36, 37, 52, 53, 72, 96, 104, 144, 168, 240, 337, 400)
PENALTIES = 10.0 ** np.arange(-4, 4.1)
SARIMAX = {
    "airline passengers": {"order": (0, 1, 1), "seasonal_order": (0, 1, 1, 12)},
    "unemployment": {"order": (2, 0, 0), "trend": "c"},
    "sunspots": {"order": (9, 0, 0), "trend": "c"},
}


def load(furnace: Path | None) -> dict[str, Series]:
    """All series by name."""
    import pmdarima.datasets
    from statsmodels import datasets
    from vega_datasets import data

    macro = datasets.macrodata.load_pandas().data
    hours = 2 * np.pi * np.arange(4032) / 48
    taylor = pmdarima.datasets.load_taylor()
    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "airline passengers": (pmdarima.datasets.load_airpassengers(), {}),
        "half-hourly demand": (taylor, {}),
        "the same, sin and cos of the hour": (taylor, {"sin": np.sin(hours), "cos": np.cos(hours)}),
        "CO2, weekly, some missing": (datasets.co2.load_pandas().data["co2"], {}),
        "unemployment": (
            macro["unemp"],
            {n: macro[n] for n in NATION},
        ),
        "Seattle, highest temperature": (data.seattle_weather()["temp_max"], {}),
        "sunspots": (datasets.sunspots.load_pandas().data["SUNACTIVITY"], {}),
    }
    if furnace is not None:
        table = np.genfromtxt(furnace, delimiter=",", names=True)
        found["gas furnace"] = (table["CO2"], {"InputGasRate": table["InputGasRate"]})
    made = {}
    for name, (target, inputs) in found.items():
        goal = np.asarray(target, dtype=np.float64)
        columns = [np.asarray(column, dtype=np.float64) for column in inputs.values()]
        given = np.column_stack(columns) if columns else np.empty((len(goal), 0))
        axis = np.arange(1.0, len(goal) + 1)
        made[name] = Series(given, goal, tuple(inputs), "y", name, axis)
    return made


def others() -> dict[str, Series]:
    """Some that nobody tuned anything on."""
    import pmdarima.datasets as packaged
    from statsmodels import datasets

    random = np.random.default_rng(0)
    rows = np.arange(400)
    noise = random.normal(size=(12, 400))
    week, wave = np.tile(random.normal(size=7), 58)[:400], np.sin(2 * np.pi * rows / 24)
    found: dict[str, tuple[Any, list[Any]]] = {
        f"random walk of {n} rows, {seed}": (np.cumsum(random.normal(size=n)), [])
        for n in (60, 120, 300, 1000, 4000)
        for seed in range(2)
    }
    found |= {
        "white noise": (noise[0], []),
        "trend": (0.05 * rows + noise[1], []),
        "bent trend": (np.where(rows < 300, rows, 600 - rows) + 3 * noise[2], []),
        "growth": (np.exp(0.01 * rows + 0.1 * noise[3]), []),
        "week": (3 * week + noise[4], []),
        "day and trend": (0.02 * rows + 2 * wave + 0.5 * noise[5], []),
        "steps": (5.0 * np.floor(rows / 37) + 0.2 * noise[6], []),
        "one step, in the test part": (10.0 * (rows > 360) + noise[7], []),
        "outliers": (2 * wave + 0.3 * noise[8] + 30 * (rows % 61 == 7), []),
        "a constant input": (np.cumsum(noise[9]), [np.ones(400)]),
        "an input twice": (np.cumsum(noise[10]), [wave, wave, 2 * wave + 1]),
        "an input that tells": (np.roll(noise[11], 1) * 3 + noise[0], [noise[11]]),
        "twenty-four rows": (np.cumsum(noise[0][:24]), []),
    }
    nile = datasets.nile.load_pandas().data["volume"]
    nation = datasets.macrodata.load_pandas().data
    for name, values in {
        "Nile": nile,
        "lynx": packaged.load_lynx(),
        "wine": packaged.load_wineind(),
        "wool": packaged.load_woolyrnq(),
        "residents of Australia": packaged.load_austres(),
        "beer": packaged.load_ausbeer(),
        "heart rate": packaged.load_heartrate(),
        "bills, three months": nation["tbilrate"],
        "inflation": nation["infl"],
        "consumption": nation["realcons"],
    }.items():
        found[name] = (values, [])
    made = {}
    for name, (target, inputs) in found.items():
        goal = np.asarray(target, dtype=np.float64)
        given = np.column_stack(inputs) if inputs else np.empty((len(goal), 0))
        names = tuple(f"u{i}" for i in range(given.shape[1]))
        made[name] = Series(given, goal, names, "y", name, np.arange(1.0, len(goal) + 1))
    return made


def show_others(jobs: int) -> None:
    """Each beside persistence."""
    print("| series | persistence | bptt | ratio | model |\n|---|---|---|---|---|")
    series, ratios = others(), []
    with ProcessPoolExecutor(jobs) as pool:
        runs = pool.map(fit, [(one, 0) for one in series.values()])
        for (name, one), run in zip(series.items(), runs, strict=True):
            last = persistence(one)
            ratios.append(run["rmse"] / last)
            print(
                f"| {name} | {last:.4g} | {run['rmse']:.4g} | {ratios[-1]:.3f} | {run['model']} |",
                flush=True,
            )
    print(
        f"\n{sum(r <= 1.02 for r in ratios)} of {len(ratios)} within 1.02; worst {max(ratios):.3f}"
    )


def split(series: Series) -> int:
    """The first row of the test part, as `bptt fit` has it."""
    return len(series) - (len(series) - round(0.8 * len(series)))


def held(target: np.ndarray) -> np.ndarray:
    """Missing values replaced by the last known one."""
    last = np.maximum.accumulate(np.where(np.isfinite(target), np.arange(len(target)), 0))
    return target[last]


def rmse(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((prediction - truth) ** 2)))


def persistence(series: Series) -> float:
    first = split(series)
    return rmse(held(series.target)[first - 1 : -1], series.target[first:])


def ridge(series: Series) -> tuple[float, str]:
    """The test error, and how many lags were chosen."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first, past = split(series), np.column_stack([series.inputs, held(series.target)])
    judged = round(0.8 * first)

    def errors(lags: int, penalty: float, stop: int, end: int) -> np.ndarray:
        rows = np.arange(lags, end)
        design = np.column_stack([past[rows - k] for k in range(1, lags + 1)])
        goal = series.target[rows]
        known = (rows < stop) & np.isfinite(goal)
        model = make_pipeline(StandardScaler(), Ridge(penalty)).fit(design[known], goal[known])
        return model.predict(design[rows >= stop]) - goal[rows >= stop]

    scores = {
        (lags, penalty): float(np.nanmean(errors(lags, penalty, judged, first) ** 2))
        for lags in LAGS
        if lags * past.shape[1] <= 450 and judged - lags >= lags * past.shape[1] * 0.7
        for penalty in PENALTIES
    }
    lags, penalty = min(scores, key=scores.__getitem__)
    left = errors(lags, penalty, first, len(series))
    return float(np.sqrt(np.nanmean(left**2))), f"{lags} lags"


def sarimax(series: Series) -> float | None:
    """The test error, or None where no order is known."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX as Model

    if series.source not in SARIMAX:
        return None
    first, logarithm = split(series), series.source == "airline passengers"
    goal = np.log(series.target) if logarithm else series.target
    before = series.inputs[:-1] if series.input_names else None
    goal = goal[1:] if series.input_names else goal
    if before is not None:
        before = (before - before[:first].mean(0)) / before[:first].std(0)
    place = first - (len(series) - len(goal))
    fitted = Model(
        goal[:place], None if before is None else before[:place], **SARIMAX[series.source]
    ).fit(disp=False, maxiter=200)
    whole = fitted.append(goal[place:], None if before is None else before[place:])
    found = whole.fittedvalues[place:]
    return rmse(np.exp(found) if logarithm else found, series.target[first:])


def fit(job: tuple[Series, int]) -> dict[str, Any]:
    """One run with the defaults."""
    import torch

    torch.set_num_threads(1)
    series, seed = job
    started = time.perf_counter()
    result = train(plan(series, Options(seed=seed), "mask"), progress=False)
    return {
        "model": result.metrics[0].name,
        "rmse": result.metrics[0].rmse,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--furnace", type=Path, help="gas-furnace.csv")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--only", help="series whose names begin so")
    parser.add_argument("--json", type=Path, default=HERE / "docs/figures/forecasting.json")
    parser.add_argument("--others", action="store_true", help="other series, beside persistence")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.others:
        show_others(asked.jobs)
        return
    found = []
    print("| one step ahead, test RMSE | persistence | ridge | SARIMAX | bptt | of the ridge | s |")
    print("|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(asked.jobs) as pool:
        for name, series in load(asked.furnace).items():
            if asked.only and not name.startswith(asked.only):
                continue
            runs = list(pool.map(fit, [(series, seed) for seed in range(asked.seeds)]))
            errors = [one["rmse"] for one in runs]
            linear, lags = ridge(series)
            other, last = sarimax(series), persistence(series)
            middle = statistics.median(errors)
            seconds = statistics.median(one["seconds"] for one in runs)
            print(
                f"| {name} | {last:.4g} | {linear:.4g} ({lags}) "
                f"| {'–' if other is None else f'{other:.4g}'} "
                f"| **{middle:.4g}** ({min(errors):.4g} to {max(errors):.4g}) "
                f"| {middle / linear:.2f} | {seconds:.0f} |",
                flush=True,
            )
            row = {"series": name, "rows": len(series), "persistence": last, "ridge": linear}
            found.append({**row, "ridge_lags": lags, "sarimax": other, "bptt": runs})
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({"machine": machine(), "series": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
