"""A seeded part of what ``make fuzz`` does; and the bytes of a case mean the same everywhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.__main__ import Case, cases
from tests.fuzz.damage import Draw, damaged
from tests.fuzz.targets import Targets

import bptt

ROOT = Path(__file__).parents[2]


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_seeded_cases_in_little_memory() -> None:
    """In a process of its own, as by ``make fuzz``."""
    ran = fuzz("--cases", "400", "--seed", "7", "core")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" 0 kinds of failure") == 1


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return Targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", ["model", "checkpoint", "table", "stream", "text"])
def test_seeded_cases(targets: Targets, name: str) -> None:
    for data in cases(name, 7, 100):
        with contextlib.suppress(bptt.BpttError):
            targets.all[name](Draw(data))


few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@few
@given(st.sampled_from(["model", "checkpoint", "table", "stream", "text", "core"]), st.binary())
def test_chosen_by_hypothesis(targets: Targets, name: str, data: bytes) -> None:
    with contextlib.suppress(bptt.BpttError):
        targets.all[name](Draw(data))


@settings(few, max_examples=5)
@given(st.binary(min_size=4, max_size=24))
def test_the_command_line(targets: Targets, data: bytes) -> None:
    targets.command(Draw(data))


def test_what_else_is_raised_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    case = Case("text", tmp_path / "files")
    case(bytes(8))
    assert not case.failed
    monkeypatch.setattr("bptt.streams._text._decoded", lambda *_: 1 / 0)
    case(bytes(8))
    ((error, data),) = case.failed.values()
    assert error.startswith("ZeroDivisionError")
    assert data == bytes(8)


def test_damage_depends_on_the_bytes_alone() -> None:
    good = bytes(range(200))
    assert damaged(Draw(b"abcdefgh"), good) == damaged(Draw(b"abcdefgh"), good) != good
