# Every target works from a fresh clone: it makes its own virtual environment first, once.
#
#   make setup PYTHON=python3.12                        another Python (3.11 or newer)
#   make setup VENV_FLAGS=--system-site-packages        use the torch that PYTHON can already import
#   make setup TORCH="torch==2.12.0 --index-url URL"    another torch (any of pip's arguments)
#
# A torch that the environment can already import is never replaced.

VENV ?= .venv
VENV_FLAGS ?=
CONSTRAINTS ?= constraints.txt
TORCH ?= $(shell grep '^torch==' $(CONSTRAINTS))
PYTHON ?= $(shell for one in python3.11 python3.12 python3.13 python3.14 python3; do \
	if $$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$one; break; fi; done)

BIN := $(VENV)/bin
# Python compiles what it imports; to compile all of torch here would take as long as the rest of its installation.
INSTALL := python -m pip --quiet --quiet --disable-pip-version-check install --no-compile
CODE := src tests benchmarks docs/_tools
PYTEST_FLAGS ?= --numprocesses auto
UNIT_FLAGS ?=
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-test setup-dev demo test unit check format results docs bench test-lowest clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | sort | \
		awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# --- environments -----------------------------------------------------------------------------------

setup: $(VENV)/.installed  ## conseq and what it needs, in .venv
setup-test: $(VENV)/.installed-test
setup-dev: $(VENV)/.installed-dev  ## the same with the tools of test, check and docs

# The versions to install: the tested set, but for the torch that is there already.
$(VENV)/constraints.txt: pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "conseq needs Python 3.11 or newer and found none on the PATH;" \
		"install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "conseq needs Python 3.11 or newer;" \
		"$(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "setup: making $(VENV) with $$($(PYTHON) -V)"; \
		$(PYTHON) -m venv $(VENV_FLAGS) $(VENV); }
	@sed '/^torch==/d' $(CONSTRAINTS) > $(VENV)/others.txt
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo "setup: installing $(TORCH)"; \
		$(BIN)/$(INSTALL) $(TORCH) -c $(VENV)/others.txt; }
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' \
		> $(VENV)/torch.txt
	@cat $(VENV)/others.txt $(VENV)/torch.txt > $@

$(VENV)/.installed: $(VENV)/constraints.txt
	@echo "setup: installing conseq"
	@$(BIN)/$(INSTALL) -e . -c $<
	@touch $@

$(VENV)/.installed-test: $(VENV)/constraints.txt
	@echo "setup: installing conseq and the test tools"
	@$(BIN)/$(INSTALL) -e '.[test]' -c $<
	@touch $@

$(VENV)/.installed-dev: $(VENV)/constraints.txt
	@echo "setup: installing conseq and the tools of test, check and docs"
	@$(BIN)/$(INSTALL) -e '.[dev,docs]' -c $<
	@touch $@

# Apart, because pydoclint's fork of docstring_parser writes over the one that tyro needs.
$(BIN)/pydoclint: $(VENV)/.installed-dev
	@$(BIN)/python -m venv $(VENV)/pydoclint
	@$(VENV)/pydoclint/bin/$(INSTALL) pydoclint -c $(VENV)/constraints.txt
	@ln -sf ../pydoclint/bin/pydoclint $@ && touch $@

# --- what users run ---------------------------------------------------------------------------------

demo: setup  ## train, judge and recommend on a built-in synthetic log
	@$(BIN)/conseq demo

test: setup-dev  ## every test; those on real logs where ../shared holds them
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

unit: setup-test  ## the tests that take a moment
	$(BIN)/python -m pytest -m 'not slow and not real_data' $(UNIT_FLAGS) $(PYTEST_FLAGS)

bench: setup-test  ## speed and memory; BENCH="--only NAME" for some of them
	$(BIN)/python benchmarks/run.py $(BENCH)

# --- what developers run ----------------------------------------------------------------------------

check: setup-dev $(BIN)/pydoclint  ## format, lint, types, import order, docstrings, spelling
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pydoclint --quiet --config=pyproject.toml src
	$(BIN)/codespell

format: setup-dev  ## let ruff rewrite the code
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

results: setup-dev  ## write docs/results.md from the records
	$(BIN)/python docs/_tools/results.py

docs: setup-dev  ## build the documentation into site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The contracts of methods and encoders are tensors throughout, and torch is the one package that is not lowered.
test-lowest:  ## the unit tests but for the contracts with the lowest supported versions, in a second environment
	$(MAKE) --no-print-directory unit VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt \
		UNIT_FLAGS=--ignore=tests/test_contracts.py

clean:  ## remove what was built, but not the environments
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the environments too
	rm -rf .venv .venv-lowest
