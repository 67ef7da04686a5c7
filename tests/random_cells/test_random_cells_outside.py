"""A few of ``make random-cells``; and the generator itself: seeds mean the same, most cells run,
and what differs is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.random_cells.cells import written
from tests.random_cells.judging import differs, verdict
from tests.random_cells.operators import AGAIN
from tests.random_cells.uses import USES, Use
from tests.random_cells.writing import SPECIALS

ROOT = Path(__file__).parents[2]


# A step that asks for `is_leaf` is verified on states that are not quite those of the call.
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("seed", range(12))
def test_auto_is_as_eager(seed: int) -> None:
    found = verdict(seed)
    assert found.difference is None, f"python -m tests.random_cells --seed {seed}"


def test_a_seed_means_the_same_each_time() -> None:
    for seed in range(10):
        assert written(seed) == written(seed)
        found, again = (Use(seed, "eager").run() for _ in range(2))
        assert differs(found, again, torch.float64, 0.0) is None


def test_seeds_are_unlike_and_reach_all_that_there_is() -> None:
    drawn = [written(seed) for seed in range(700)]
    assert len({one.source for one in drawn}) == len(drawn)
    assert {name for one in drawn for name in one.special} == {
        *SPECIALS,
        *(f"{name} that changes" for name in AGAIN),
    }
    assert {Use(seed, "eager").kind for seed in range(700)} == set(USES)
    plain = sum(not one.special for one in drawn)
    assert plain > len(drawn) / 4


def test_most_cells_run() -> None:
    errors: Counter[str] = Counter()
    for seed in range(100, 150):
        error: Any = dict(Use(seed, "eager").run()).get("error")
        errors[type(error).__name__] += 1
    assert errors["NoneType"] > 40, errors


WRONG: dict[str, Callable[[Any], Any]] = {
    "call 0.0 result 0": lambda tensor: tensor + 1e-6,
    "random": lambda place: place + 1,
    "torch's generator": lambda place: place + 1,
    "log": lambda kinds: [*kinds, "FakeTensor"],
    "attributes": lambda kinds: [*kinds, ("more", "int")],
    "kinds": lambda kinds: [(name, "FakeTensor") for name, _ in kinds],
}


def plain(seed: int) -> bool:
    """Whether a seed is a plain call in double precision with results."""
    use = Use(seed, "eager")
    known = use.kind == "unfold" and not use.drawn.special and use.dtype == torch.float64
    return known and dict(Use(seed, "eager").run()).get("call 0.0 result 0", torch.ones(0)).numel()


@pytest.mark.parametrize("name", WRONG)
def test_what_differs_is_told(name: str) -> None:
    results = Use(next(filter(plain, range(100))), "eager").run()
    spoiled = [(n, WRONG[n](value) if n == name else value) for n, value in results]
    assert differs(results, results, torch.float64, 0.0) is None
    found = differs(spoiled, results, torch.float64, 0.0)
    assert found is not None
    assert found.startswith(name)


def test_errors_are_compared_by_kind() -> None:
    numbers, error = [("a", torch.ones(2))], [("error", ValueError("no"))]
    assert differs(error, numbers, torch.float64, 0.0) is not None
    assert differs(error, [("error", TypeError("no"))], torch.float64, 0.0) is not None
    assert differs(error, [("error", ValueError("other words"))], torch.float64, 0.0) is None
    assert differs(numbers, error, torch.float64, 0.0) is None


def test_the_command_goes_on_where_it_ended() -> None:
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.random_cells",
            "--first",
            "7",
            "--count",
            "4",
            "--seconds",
            "0",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "0 ran" in done.stdout
    assert "--first 7" in done.stdout
