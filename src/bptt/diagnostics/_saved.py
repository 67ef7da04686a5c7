"""A diagnosis on disk: which files in a folder are its own, by its own word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bptt import files
from bptt.diagnostics._page import is_page
from bptt.errors import BpttError, OptionError
from bptt.files import shown

PARTS = ("reach", "dynamics", "surface")
JSON, HTML = "diagnosis.json", "diagnosis.html"


def names(parts: Iterable[str]) -> set[str]:
    """The files of a diagnosis that has these parts."""
    return {JSON, HTML, *(f"{part}.png" for part in parts)}


def owned(folder: Path) -> set[str]:
    """The files in ``folder`` that belong to a diagnosis: its numbers name its pictures, and its
    page has a mark. A link belongs to none, as what it leads to is another's."""
    try:
        content = files.json_object(files.read_bytes(folder / JSON))
    except (OSError, ValueError, BpttError):
        content = {}
    found = {HTML} if is_page(folder / HTML) else set()
    if {"cell", "steps"} <= content.keys():
        found |= names(part for part in (*PARTS, "optima") if part in content) - {HTML}
    return {name for name in found if files.is_plain(folder / name)}


def check_place(folder: Path, parts: Iterable[str]) -> None:
    """Refuse to put a diagnosis with ``parts`` in the place of what belongs to none.

    Raises:
        OptionError: a file of the name of one of a diagnosis is there and none lists it; or
            ``folder`` is no folder, or cannot be written.
    """
    files.check_writable(folder)
    if folder.is_symlink():
        raise OptionError(f"{shown(folder)} is a link, which leads to another's: remove it.")
    strange = sorted(n for n in names(parts) - owned(folder) if os.path.lexists(folder / n))
    if strange:
        raise OptionError(
            f"{shown(folder)} holds {', '.join(strange)}, which no diagnosis there lists as its "
            "own: move it away."
        )
