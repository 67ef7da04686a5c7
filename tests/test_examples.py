"""Every example runs, on less data, and learns what it is about."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# name, smaller arguments, the loss that a network which learned nothing cannot reach
CASES = [
    ("feedforward_cell", {"steps": 300, "epochs": 12}, 0.03),
    ("feedback_cell", {"steps": 300, "epochs": 25}, 0.05),
    ("own_loop", {"steps": 200, "epochs": 6}, 0.1),
    ("lightning_recipe", {"steps": 200, "epochs": 6}, 0.1),
    ("skorch_recipe", {"steps": 200, "epochs": 6}, 0.1),
    ("character_model", {"characters": 20_000, "epochs": 3, "hidden": 32}, 3.1),
    ("vowels", {"made_up": True, "count": 150, "epochs": 30}, 0.5),
]


@pytest.mark.parametrize(("name", "smaller", "bar"), CASES, ids=[case[0] for case in CASES])
def test_example(name: str, smaller: dict[str, int], bar: float) -> None:
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    assert main(**smaller) < bar


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {case[0] for case in CASES}
