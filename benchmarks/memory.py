"""Full backpropagation through time in a flat memory budget: peak memory and time per step.

    python benchmarks/memory.py --out docs/figures/memory.json

Every case runs in a process of its own, which first trains a network of the same sizes for some
steps, so that all libraries are loaded; memory is its anonymous resident memory above that
(RssAnon; mapped file pages are not ours), at its highest, sampled from outside every 5 ms. Data lie
in a mapped .npy file.

- a million steps on one lane: GRU, hidden 256, linear readout, 256 MB; time per step beside the
  unbounded method at ten thousand steps, on one thread and on two;
- ten million steps beside one million, hidden 64;
- a thousand steps, batch 32, input 64, LSTM of 512, in a tenth of the unbounded method's memory;
- the predicted peak beside the measured one, for several budgets.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine, table, write

import bptt
from bptt.segments import give_back

MB = 1e6


def resident(pid: int | str = "self") -> int:
    """Anonymous resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def data(folder: Path, steps: int, features: int) -> Path:
    """Normal numbers [step, features + 1], written piece by piece."""
    path = folder / f"{steps}x{features}.npy"
    if not path.exists():
        shape = (steps, features + 1)
        out = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        generator = np.random.default_rng(0)
        for start in range(0, steps, 1 << 16):
            part = out[start : start + (1 << 16)]
            part[:] = generator.standard_normal(part.shape, dtype=np.float32)
        out.flush()
    return path


def stream_of(case: dict[str, Any]) -> bptt.Stream:
    if case["batch"] > 1:
        shape = (case["steps"], case["batch"])
        return bptt.Stream(torch.randn(*shape, case["inputs"]), torch.randn(*shape, 1))
    columns = list(range(case["inputs"]))
    return bptt.Stream.from_files(case["data"], inputs=columns, targets=[case["inputs"]])


def network_of(case: dict[str, Any]) -> bptt.Network:
    cell = getattr(bptt.cells, case["cell"])(case["inputs"], case["hidden"])
    return bptt.Network(cell, torch.nn.Linear(case["hidden"], 1))


def warm_up(case: dict[str, Any]) -> None:
    """A small network of the kind, trained for some steps and gone again, loads the libraries."""
    small = {**case, "hidden": 8, "inputs": 4}
    shape = (60, case["batch"])
    few = bptt.Stream(torch.randn(*shape, 4), torch.randn(*shape, 1))
    method = bptt.Full(segment=20)
    list(method.updates(network_of(small), "mse", few))
    bptt.Full(memory="1GB").plan(network_of(small), few)
    for _ in range(3):
        torch.randn(512, 512) @ torch.randn(512, 512)
    gc.collect()
    give_back()


def child(case: dict[str, Any]) -> None:
    """Run one case, when told to."""
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    warm_up(case)
    stream, network = stream_of(case), network_of(case)
    print("ready", flush=True)
    sys.stdin.readline()
    method = bptt.Full() if case["memory"] is None else bptt.Full(memory=case["memory"])
    plan = None if case["memory"] is None else method.plan(network, stream)
    seconds, sizes = [], []
    for _ in range(case["rounds"]):
        network.zero_grad()
        started = time.perf_counter()
        for update in method.updates(network, "mse", stream):
            sizes.append(update.loss)
            assert update.count == case["steps"] * case["batch"]
        seconds.append((time.perf_counter() - started) / case["steps"])
    norm = sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None)
    found = {"seconds": seconds, "loss": sizes[-1], "gradient": norm**0.5}
    if plan is not None:
        found |= {"predicted": plan.peak, "plan": str(plan)}
    print(json.dumps(found), flush=True)


def run(case: dict[str, Any]) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        base = highest = resident(one.pid)
        one.stdin.write("go\n")
        one.stdin.flush()
        while one.poll() is None:
            try:
                highest = max(highest, resident(one.pid))
            except (FileNotFoundError, ProcessLookupError):
                break
            time.sleep(0.005)
        found: dict[str, Any] = json.loads(one.stdout.read())
    named = {"data": Path(case["data"]).name} if case.get("data") else {}  # no folder of a machine
    found |= {
        "case": case | named,
        "peak": highest - base,
        "step": statistics.median(found["seconds"]),
    }
    print(describe(found), flush=True)
    return found


