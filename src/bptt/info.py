"""What is installed: ``python -m bptt.info`` prints it, for a report of an error or of speed."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from bptt.engine.runtime.compile_cache import core_missing


def info() -> dict[str, str]:
    """Version, core, instruction set, threads, Python, PyTorch and devices, by name."""
    from bptt import __version__

    return {
        "bptt": __version__,
        **_core(),
        "threads": str(torch.get_num_threads()),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "PyTorch": str(torch.__version__),
        "devices": ", ".join(_devices()),
    }


def text() -> str:
    """The same as lines."""
    found = info()
    widest = max(map(len, found))
    return "\n".join(f"{name:<{widest}}  {value}" for name, value in found.items())


def _core() -> dict[str, str]:
    if core_missing() is not None:
        return {"core": "missing: recurrences run in PyTorch", "instruction set": "none"}
    try:
        from bptt import _core
    except ImportError as error:
        return {"core": f"cannot be loaded: {error}", "instruction set": "none"}
    usable = [name for name, supported in _core.variants().items() if supported]
    file = _core.__file__
    assert file is not None
    return {
        "core": Path(file).name,
        "instruction set": f"{_core.isa()}, of {', '.join(usable)}",
    }


def _devices() -> list[str]:
    found = ["cpu"]
    for i in range(torch.cuda.device_count()):
        found.append(f"cuda:{i} ({torch.cuda.get_device_name(i)})")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


if __name__ == "__main__":
    print(text())
