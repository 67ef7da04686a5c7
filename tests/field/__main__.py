"""Run every script, and write what came of them into the page: ``python -m tests.field``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent
PAGE, FIGURES = Path("docs/field.md"), Path("docs/figures/field.json")
ORDER = (
    "neuralforecast",
    "darts",
    "pytorch_forecasting",
    "sb3_contrib",
    "torchrl",
    "ncps",
    "snntorch",
    "neuralrnn",
    "deepsi",
    "torch",
)
HEADER = ("package", "model", "steps × lanes", "equal", "ratio", "runs", "why")


def run(name: str, folder: str) -> dict[str, Any]:
    """One script in a process of its own."""
    path = Path(folder, f"{name}.json")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        f"tests.field.with_{name}",
        "--json",
        str(path),
    ]
    code = subprocess.run(command, env={**os.environ, **QUIET}).returncode
    if not path.exists():
        sys.exit(f"tests/field/with_{name}.py ended with {code} before it wrote its rows")
    return json.loads(path.read_text())


# Packages are imported as they are, without a look at hubs, displays or accelerators.
QUIET = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""}


def cpu() -> str:
    """The processor's name."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cells(found: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    work = f"{row['steps']} × {row['lanes']}" if row["steps"] else ""
    error = "" if row["error"] is None else f", {row['error']:.0e}"
    equal = f"**no**: {row['failure']}" if row["failure"] else f"yes{error}"
    if row["failure"].startswith("slower"):
        equal = f"yes{error}, but slower"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    texts = [found["package"], row["model"], work, equal, ratio, row["runs"], row["why"]]
    return [text.replace("|", "\\|") for text in texts]


def table(all_found: list[dict[str, Any]]) -> str:
    """All rows, as Markdown."""
    rows = [cells(found, row) for found in all_found for row in found["rows"]]
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lines_of(name: str) -> str:
    """The marked lines of a script."""
    text = (FOLDER / f"with_{name}.py").read_text()
    parts = re.findall(r"# \[adapt\]\n(.*?)\n+# \[/adapt\]", text, re.DOTALL)
    return "\n\n".join(part.strip("\n") for part in parts)


def adapted() -> str:
    """The marked lines of all scripts, as Markdown."""
    parts = [f"### {name.replace('_', '-')}\n\n```python\n{lines_of(name)}\n```" for name in ORDER]
    return "\n\n".join(parts)


def between(page: str, mark: str, content: str) -> str:
    """The page with other content between two marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def written(all_found: list[dict[str, Any]]) -> None:
    """The page and the figures."""
    versions = ", ".join(f"{found['package']} {found['version']}" for found in all_found)
    page = between(PAGE.read_text(), "table", f"{cpu()}; {versions}.\n\n{table(all_found)}")
    PAGE.write_text(between(page, "lines", adapted()))
    machine = {"cpu": cpu(), "python": platform.python_version(), "torch": torch.__version__}
    FIGURES.write_text(json.dumps({"machine": machine, "packages": all_found}, indent=1) + "\n")


def main() -> None:
    """Run, print, write; an error if anything was unequal or slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="run these alone, and write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        all_found = [run(name, folder) for name in options.names or ORDER]
    if not options.names:
        written(all_found)
    failed = [
        f"{found['package']}, {row['model']}: {row['failure']}"
        for found in all_found
        for row in found["rows"]
        if row["failure"]
    ]
    print(f"{len(failed)} failed", *failed, sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
