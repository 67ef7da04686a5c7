"""What `make wheel` leaves installs without a compiler, and computes what the source build does.

The wheel is installed with all its dependencies into an environment of its own; then, into the same
one, the sdist. Numbers are compared bit for bit.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bptt import __version__ as VERSION
from bptt import _core

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "tests" / "wheels" / "core_numbers.py"
WHEEL = f"bptt-*-{'cp311-cp311' if sys.version_info < (3, 12) else 'cp312-abi3'}-*.whl"
"""The name of the wheel for this Python."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="make wheel makes Linux's"),
]


def run(*words: str | Path, path: str | Path, into: Path, **more: str) -> str:
    """What a command prints that finds its programs in ``path`` alone, outside of the checkout."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "BPTT_", "VIRTUAL_ENV")) and name not in ("CC", "CXX")
    }
    done = subprocess.run(
        [str(word) for word in words],
        cwd=into,
        env=environment | {"PATH": str(path), "OMP_NUM_THREADS": "1"} | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def dist() -> Path:
    """What `make wheel` left; made now if it is older than what it is made of."""
    made = ROOT / "dist"
    parts = ["native", "src", "CMakeLists.txt", "pyproject.toml"]
    tracked = subprocess.check_output(["git", "ls-files", *parts], cwd=ROOT, text=True).split()
    changed = max((ROOT / name).stat().st_mtime for name in tracked)
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "wheel.lock", "w") as lock:  # each worker of pytest comes here
        fcntl.flock(lock, fcntl.LOCK_EX)
        wheel = newest(made, WHEEL)
        if wheel is None or wheel.stat().st_mtime < changed:
            base = Path(sys.base_prefix) / "bin" / "python3"
            subprocess.run(["make", "wheel", f"PYTHON={base}"], cwd=ROOT, check=True)
    return made


def newest(folder: Path, pattern: str) -> Path | None:
    """The file made last, of those with such a name."""
    return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime, default=None)


@pytest.fixture(scope="session")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment into which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    programs = folder / "env" / "bin"
    wheel = newest(dist, WHEEL)
    pip = [programs / "python", "-m", "pip", "install", "--quiet"]
    run(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[cli]", path=programs, into=folder)
    return programs


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The numbers of the source build, and its run."""
    folder = tmp_path_factory.mktemp("source")
    source = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = os.environ["PATH"]
    run(sys.executable, NUMBERS, "numbers.npz", path=path, into=folder, **source)
    fit = [sys.executable, "-m", "bptt", "fit", "--epochs", "3", "--out", "run"]
    run(*fit, path=path, into=folder, **source)
    return folder


def assert_same(found: Path, expected: Path, isa: tuple[str, str] = ("", "")) -> None:
    """All that was found is as expected, bit for bit; of an instruction set under another name."""
    a, b = np.load(found), np.load(expected)
    assert a.files
    for name in a.files:
        other = b[name.replace(*isa, 1)]
        assert a[name].dtype == other.dtype, name
        assert a[name].tobytes() == other.tobytes(), name


def assert_as_ours(programs: Path, folder: Path, ours: Path) -> None:
    """An installed package does the main job, and gives the numbers of the source build."""
    told = run(programs / "python", "-m", "bptt.info", path=programs, into=folder)
    assert re.search(rf"instruction set +{_core.isa()}\b", told), told
    run(programs / "python", NUMBERS, "numbers.npz", path=programs, into=folder)
    assert np.load(folder / "numbers.npz").files == np.load(ours / "numbers.npz").files
    assert_same(folder / "numbers.npz", ours / "numbers.npz")
    run(programs / "bptt", "fit", "--epochs", "3", "--out", "run", path=programs, into=folder)
    weights = "run/model.safetensors"
    assert (folder / weights).read_bytes() == (ours / weights).read_bytes()


def test_the_wheel(environment: Path, ours: Path, tmp_path: Path) -> None:
    assert shutil.which("c++", path=str(environment)) is None
    assert_as_ours(environment, tmp_path, ours)


def test_the_sdist(dist: Path, environment: Path, ours: Path, tmp_path: Path) -> None:
    pip = [environment / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
    source = newest(dist, "bptt-*.tar.gz")
    assert source is not None
    path = f"{environment}:{os.environ['PATH']}"
    run(*pip, "--force-reinstall", source, path=path, into=tmp_path, BPTT_REQUIRE_NATIVE="1")
    assert_as_ours(environment, tmp_path, ours)


def test_without_vector_extensions(dist: Path, ours: Path, tmp_path: Path) -> None:
    """What MSVC compiles, here by the compiler at hand: the numbers of the SSE2 baseline."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path]
    portable = ["-C", "cmake.define.BPTT_PORTABLE=ON"]
    source = newest(dist, "bptt-*.tar.gz")
    assert source is not None
    path = os.environ["PATH"]
    run(*pip, *portable, source, path=path, into=tmp_path, BPTT_REQUIRE_NATIVE="1")
    core = next((tmp_path / "bptt").glob("_core.*.so"))
    run(sys.executable, NUMBERS, "portable.npz", core, path=path, into=tmp_path)
    assert_same(tmp_path / "portable.npz", ours / "numbers.npz", ("portable: ", "baseline: "))


def test_without_a_compiler(tmp_path: Path) -> None:
    """The sources make a package without the core, unless the core is demanded."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    more = {"path": os.environ["PATH"], "into": tmp_path, "CXX": "/bin/false"}
    run(*pip, **more)
    assert [file.name for file in tmp_path.glob("*.whl")] == [f"bptt-{VERSION}-py3-none-any.whl"]
    with pytest.raises(AssertionError, match="CMake configuration failed"):
        run(*pip, **more, BPTT_REQUIRE_NATIVE="1")


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_the_wheel_for_later_pythons(minor: int, ours: Path, tmp_path: Path) -> None:
    """The core alone: PyTorch is large, and need not be there for every Python."""
    wheel = newest(ROOT / "dist", "bptt-*-cp312-abi3-*.whl")
    python = later_python(minor)
    if wheel is None or python is None:
        pytest.skip("needs `make wheel PYTHON=python3.12`, and that Python")
    subprocess.run([python, "-m", "venv", "env"], cwd=tmp_path, check=True)
    programs = tmp_path / "env" / "bin"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "numpy"]
    run(*pip, path=programs, into=tmp_path)
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    core = next((tmp_path / "bptt").glob("_core.abi3.so"))
    run(programs / "python", NUMBERS, "numbers.npz", core, path=programs, into=tmp_path)
    assert_same(tmp_path / "numbers.npz", ours / "numbers.npz")


def later_python(minor: int) -> str | None:
    """A Python 3.minor that runs."""
    found = shutil.which(f"python3.{minor}")
    works = found and subprocess.run([found, "--version"], capture_output=True).returncode == 0
    return found if works else None
