# Everything runs in a virtual environment that `make venv` makes and `make` keeps up to date.
PYTHON ?= python3
VENV ?= .venv
DEMO_STEPS ?= 5000
PYTEST_WORKERS ?= 2

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Exact versions of every package for this Python, if the repository has them.
CONSTRAINTS := $(wildcard constraints-$(VERSION).txt)
STAMP := $(VENV)/.installed-$(VERSION)
PYTEST := $(BIN)/python -m pytest

.PHONY: help venv demo results test lint format
.DEFAULT_GOAL := help

help:
	@echo 'make demo       GEM-BML+ on the default sinusoid, $(DEMO_STEPS) meta-steps, into runs/demo'
	@echo 'make results    every run of the results table, then the tables and figures (hours)'
	@echo 'make test       the tests, without those marked slow or gpu'
	@echo 'make lint       ruff and pyright'
	@echo 'make format     let ruff rewrite the files'
	@echo 'make venv       only the virtual environment, $(VENV) (PYTHON=python3.12 takes another Python)'

venv: $(STAMP)

$(STAMP): Makefile pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: Python 3.11 or later is needed; name one with PYTHON=' >&2; exit 2; }
	@test -n '$(CONSTRAINTS)' \
		|| echo 'No constraints-$(VERSION).txt: installing the newest versions that pyproject.toml allows.'
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)" = '$(VERSION)' \
		|| $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $(addprefix -c ,$(CONSTRAINTS)) -e '.[data,rl,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m experiments.sinusoid --algorithm=gem_bml_plus --setting=default \
		--meta_steps=$(DEMO_STEPS) --workdir=runs/demo

results: $(STAMP)
	PYTHON=$(BIN)/python experiments/table.sh

test: $(STAMP)
	$(PYTEST) -n $(PYTEST_WORKERS) --dist loadfile -m 'not slow and not gpu'

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
