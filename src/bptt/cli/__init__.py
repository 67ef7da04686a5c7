"""The command line: `bptt fit` and `bptt predict`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

_NEEDED = ("typer", "rich", "pyarrow", "matplotlib")


def main() -> None:
    """Run the command line; without what it needs, say how to install it."""
    from importlib.util import find_spec

    absent = [name for name in _NEEDED if find_spec(name) is None]
    if absent:
        print(
            f"The command line needs {', '.join(absent)}. Install it with\n\n"
            "    pip install 'bptt[cli]'\n",
            file=sys.stderr,
        )
        raise SystemExit(2)
    prepared()(prog_name="bptt")


def prepared() -> Callable[..., None]:
    """The application, in a process that is its own: signals and warnings are told in one line, and
    what cannot be shown is dropped."""
    from bptt import _ending, files
    from bptt.cli._app import app
    from bptt.cli._output import lasting
    from bptt.cli._show import warn

    _ending.open_all()
    lasting()
    _ending.take()
    _ending.before.append(files.discard_unfinished)
    warnings.showwarning = warn
    return app
