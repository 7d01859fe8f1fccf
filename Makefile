# One command does all the set-up: a virtual environment of the project's own, made on demand.
# `make help` lists the targets. Another Python: `make test PYTHON=python3.12` (the environment is made anew).

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
INSTALLED := $(VENV)/installed-$(VERSION)
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help venv demo lint check test quick test-long clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

$(INSTALLED): setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"objstore needs Python 3.11 or newer, $(PYTHON) is $(VERSION): make ... PYTHON=python3.12")'
	@echo "Installing into $(VENV) with Python $(VERSION) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $@

venv: $(INSTALLED) ## make the virtual environment

demo: $(INSTALLED) ## index the standard library into a store, change it, undo, look into the past, pack
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/demo.py

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## lint, the floors test, and the code blocks of README and docs
	$(PYTEST) tests/test_floors.py tests/test_docs.py $(PYTEST_ARGS)

test: lint ## check, and all tests but the long ones (minutes)
	$(PYTEST) -n $(JOBS) $(PYTEST_ARGS)

quick: $(INSTALLED) ## the tests without lint, and without the slowest: for a look at another Python
	$(PYTEST) -n $(JOBS) -k 'not crash and not kill and not docs and not benchmarks' $(PYTEST_ARGS)

test-long: $(INSTALLED) ## the long tests only (half an hour)
	$(PYTEST) -n $(JOBS) -m long $(PYTEST_ARGS)

clean: ## remove the virtual environment, caches and builds
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
