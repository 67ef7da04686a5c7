"""``python -m tests.cuda``: every scenario on a device, beside the CPU.

    PYTHONPATH=src python -m tests.cuda cuda:0        # on a machine with a GPU
    PYTHONPATH=src python -m tests.cuda pretend:0     # on any machine

It needs Python, PyTorch and what bptt itself needs (NumPy, safetensors, tqdm); the core need not be
compiled, nor pytest be there. A line for each scenario; the exit status tells whether all are well.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings

import torch
from tests.cuda import pretend
from tests.cuda.scenarios import SCENARIOS, differ

TOLERANCE = 1e-7
"""Of numbers in double precision: devices add in other orders."""


def run(name: str, device: torch.device) -> str | None:
    """What is wrong with a scenario on a device; None if nothing is."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = SCENARIOS[name](device)
            expected = SCENARIOS[name](torch.device("cpu"))
    except Exception:
        return traceback.format_exc()
    return differ(found, expected, TOLERANCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", nargs="?", default="cuda:0")
    parser.add_argument("names", nargs="*", help="of scenarios; default: all")
    given = parser.parse_args()
    if given.device.startswith(pretend.NAME):
        device = pretend.install()
    else:
        device = torch.device(given.device)
        print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name(device)}")
    failed = 0
    for name in given.names or SCENARIOS:
        began = time.perf_counter()
        wrong = run(name, device)
        failed += wrong is not None
        seconds = time.perf_counter() - began
        print(f"{'ok    ' if wrong is None else 'FAILED'} {name} ({seconds:.1f} s)", flush=True)
        if wrong is not None:
            print("\n".join(f"    {line}" for line in wrong.rstrip().splitlines()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
