"""What the scripts share: a program beside itself on `bptt`, compared, timed, and told in a row.

A script names its package and its cases. A case is a function that builds a `Pair`, the program as
its package has it and the same on `bptt`. It is built twice: in float64, where outputs, gradients
and the weights after three steps of SGD must agree to rounding, and in float32, which is timed.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import bptt
from bptt.engine.runtime import native

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
SLOWER = 0.9  # a ratio below this one is a defect, at so many steps or more:
STEPS = 8


@dataclass(frozen=True)
class Side:
    """One of two programs.

    Attributes:
        call: runs it, to tensors however nested.
        weights: its parameters, and the inputs that want a gradient.
    """

    call: Callable[[], Any]
    weights: list[Tensor]


@dataclass(frozen=True)
class Pair:
    """A program before and after.

    Attributes:
        before, after: the two, with equal weights of their own.
        steps, lanes: of the longest loop over time in it.
        note: what `accelerate` said of what it left as it was.
    """

    before: Side
    after: Side
    steps: int
    lanes: int
    note: str = ""


@dataclass(frozen=True)
class Row:
    """What came of a case.

    Attributes:
        model: its name.
        steps, lanes: as in its pair.
        error: the largest difference in float64, as a share of the largest element.
        ratio: time before by time after, forward and backward, float32, one thread.
        before_ms: the time before.
        first_s: the first call after, which makes the programs.
        runs: ``native``, ``eager`` (a Python loop), ``PyTorch`` (its own layer), or some of them.
        why: what kept it from running natively.
        failure: what was wrong, empty if nothing was.
    """

    model: str
    steps: int = 0
    lanes: int = 0
    error: float | None = None
    ratio: float | None = None
    before_ms: float | None = None
    first_s: float | None = None
    runs: str = ""
    why: str = ""
    failure: str = ""


def accelerated(
    model: nn.Module,
    adapted: Callable[[Any], bptt.nn.Report],
    call: Callable[[Any], Any],
    steps: int,
    lanes: int,
    inputs: Iterable[Tensor] = (),
) -> Pair:
    """A model beside its copy, ``adapted`` by `bptt.accelerate`."""
    twin = copy.deepcopy(model)
    report = adapted(twin)
    left = {name for name, module in twin.named_modules() if _is_theirs(module)}
    notes = sorted({entry.note for entry in report.entries if entry.name in left})
    if not report.entries:
        notes = ["none of its layers is PyTorch's"]
    return pair(model, twin, call, call, steps, lanes, inputs, note="; ".join(notes))


def _is_theirs(module: nn.Module) -> bool:
    """Whether this is a layer of PyTorch's, or of its kind."""
    ours = (bptt.nn.RNN, bptt.nn.GRU, bptt.nn.LSTM)
    return isinstance(module, nn.RNNBase) and not isinstance(module, ours)


def pair(
    one: nn.Module,
    other: nn.Module,
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    steps: int,
    lanes: int,
    inputs: Iterable[Tensor] = (),
    note: str = "",
) -> Pair:
    """``before(one)`` beside ``after(other)``: modules with equal parameters."""
    sides = [
        Side(lambda call=call, module=module: call(module), [*_trained(module), *inputs])
        for call, module in ((before, one), (after, other))
    ]
    return Pair(*sides, steps=steps, lanes=lanes, note=note)


def twins(
    module: nn.Module,
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    steps: int,
    lanes: int,
    inputs: Iterable[Tensor] = (),
) -> Pair:
    """``before`` a module beside ``after`` its copy."""
    return pair(module, copy.deepcopy(module), before, after, steps, lanes, inputs)


