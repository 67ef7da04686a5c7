"""``bptt compare`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bptt.cli._app import app

QUICK = ["--budget", "700", "--starts", "1", "--hidden", "3", "--quiet"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "120"})
    return result.exit_code, result.output


def test_without_data_it_compares_on_the_sunspots_and_on_the_adding_problem(
    tmp_path: Path,
) -> None:
    code, text = run(*QUICK, "--methods", "full,evolution", "--out", str(tmp_path / "out"))
    assert code == 0, text
    for name in ("sunspots", "adding"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert [row["method"] for row in found["table"]] == ["full", "evolution"]
    assert "adding problem, 30 steps" in text
    assert "evolution" in text


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{i % 7},{(i * i) % 11}" for i in range(60)]
    table.write_text("a,b\n" + "\n".join(rows) + "\n")
    code, text = run(
        *(str(table), "--inputs", "a", "--target", "b", *QUICK),
        *("--methods", "full,cma-es", "--out", str(tmp_path / "o")),
    )
    assert code == 0, text
    assert "t.csv, 1 step ahead" in text
    assert (tmp_path / "o" / "comparison.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "full,evolutoin"], "Did you mean 'evolution'"),
        (["--budget", "long"], "a budget is a time"),
        (["--methods", "levenberg-marquardt", "--hidden", "8"], "take 'least-squares'"),
        (["--depth", "310"], "reaches beyond"),
        (["--horizon", "0"], "horizon must be at least 1"),
        (["--target", "x"], "none is given"),
    ],
)
def test_bad_input_is_told_before_any_work(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    code, text = run(*QUICK, *arguments, "--out", str(tmp_path / "o"))
    assert code == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert not (tmp_path / "o").exists()
