# make demo | test | install | lint | docs | bench — each does its own set-up, in any order, as often as you like.
# Needs Python 3.11 or newer and make, nothing else.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
OPTIONS ?=

.PHONY: help install demo test lint docs bench
.DEFAULT_GOAL := help

help:
	@echo 'make demo     train a small Korean-English translator in about 3 minutes, and look inside'
	@echo 'make test     run the tests                       (OPTIONS="-k look" passes words to pytest)'
	@echo 'make install  make .venv with everything for development'
	@echo 'make lint     ruff and mypy'
	@echo 'make docs     run the examples of README.md and docs/'
	@echo 'make bench    the benchmarks of bench/            (minutes to hours; docs/results.md)'

install: $(STAMP)

# The stamp is the pyproject.toml that was installed: a touched file costs nothing, a changed one installs again.
$(STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo 'error: no Python 3.11 or newer found - install one, or give make PYTHON=/path/to/python3' >&2; exit 3; fi
	@if cmp -s pyproject.toml $(STAMP) && [ -x $(PY) ]; then touch $(STAMP); else \
	  { $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); } && \
	  $(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' && \
	  cp pyproject.toml $(STAMP) && touch $(STAMP); fi

demo: $(STAMP)
	@$(VENV)/bin/qkv demo $(OPTIONS)

test: $(STAMP)
	@$(PY) -m pytest $(OPTIONS)

lint: $(STAMP)
	@$(PY) -m ruff check src tests bench
	@$(PY) -m mypy

docs: $(STAMP)
	@$(PY) -m pytest tests/test_docs.py $(OPTIONS)

bench: $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@set -e; for b in bench/*.py; do [ -e "$$b" ] || continue; echo "== $$b"; $(PY) $$b $(OPTIONS); done