def _trained(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def tensors(value: Any) -> list[Tensor]:
    """All floating tensors of a nested result, in their order."""
    if hasattr(value, "__dataclass_fields__"):
        value = [getattr(value, name) for name in value.__dataclass_fields__]
    leaves = [t for t in tree_leaves(value) if isinstance(t, Tensor)]
    return [t for t in leaves if t.is_floating_point()]


def gradients(side: Side) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of a sum that weighs every element of them differently."""
    torch.manual_seed(1)  # dropout draws alike
    outputs = tensors(side.call())
    wanted = [o for o in outputs if o.requires_grad]
    seeds = [torch.linspace(-1, 1.3, o.numel()).to(o).view(o.shape) for o in wanted]
    found = torch.autograd.grad(wanted, side.weights, seeds, allow_unused=True)
    pairs = zip(side.weights, found, strict=True)
    return outputs, [torch.zeros_like(w) if g is None else g for w, g in pairs]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, as a share of the largest element of its tensor."""
    assert len(ours) == len(theirs), f"{len(ours)} tensors instead of {len(theirs)}"
    worst = 0.0
    sizes = [_largest(t) for t in theirs]
    floor = max([1e-9, *(1e-3 * size for size in sizes)])  # what should be zero is noise
    for a, b, size in zip(ours, theirs, sizes, strict=True):
        assert a.shape == b.shape, f"{list(a.shape)} instead of {list(b.shape)}"
        assert a.dtype == b.dtype, f"{a.dtype} instead of {b.dtype}"
        assert torch.equal(a.isfinite(), b.isfinite()), "not finite in other places"
        worst = max(worst, _largest(a - b) / max(size, floor))
    return worst


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def check(both: Pair, tolerance: float) -> float:
    """Outputs, gradients and the weights after three steps of SGD are equal, or AssertionError."""
    worst = 0.0
    for step in range(3):
        theirs, ours = gradients(both.before), gradients(both.after)
        for what, a, b in zip(("outputs", "gradients"), ours, theirs, strict=True):
            found = difference([t.detach() for t in a], [t.detach() for t in b])
            assert found <= tolerance, f"{what} differ by {found:.1e} at step {step}"
            worst = max(worst, found)
        _descend(both.before, theirs[1])
        _descend(both.after, ours[1])
    return worst


@torch.no_grad()
def _descend(side: Side, slopes: list[Tensor]) -> None:
    """A step of SGD that moves no weight by more than a thousandth."""
    for weight, slope in zip(side.weights, slopes, strict=True):
        if isinstance(weight, nn.Parameter):
            weight -= 1e-3 * slope / slope.abs().max().clamp_min(1.0)


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """What the core runs meanwhile, and what `bptt` warns of."""
    seen: dict[str, Any] = {"calls": 0, "said": []}
    run = native.run

    def counting(*args: Any, **options: Any) -> Any:
        seen["calls"] += 1
        return run(*args, **options)

    with warnings.catch_warnings(record=True) as caught, patch.object(native, "run", counting):
        warnings.simplefilter("always")
        yield seen
    seen["said"] = [str(w.message) for w in caught if "Python loop" in str(w.message)]


def _runs(seen: dict[str, Any], note: str) -> tuple[str, str]:
    """In which way the program ran, and why not natively."""
    reasons = [text.partition("natively: ")[2].removesuffix(_MEANT) for text in seen["said"]]
    ways = ["native"] * bool(seen["calls"]) + ["eager"] * bool(reasons)
    if note or not ways:
        ways.append("PyTorch")
    return " and ".join(ways), "; ".join([*map(_short, reasons), *([note] if note else [])])


_MEANT = ". backend='eager' says that this is meant."


def _short(reason: str) -> str:
    """Without the folders of this machine."""
    words = [w.rpartition("site-packages/")[2] for w in reason.split(" ")]
    return " ".join(word.removeprefix(f"{Path.cwd()}/") for word in words)


def timed(before: Callable[[], Any], after: Callable[[], Any]) -> tuple[float, float]:
    """Seconds before, and its ratio to after: the medians of rounds in turn."""
    counts = [max(1, int(0.04 / max(_seconds(call, 1), 1e-7))) for call in (before, after)]
    times, ratios = [], []
    for _ in range(5):
        theirs, ours = _seconds(before, counts[0]), _seconds(after, counts[1])
        times.append(theirs)
        ratios.append(theirs / ours)
    return statistics.median(times), statistics.median(ratios)


def _seconds(call: Callable[[], Any], count: int) -> float:
    if count > 1:
        call()  # its own caches are warm again
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def measure(name: str, make: Callable[[], Pair], double: bool = True) -> Row:
    """A case: equal in float64, equal in float32, and how fast there."""
    row, parts = Row(name), [_exact, _alike, _timed] if double else [_alike, _timed]
    for part in parts:
        row = _checked(row, lambda row, part=part: part(row, make))
    return row


def _checked(row: Row, part: Callable[[Row], Row]) -> Row:
    """What goes wrong is told, and does not keep the rest from running."""
    try:
        return part(row)
    except Exception as error:
        traceback.print_exc(limit=-4)
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return row if told in row.failure else _failed(row, told)


def _failed(row: Row, why: str) -> Row:
    return replace(row, failure="; ".join(filter(None, [row.failure, why])))


def _exact(row: Row, make: Callable[[], Pair]) -> Row:
    with default(torch.float64):
        return replace(row, error=check(make(), TOLERANCE[torch.float64]))


def _alike(row: Row, make: Callable[[], Pair]) -> Row:
    with default(torch.float32):
        both = make()
        row = replace(row, steps=both.steps, lanes=both.lanes)
        error = check(both, TOLERANCE[torch.float32])
    return row if row.error is not None else replace(row, error=error)


def _timed(row: Row, make: Callable[[], Pair]) -> Row:
    with default(torch.float32):
        both = make()
    with watched() as seen:
        began = time.perf_counter()
        gradients(both.after)
        first = time.perf_counter() - began
    runs, why = _runs(seen, both.note)
    for _ in range(2):  # a machine that others share may be slow for a moment
        seconds, ratio = timed(lambda: gradients(both.before), lambda: gradients(both.after))
        if ratio >= SLOWER:
            break
    row = replace(row, first_s=first, runs=runs, why=why, ratio=ratio, before_ms=seconds * 1e3)
    if ratio >= SLOWER or both.steps < STEPS:
        return row
    return _failed(row, f"slower: {ratio:.2f} times as fast")


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are of this dtype, and drawn from the same seed."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def main(
    package: str,
    cases: dict[str, Callable[[], Pair]],
    single: Iterable[str] = (),
    checks: dict[str, Callable[[], None]] | None = None,
) -> None:
    """Run all cases, print a row each, and write them where the command line says.

    Args:
        package: its name, as it is installed.
        cases: what makes the pair of each model.
        single: models that exist in float32 alone.
        checks: what is only asserted, not timed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, make in cases.items():
        rows.append(measure(name, make, name not in set(single)))
        print(_line(rows[-1]), flush=True)
    for name, check in (checks or {}).items():
        rows.append(_checked(Row(name), lambda row, check=check: _passed(row, check)))
        print(_line(rows[-1]), flush=True)
    if options.json:
        version = importlib.metadata.version(package)
        content = {"package": package, "version": version, "rows": [asdict(r) for r in rows]}
        options.json.write_text(json.dumps(content))
    sys.exit(any(row.failure for row in rows))


def _passed(row: Row, check: Callable[[], None]) -> Row:
    with watched() as seen:
        check()
    return replace(row, runs=_runs(seen, "")[0])


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} times as fast, "
    error = "" if row.error is None else f"{row.error:.0e}, "
    return f"{row.model}: {row.failure or 'equal'}, {error}{ratio}{row.runs} {row.why}"
