"""The page shows the lines that the scripts run; what they need is not installed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from .__main__ import ORDER, PAGE, lines_of

FOLDER = Path(__file__).parent


def test_every_script_is_in_the_order() -> None:
    scripts = {path.stem.removeprefix("with_") for path in FOLDER.glob("with_*.py")}
    assert scripts == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_the_page_shows_the_lines(name: str) -> None:
    page = (FOLDER.parent.parent / PAGE).read_text()
    assert f"```python\n{lines_of(name)}\n```" in page
