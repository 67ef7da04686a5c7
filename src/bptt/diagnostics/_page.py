"""One page of HTML that needs no server and no network: pictures inline, tables, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bptt.diagnostics._words import percent
from bptt.errors import BpttError
from bptt.files import is_plain, read_bytes

_MARK = b'<meta name="generator" content="bptt">'


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        text: what it says, in words.
        pictures: PNG files, each with what it shows in words.
        tables: of numbers.
    """

    title: str
    text: str = ""
    pictures: Sequence[tuple[Path, str]] = ()
    tables: Sequence[Table] = field(default_factory=tuple)


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as text.

    Raises:
        BpttError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise BpttError("the page needs Jinja2: pip install 'bptt[cli]'.") from error
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["inline"] = _inline
    return environment.from_string(source).render(title=title, sections=sections)


def is_page(path: Path) -> bool:
    """Whether a file, not one that a link leads to, is such a page."""
    try:
        return is_plain(path) and _MARK in read_bytes(path)[:1024]
    except OSError:
        return False


def is_picture(path: Path) -> bool:
    """Whether a file, not one that a link leads to, is a PNG: pages show nothing else, as what a
    stranger's folder links to may be a secret.

    Raises:
        OSError: it cannot be read; a page without it would look whole.
    """
    return is_plain(path) and read_bytes(path)[:8] == b"\x89PNG\r\n\x1a\n"


def _inline(picture: Path) -> str:
    data = base64.b64encode(read_bytes(picture)).decode("ascii")
    return f"data:image/png;base64,{data}"


def sections_of(content: dict[str, Any], folder: Path) -> list[Section]:
    """A saved diagnosis as sections: ``content`` of its JSON, pictures from ``folder``."""
    makers = {"reach": _reach, "dynamics": _dynamics, "surface": _surface, "optima": _optima}
    found = []
    for name, tables in makers.items():
        if name not in content:
            continue
        part, picture = content[name], folder / f"{name}.png"
        pictures = [(picture, f"{name}, drawn")] if is_picture(picture) else []
        said = part["verdict"]
        found.append(Section(name.capitalize(), said[0].upper() + said[1:], pictures, tables(part)))
    return found


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}".replace("-", "−")


def _reach(part: dict[str, Any]) -> list[Table]:
    rows = [
        [str(d["depth"]), percent(d["error"]), _number(d["cosine"]), _number(d["bound"])]
        for d in part["depths"]
    ]
    if not rows:
        return []
    return [
        Table(["depth", "relative error of the gradient", "cosine", "bound on the error"], rows)
    ]


def _dynamics(part: dict[str, Any]) -> list[Table]:
    exponents = part["exponents"]
    shown = exponents[:10]
    spectrum = Table(
        ["exponent", "nepers per step"],
        [[str(i), "−∞" if e is None else _number(e)] for i, e in enumerate(shown, 1)],
    )
    squashed = [
        [
            s["name"],
            s["kind"],
            str(s["units"]),
            percent(s["low"]),
            percent(s["high"]),
            percent(s["stuck"]),
        ]
        for s in part["squashed"]
    ]
    tables = [spectrum]
    if squashed:
        tables.append(
            Table(
                [
                    "function",
                    "kind",
                    "units",
                    "at the lower end",
                    "at the upper end",
                    "stuck units",
                ],
                squashed,
            )
        )
    return tables


def _surface(part: dict[str, Any]) -> list[Table]:
    values = [[f"curvature {i}", _number(v)] for i, v in enumerate(part["curvature"], 1)]
    return [Table(["", "value"], [["loss at the weights", _number(part["loss"])], *values])]


def _optima(part: dict[str, Any]) -> list[Table]:
    rows = [[str(i), _number(loss)] for i, loss in enumerate(part["losses"], 1)]
    return [Table(["start, best first", "end loss"], rows)]
