"""A few faults in every run of the tests; `make torture` makes two thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.torture.commands import COMMANDS

import bptt

AT_CALLS = ("error", "kill", "SIGTERM", "SIGINT")
"""The faults that come at a call, and not at a moment that may come too late."""

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # minutes; CI makes faults for three
def test_what_was_there_is_there_and_what_was_begun_ends(tmp_path: Path) -> None:
    """In a process of its own: it forks, and should not do so beside the threads of other tests."""
    paths = [str(Path(bptt.__file__).parents[1]), str(ROOT)]
    cases = str(2 * len(COMMANDS))  # every second one is of the commands in turn
    command = ["-m", "tests.torture.faults", "--cases", cases, "--seed", "5"]
    done = subprocess.run(
        [sys.executable, *command, "--json", "score.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["by_command"].keys() == COMMANDS.keys()
    assert score["lost"] == []
    at_calls = {kind: n for kind, n in score["by_kind"].items() if kind in AT_CALLS}
    assert at_calls  # a test without a fault says nothing
    assert {kind: score["fired"][kind] for kind in at_calls} == at_calls
