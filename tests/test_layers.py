"""Imports run downward only: the layers of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "bptt"

LAYER = {
    "errors": 0,
    "_ending": 0,
    "_counting": 0,
    "_identity": 0,
    "_missing_core": 0,
    "files": 0,
    "drawing": 0,
    "reuse": 0,
    "state": 0,
    "cells": 0,
    "engine": 1,
    "_core": 1,
    "streams": 1,
    "tasks": 2,
    "info": 2,
    "unfold": 2,
    "arguments": 1,
    "explanation": 2.5,
    "segments": 2.5,
    "losses": 3,
    "network": 3,
    "nn": 3,
    "gradients": 4,
    "diagnostics": 4,
    "optimize": 4.5,
    "training": 5,
    "runs": 5.25,
    "comparison": 5.5,
    "forecasting": 5.5,
    "text": 5.75,
    "cli": 6,
    "__main__": 7,
    "__init__": 7,
}

# Packages of the same layer that one of them may import, and why.
SAME_LAYER = {
    ("cells", "state"),  # cells carry states
    ("cells", "errors"),
    ("files", "errors"),
    ("drawing", "errors"),
    ("drawing", "files"),
    ("drawing", "_ending"),  # a command that is ended leaves nothing of matplotlib's behind
    ("state", "errors"),
    ("engine", "_core"),  # the compiled half of the engine
    ("diagnostics", "gradients"),  # what is looked at is the gradient methods' data
}

ENGINE = {
    "unsupported": 0,
    "_torch_compat": 0,
    "ir": 1,
    "graphs": 2,
    "lowering": 3,
    "backends": 3,
    "passes": 4,
    "frontend": 5,
    "runtime": 6,
    "online": 7,
    "compiling": 7,
    "__init__": 8,
}
"""The layers inside the engine; a name that only types need may come from above."""

FORECASTING = {"data": 0, "linear": 1, "model": 2, "runs": 3, "__init__": 4}
"""The layers inside the forecasting package."""

INSIDE = {"engine": ENGINE, "forecasting": FORECASTING}


def package(path: Path) -> str:
    """The module or package directly under ``bptt`` that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py").removesuffix(".pyi")


def imported(path: Path) -> set[str]:
    """The packages that a file imports from, wherever in it the import stands."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module == "bptt":
            names = [f"bptt.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the layer"
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        packages |= {name.split(".")[1] for name in names if name.startswith("bptt.")}
    return packages & LAYER.keys()


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    here = package(path)
    for other in imported(path) - {here}:
        downward = LAYER[other] < LAYER[here] or (here, other) in SAME_LAYER
        assert downward, f"{path.name} of {here} imports {other}, which is not below it"


def test_every_package_has_a_layer() -> None:
    assert {package(path) for path in FILES} <= LAYER.keys()


@pytest.mark.parametrize("package", INSIDE)
def test_imports_run_downward_within(package: str) -> None:
    here, layers = ROOT / package, INSIDE[package]
    for path in sorted(here.rglob("*.py")):
        layer = path.relative_to(here).parts[0].removesuffix(".py")
        for other in imported_at_run_time(path, package) - {layer}:
            assert layers[other] < layers[layer], f"{layer}: {path.name} imports from {other}"


def imported_at_run_time(path: Path, package: str) -> set[str]:
    """The layers of a package that a file of it imports from, but for types."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        waiting += ast.iter_child_nodes(node)
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[2] for name in names if name.startswith(f"bptt.{package}.")}
    return found & INSIDE[package].keys()


@pytest.mark.parametrize("package", INSIDE)
def test_folders_and_files_stay_small(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= 14, folder