def describe(found: dict[str, Any]) -> str:
    case = found["case"]
    predicted = f", predicted {found['predicted'] / MB:.1f}" if "predicted" in found else ""
    return (
        f"{case['cell']} {case['hidden']}, {case['steps']:,} steps x {case['batch']}, "
        f"memory={case['memory']}, {case['threads']} thread(s): "
        f"{found['step'] * 1e6:.1f} us/step, {found['peak'] / MB:.1f} MB{predicted}"
    )


def one_lane(folder: Path, steps: int, hidden: int, inputs: int, **more: Any) -> dict[str, Any]:
    return {
        "cell": "GRU",
        "hidden": hidden,
        "inputs": inputs,
        "batch": 1,
        "steps": steps,
        "data": str(data(folder, steps, inputs)),
        "memory": None,
        "threads": 1,
        "rounds": 1,
        **more,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["million", "ten", "batch", "budgets"])
    parser.add_argument("--scale", type=float, default=1.0, help="of the long sequences")
    parser.add_argument("--folder", help="where the data are kept; default: a temporary one")
    parser.add_argument("--out", help="where the figures go, as JSON")
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.folder or name)
        found = measure(folder, options.only, options.scale)
    rows = [[name, f"{value:.3f}", bar] for name, value, bar in bars(found)]
    print(table(["", "measured", "bar"], rows))
    write(options.out, {"machine": machine(), "cases": found, "bars": rows})


def measure(folder: Path, only: str | None, scale: float) -> dict[str, dict[str, Any]]:
    million, found = int(1_000_000 * scale), {}
    if only in (None, "million"):
        for threads in (1, 2):
            short = one_lane(folder, 10_000, 256, 64, threads=threads, rounds=9)
            long = one_lane(folder, million, 256, 64, threads=threads, memory="256MB")
            found[f"short {threads}"], found[f"million {threads}"] = run(short), run(long)
    if only in (None, "ten"):
        for name, steps in (("hidden 64", million), ("hidden 64, ten times", 10 * million)):
            found[name] = run(one_lane(folder, steps, 64, 8, memory="64MB"))
    if only in (None, "batch"):
        case = {"cell": "LSTM", "hidden": 512, "inputs": 64, "batch": 32, "steps": 1000}
        case |= {"threads": 1, "rounds": 5, "memory": None}
        found["batch"] = run(case)
        tenth = found["batch"]["peak"] // 10
        found["batch, a tenth"] = run({**case, "memory": tenth})
    if only in (None, "budgets"):
        for budget in ("64MB", "128MB", "256MB"):
            for hidden, steps in ((64, 100_000), (512, 20_000)):
                case = one_lane(folder, int(steps * scale), hidden, 64, memory=budget)
                found[f"{budget}, hidden {hidden}"] = run(case)
    return found


def bars(found: dict[str, dict[str, Any]]) -> list[tuple[str, float, str]]:
    rows = []
    for threads, bar in ((1, 1.45), (2, 1.25)):
        if f"million {threads}" in found:
            long, short = found[f"million {threads}"], found[f"short {threads}"]
            name = f"million steps, {threads} thread(s)"
            rows.append((f"{name}: MB", long["peak"] / MB, "<= 256"))
            rows.append((f"{name}: time a step", long["step"] / short["step"], f"<= {bar}"))
    if "hidden 64" in found:
        ratio = found["hidden 64, ten times"]["peak"] / found["hidden 64"]["peak"]
        rows.append(("ten million steps: memory of one million", ratio, "<= 1.1"))
    if "batch" in found:
        tenth, whole = found["batch, a tenth"], found["batch"]
        rows.append(("batch of 32: memory", tenth["peak"] / whole["peak"], "<= 0.1"))
        rows.append(("batch of 32: time", tenth["step"] / whole["step"], "<= 1.45"))
    for name, one in found.items():
        if "predicted" in one:
            rows.append((f"{name}: predicted peak", one["predicted"] / one["peak"], "0.85 to 1.15"))
    return rows


if __name__ == "__main__":
    main()
