"""How fast tables stream, beside pyarrow's own streaming reader, and in how much memory.

    python benchmarks/streaming.py --out streaming.json
    python benchmarks/streaming.py --soak 10000000     # ten million trained steps, flat memory

Contestants take turns, round after round; the ratio of medians is what counts. Every row is read,
converted to float32, checked for NaN and infinity, and laid on its lanes; pyarrow's reader decodes
the same columns and converts nothing. Index and reading are timed apart: an index is built once.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet
import torch
from harness import machine, readable, table, time_in_turn, write

import bptt

COLUMNS = ["a", "b", "c", "d", "e"]
INPUTS, TARGETS = COLUMNS[:4], COLUMNS[4:]
ARROW, ARROW_DOCUMENTS = "pyarrow.csv.open_csv", "pyarrow.csv.open_csv of documents"


def data(folder: Path, rows: int) -> dict[str, Path]:
    """The same normal numbers as CSV, Parquet and .npy, and a CSV of documents."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, len(COLUMNS))).round(6)
    columns = {name: values[:, i] for i, name in enumerate(COLUMNS)}
    files = {name: folder / f"data.{name}" for name in ("csv", "parquet", "npy")}
    arrow_csv.write_csv(pa.table(columns), files["csv"])
    arrow_parquet.write_table(pa.table(columns), files["parquet"])
    np.save(files["npy"], values)
    ends = np.cumsum(generator.integers(20, 2000, size=rows // 500))
    group = np.searchsorted(ends, np.arange(rows), side="right")
    files["documents"] = folder / "documents.csv"
    arrow_csv.write_csv(pa.table({**columns, "group": group}), files["documents"])
    return files


def rival(name: str) -> str:
    """Who decodes the same columns of the same file; of other formats, of the CSV."""
    return ARROW_DOCUMENTS if "documents" in name else ARROW


def read_with_arrow(path: Path) -> int:
    types = {name: pa.float64() for name in COLUMNS}
    options = arrow_csv.ConvertOptions(include_columns=COLUMNS, column_types=types)
    return sum(batch.num_rows for batch in arrow_csv.open_csv(path, convert_options=options))


def stream(path: Path, cache: Path | None = None, **options: Any) -> bptt.Stream:
    names: dict[str, Any] = {"inputs": INPUTS, "targets": TARGETS}
    if path.suffix == ".npy":
        names = {"inputs": [0, 1, 2, 3], "targets": [4]}
    return bptt.Stream.from_files(path, **names, cache=cache, **options)


def read_all(source: bptt.Stream, window: int) -> int:
    """Every step, in windows of so many; the steps that count."""
    count = 0
    for batch in source.batches():
        for start in range(0, batch.length, window):
            count += int(batch.chunk(start, start + window).mask.sum())
    return count


def contestants(files: dict[str, Path], cache: Path, window: int) -> dict[str, Callable[[], Any]]:
    csv, documents = files["csv"], files["documents"]
    ready = {
        "CSV, 1 lane": stream(csv, cache),
        "CSV, 32 lanes": stream(csv, cache, lanes=32),
        "CSV, documents on 32 lanes": stream(documents, cache, group="group", lanes=32),
        "CSV, shuffled documents on 32 lanes": stream(
            documents, cache, group="group", lanes=32, shuffle=0
        ),
        "Parquet, 1 lane": stream(files["parquet"]),
        "Parquet, 32 lanes": stream(files["parquet"], lanes=32),
        ".npy, 1 lane": stream(files["npy"]),
        ".npy, 32 lanes": stream(files["npy"], lanes=32),
    }
    calls: dict[str, Callable[[], Any]] = {
        ARROW: lambda: read_with_arrow(csv),
        ARROW_DOCUMENTS: lambda: read_with_arrow(documents),
    }
    calls |= {name: lambda s=one: read_all(s, window) for name, one in ready.items()}
    calls["index of the CSV"] = lambda: stream(csv)
    calls["index of the CSV of documents"] = lambda: stream(documents, group="group")
    return calls


def soak(folder: Path, steps: int) -> list[tuple[int, int]]:
    """Train on so many streamed steps; (steps done, anonymous resident kB) along the way."""
    path = data(folder, 1_000_000)["csv"]
    source = stream(path, lanes=64)
    network = bptt.Network(bptt.cells.Elman(4, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    seen, done, told = [], 0, 0
    while done < steps:
        for update in bptt.Truncated(50).updates(network, "mse", source):
            optimizer.step()
            optimizer.zero_grad()
            done += update.count
            if done - told >= steps // 20 or done >= steps:
                told = done
                seen.append((done, resident()))
                print(f"{done:>12,} steps  {seen[-1][1] / 1024:8.1f} MB", flush=True)
            if done >= steps:
                break
    return seen


def resident() -> int:
    """Anonymous resident memory in kB: mapped file pages are not ours."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=256, help="steps asked for at a time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=int, help="train on so many steps, and watch the memory")
    parser.add_argument("--out", help="where the figures go, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.soak:
            write(options.out, {"soak": soak(folder, options.soak)})
            return
        calls = contestants(data(folder, options.rows), folder / "cache", options.window)
        timings = time_in_turn(calls, options.rounds, target=0.0)
    speed = {name: timings[rival(name)].median / t.median for name, t in timings.items()}
    rows = [
        [name, readable(t.median), f"{options.rows / t.median / 1e6:.2f}", f"{speed[name]:.2f}"]
        for name, t in timings.items()
    ]
    print(table(["", "ms", "million rows/s", "speed of open_csv"], rows))
    figures = {name: {"seconds": t.seconds, "ratio": speed[name]} for name, t in timings.items()}
    write(options.out, {"machine": machine(), "rows": options.rows, "figures": figures})


if __name__ == "__main__":
    main()
