# Thin wraps of the commands in BUILD.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo install install-dev targets check test

demo: install
	$(BIN)/python -m experiments.digits demo --out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

install: .venv/installed
install-dev: .venv/installed-dev

targets: .venv/installed-dev
	tools/targets.sh $(BIN)/python

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	@echo 'installing into .venv, mostly TensorFlow: a minute or two'
	$(BIN)/python -m pip install --quiet --editable '.[mcu]'
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	@echo 'installing into .venv, mostly TensorFlow: a minute or two'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

test: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile
