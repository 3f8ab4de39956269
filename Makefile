PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
DONE := $(VENV)/.installed

.PHONY: demo test benchmarks-report install audit build clean

## Fit, distil and measure on real digits; writes d3hr-demo/ (4 to 10 minutes on 2 cores).
demo: install
	$(BIN)/d3hr demo --out d3hr-demo

## Style, types and tests; one process a core, one thread each.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

## Write docs/results.md and its plots anew from benchmarks/results.
benchmarks-report: install
	$(BIN)/python -m benchmarks.report

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
	rm -rf $(VENV) $(AUDIT) build dist .mypy_cache .pytest_cache .ruff_cache
