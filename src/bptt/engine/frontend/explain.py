"""Why a step could not be captured, in the words of this library."""

from __future__ import annotations

import re

from bptt.engine.reasons import Reason, Refusal, line_of_error


def refusal_in(error: BaseException) -> Refusal:
    """Why a step could not be captured, in the words of this library."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refusal):
            return cause
        cause = cause.__cause__ or getattr(cause, "inner_exception", None)
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    text = str(error).lower()
    changed = re.search(r"check: \[(.*)\]", first)
    if changed is not None:
        places = re.findall(r"\"(.*?)\"", changed[1].replace("L['cell']", "the cell"))
        return Refusal(Reason.MUTATION, ", ".join(places), _place(error))
    if "data-dependent" in text or "guardondatadependent" in text:
        reason = Reason.CONTROL_FLOW
    elif "side effect" in text or "mutat" in text or "in-place" in text:
        reason = Reason.MUTATION
    elif "random" in text:
        reason = Reason.RANDOMNESS
    else:
        reason = Reason.UNTRACEABLE
    return Refusal(reason, first, _place(error))


_USER = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


def _place(error: BaseException) -> str | None:
    """The innermost line of the user's own code that Dynamo names."""
    marker = "from user code:"
    text = str(error)
    found = _USER.findall(text[text.index(marker) :]) if marker in text else []
    own = [(f, n) for f, n, _ in found if "bptt/engine" not in f and "/torch/" not in f]
    return f"{own[-1][0]}:{own[-1][1]}" if own else line_of_error(error)
