"""The published results, in small: each command runs, and what it is about shows already."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "examples" / "reproduce"


def run(name: str, **smaller: Any) -> Any:
    return runpy.run_path(str(FOLDER / f"{name}.py"))["main"](**smaller)


def test_truncation_below_41_goes_the_wrong_way_and_the_others_do_not() -> None:
    found = run("influence_balancing", steps=400, depths=(1, 40, 41), online=400)
    assert found["truncated 1"] > 0.1
    assert found["truncated 40"] > 0.05
    assert -1 / 6 < found["truncated 41"] < -0.02
    for name in ("rtrl", "uoro", "evolution"):
        assert -0.25 < found[name] < -0.02, name


def test_long_time_lags_are_learned() -> None:
    found = run("memory_tasks", length=10, delay=1, hidden=8, updates=60, lanes=20)
    assert set(found) == {"adding", "copying", "temporal order"}
    for chance, reached, updates in found.values():
        assert math.isfinite(reached)
        assert reached < 1.6 * chance
        assert updates <= 60


def test_what_can_be_predicted_of_elmans_sequences_is() -> None:
    found = run("elman", triples=60, consonants=40, epochs=150, hidden=10)
    consonant, vowel = found["letters, full"]
    assert vowel < 0.5 * consonant
    first, second, third = found["xor, full"]
    assert max(first, second, third) < 0.4
