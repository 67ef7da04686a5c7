"""What the package says of itself, with the compiled core and without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import bptt
from bptt import info

NO_CORE = "import sys; sys.modules['bptt._core'] = None\n"
"""What makes Python find no core."""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )


def without_core(code: str) -> subprocess.CompletedProcess[str]:
    # Without `always` Python itself says what comes from one line once.
    return python(
        "-W",
        "always::UserWarning",
        "-c",
        f"{NO_CORE}import torch, bptt\nx = torch.randn(5, 2, 3)\n{code}",
    )


def test_info_names_version_core_threads_and_pytorch() -> None:
    core = pytest.importorskip("bptt._core")
    told = info.info()
    assert told["bptt"] == bptt.__version__
    assert told["core"].startswith("_core.")
    usable = [name for name, supported in core.variants().items() if supported]
    assert told["instruction set"] == f"{core.isa()}, of {', '.join(usable)}"
    assert told["threads"] == str(torch.get_num_threads())
    assert told["PyTorch"] == torch.__version__
    assert told["devices"].startswith("cpu")


def test_info_and_the_command_line_say_the_same() -> None:
    printed = python("-m", "bptt.info").stdout
    assert f"bptt             {bptt.__version__}\n" in printed
    assert python("-m", "bptt", "--version", "--verbose").stdout == printed
    assert python("-m", "bptt", "--verbose", "--version").stdout == printed
    assert python("-m", "bptt", "--version").stdout == f"bptt {bptt.__version__}\n"


def test_info_names_the_instruction_set_that_is_forced() -> None:
    pytest.importorskip("bptt._core")
    forced = next(iter(bptt._core.variants()))  # the slowest, which every processor has
    printed = python("-m", "bptt.info", BPTT_NATIVE_ISA=forced).stdout
    assert f"instruction set  {forced}, of" in printed


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(2): bptt.unfold(torch.nn.GRUCell(3, 4), x)",
        "for _ in range(2): bptt.nn.GRU(3, 4)(x)",
        "bptt.nn.GRU(3, 4)(x); bptt.unfold(bptt.cells.GRU(3, 4), x)",
    ],
)
def test_without_core_one_warning_says_what_to_do(code: str) -> None:
    told = without_core(code).stderr
    assert told.count("Warning: ") == 1, told
    assert told.startswith("<string>:")  # where the caller stands
    assert "The compiled core of bptt (bptt._core) is missing" in told
    assert "Install bptt from a wheel for this platform" in told


def test_without_core_nothing_is_said_where_it_is_not_used() -> None:
    done = without_core(
        "bptt.unfold(torch.nn.GRUCell(3, 4), x, backend='eager')\n"
        "from bptt import info\nprint(info.text())"
    )
    assert done.stderr == ""
    assert "core             missing" in done.stdout


def test_without_core_a_native_backend_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        without_core("bptt.unfold(torch.nn.GRUCell(3, 4), x, backend='native')")
    assert "the compiled core, which is missing" in raised.value.stderr


def test_info_says_why_a_core_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bptt._core")
    monkeypatch.setitem(sys.modules, "bptt._core", None)
    monkeypatch.delattr(bptt, "_core", raising=False)
    assert info.info()["core"].startswith("cannot be loaded: ")
