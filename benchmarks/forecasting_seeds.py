"""Ten seeds of the default forecaster beside its baselines, on two data sets.

    python benchmarks/forecasting_seeds.py [--furnace gas-furnace.csv] [--seeds 10] [--jobs 2]

prints the table of docs/forecasting.md and writes the numbers as JSON. The gas furnace is that of
Box and Jenkins, Time Series Analysis (series J), columns InputGasRate and CO2, as openmv.net has it
(data set "gas-furnace"); without it the sunspot numbers alone are run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bptt.forecasting import Options, plan, read_table, select, sunspots, train

HERE = Path(__file__).resolve().parents[1]
FURNACE = HERE / "../shared/data/gas-furnace.csv"
TASKS = ("gas furnace, prediction", "gas furnace, simulation", "sunspots, prediction")


def run(job: tuple[str, int, Path]) -> dict[str, Any]:
    """One task with one seed: the test errors of network and baselines."""
    import torch

    torch.set_num_threads(1)
    task, seed, furnace = job
    if task.startswith("gas furnace"):
        series = select(read_table(furnace), ("InputGasRate",), "CO2")
        options = Options(simulate=task.endswith("simulation"), test=96, seed=seed)
    else:
        series, options = sunspots(), Options(seed=seed)
    started = time.perf_counter()
    result = train(plan(series, options), progress=False)
    return {
        "task": task,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 2),
        "epochs": len(result.history),
        "best_epoch": result.history.best_epoch,
        "metrics": [asdict(one) for one in result.metrics],
    }


def show(found: list[dict[str, Any]]) -> None:
    """The tables, in Markdown."""
    for task in dict.fromkeys(one["task"] for one in found):
        rows = [one for one in found if one["task"] == task]
        simplest, linear = rows[0]["metrics"][1:]
        kind = "rmse" if task.startswith("sunspots") else "mse"
        print(f"\n### {task.capitalize()}: {kind.upper()} on the test part\n")
        print(f"{simplest['name']} {simplest[kind]:.4g}, {linear['name']} {linear[kind]:.4g}\n")
        print("| seed | network | of the linear model | of the simplest | best epoch |")
        print("|---|---|---|---|---|")
        for one in rows:
            own = one["metrics"][0][kind]
            print(
                f"| {one['seed']} | {own:.4g} | {own / linear[kind]:.3f} | "
                f"{own / simplest[kind]:.3f} | {one['best_epoch']} |"
            )
        print("\n" + verdict(rows, kind))


def verdict(rows: list[dict[str, Any]], kind: str) -> str:
    """How many seeds beat what."""
    own = [one["metrics"][0][kind] for one in rows]
    simplest, linear = (rows[0]["metrics"][i][kind] for i in (1, 2))
    seconds = sum(one["seconds"] for one in rows) / len(rows)
    return (
        f"Of {len(rows)} seeds {sum(x < simplest for x in own)} beat the simplest model, "
        f"{sum(x < 0.999 * linear for x in own)} beat the linear model, "
        f"{sum(0.999 * linear <= x <= 1.001 * linear for x in own)} equal it (to 0.1%), "
        f"{sum(x > 1.001 * linear for x in own)} fall behind it, "
        f"{sum(x <= 1.05 * linear for x in own)} are within 5% of it or better; median "
        f"{sorted(own)[len(own) // 2]:.4g}; {seconds:.1f} s a run."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--furnace", type=Path, default=FURNACE)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("forecasting_seeds.json"))
    given = parser.parse_args()
    tasks = TASKS if given.furnace.exists() else TASKS[2:]
    if tasks != TASKS:
        print(f"there is no {given.furnace}: the gas furnace is left out.")
    jobs = [(task, seed, given.furnace) for task in tasks for seed in range(given.seeds)]
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        found = pool.map(run, jobs, chunksize=1)
    show(found)
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {given.out}")


if __name__ == "__main__":
    main()
