# Each target makes what it needs on first use; a second run starts at once. `make PYTHON=python3.12 ...` chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Which versions are installed: the tested ones, or those of another list of pip's.
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c $(CONSTRAINTS)
# Processes that share the tests, each in one thread.
PYTEST_WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types fuzz test-slow test-gpu test-wheel docs links audit

help:
	@echo "make demo       3D hypotheses for the person on the photo that ships with the package"
	@echo "make test       lint and the test suite"
	@echo "make lint       ruff, mypy and codespell"
	@echo "make types      pyright over the package"
	@echo "make fuzz       20,000 damaged and hostile inputs of all formats and commands (SEEDS=0:20000)"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make test-wheel the package as a wheel, used outside of the repository"
	@echo "make audit      known vulnerabilities of what is installed (asks a database on the network)"
	@echo "make docs       the documentation, tutorials run, into docs/_build/html"
	@echo "make links      whether the addresses in the documentation answer (asks each on the network)"

# torch is by far the largest download: in a step of its own, an interrupted set-up does not fetch it twice.
$(VENV)/.torch: $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV) (once) ..."
	$(PIP) torch
	@touch $@

$(VENV)/.plot: $(VENV)/.torch pyproject.toml
	@echo "installing propose_prob into $(VENV) (once) ..."
	$(PIP) -e '.[plot]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing propose_prob and its test tools into $(VENV) (once) ..."
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	@echo "installing propose_prob and what builds its documentation into $(VENV) (once) ..."
	$(PIP) -e '.[docs]'
	@touch $@

demo: $(VENV)/.plot
	$(BIN)/propose-prob demo

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell propose_prob tests docs benchmarks README.md CONTRIBUTING.md CHANGELOG.md

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

test: lint
	$(PYTEST) -n $(PYTEST_WORKERS) --dist worksteal

# SEEDS=START:STOP chooses the inputs, 20,000 of all formats and commands by default.
SEEDS ?= 0:20000
fuzz: $(VENV)/.dev
	$(PYTEST) -m fuzz --fuzz-seeds $(SEEDS) tests/fuzz

test-slow: $(VENV)/.dev
	$(PYTEST) -n $(PYTEST_WORKERS) --dist worksteal -m slow

# A wheel has all files that the package needs: what ships with it is loaded, checked and used from there.
test-wheel: $(VENV)/.dev
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir build/wheel .
	$(PIP) --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH=$(CURDIR)/build/wheel/site $(abspath $(BIN))/python -W error $(CURDIR)/tests/use_wheel.py

# Of the default suite and the slow tests, those on a GPU; without one they would all be skipped.
test-gpu: $(VENV)/.dev
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), 'there is no CUDA device'"
	$(PYTEST) -m gpu

# Of everything in the environment, tools included; docs/licences.md lists the licences.
audit: $(VENV)/.dev
	$(PIP) pip-audit
	$(BIN)/pip-audit --skip-editable

# Notebooks whose text has not changed are taken from docs/_build/notebooks.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Tutorials are read, not run: their cells have no language then.
links: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -b linkcheck -D nb_execution_mode=off \
		-D suppress_warnings=ref.python,myst-nb.lexer docs docs/_build/links
	@echo "every address answered; docs/_build/links/output.txt lists them"
