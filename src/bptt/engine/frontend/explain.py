"""Why a step could not be captured, in the words of this library."""

from __future__ import annotations

import re

from bptt.engine.unsupported import Reason, Refusal, line_of_error, line_of_trace


def refusal_in(error: BaseException) -> Refusal:
    """Why a step could not be captured, in the words of this library."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refusal):
            return cause
        cause = cause.__cause__ or getattr(cause, "inner_exception", None)
    if type(error).__name__ == "BackendCompilerFailed":  # that is what reads the graph
        return Refusal(Reason.UNEXPECTED, f"{type(error).__name__}: {error}", _place(error))
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    # Paths and lines of the user's own code may hold any word.
    text = _PATH.sub("", str(error).partition("from user code:")[0]).lower()
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


_PATH = re.compile(r"\S*/\S*")


def _place(error: BaseException) -> str | None:
    """The innermost line of the user's own code that Dynamo names."""
    code = str(error).partition("from user code:")[2]
    return line_of_trace(code) or line_of_error(error)
