PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
LOWEST := .venv-lowest
FEW_CASES := --hypothesis-profile quick
QUICK := -m "not slow and not gpu" $(FEW_CASES)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto
DONE := $(VENV)/.installed
# The tests start many processes, each of which would compile the code anew:
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-quick fuzz check coverage test-lowest benchmarks-report docs install audit build clean

## Fit, distil and measure on real digits; writes d3hr-demo/ (4 to 10 minutes on 2 cores).
demo: install
	$(BIN)/d3hr demo --out d3hr-demo

## Style, types and all tests, with a tenth of the fuzzing; one process a core, one thread each (about 5 minutes on 2 cores).
test: check
	$(PYTEST) $(FEW_CASES)

## The same without what computes for long (about 90 seconds).
test-quick: check
	$(PYTEST) $(QUICK)

## All of the fuzzing: hostile folders, files, settings and command lines (about a minute).
fuzz: install
	$(PYTEST) tests/faults/test_fuzz_*.py

## Style and types.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Which lines the tests run; apart from `make test`, since measuring takes half as long again.
coverage: install
	$(PYTEST) --cov --cov-report term

## The quick tests with the lowest versions that pyproject.toml allows, whose warnings are no errors.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses auto $(QUICK) -o filterwarnings= --disable-warnings \
		--ignore tests/report/test_browser.py --ignore tests/test_site.py --ignore tests/test_architecture.py

$(LOWEST)/.installed: pyproject.toml constraints.txt scripts/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) scripts/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/lowest.txt '.[lora]'
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pytest pytest-timeout pytest-xdist hypothesis
	touch $@

## Write docs/results.md and its plots anew from benchmarks/results.
benchmarks-report: install
	$(BIN)/python -m benchmarks.report

## Build the documentation site; site/index.html opens from the disk.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

## Set up .venv with the tested versions.
install: $(DONE)

$(DONE): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "d3hr needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $(DONE)

## Known vulnerabilities of the tested versions; says so where the advisories cannot be reached. No condition of the tests.
audit: $(AUDIT)/bin/pip-audit
	$(AUDIT)/bin/python scripts/audit.py constraints.txt

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit

## Source archive and wheel in dist/.
build: install
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) $(AUDIT) $(LOWEST) build dist site .mypy_cache .pytest_cache .ruff_cache
