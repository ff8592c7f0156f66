# `make run` and `make test` install what they need into .venv first, and again only when the pins have changed.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: run test check format clean

run: $(INSTALLED)  ## photographs -> a searched, trained, folded, exported and verified network in runs/default
	$(BIN)/sr-pipeline run --set search.steps=2400

test: check  ## lint, types, contracts, tests with coverage
	$(BIN)/pytest --cov

check: $(INSTALLED)  ## lint, types, contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)  ## rewrites the code in the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## removes .venv and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv; the first time takes a few minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
