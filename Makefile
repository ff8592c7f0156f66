# `make run` and `make test` install what they need into .venv first, and again only when the pins have changed.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# What builds the images: the first of these that is there and works.
BUILDER ?= $(firstword $(foreach tool,docker podman buildah,$(shell $(tool) info >/dev/null 2>&1 && echo $(tool))))
# Passed on to it, such as --build-arg and --secret.
IMAGE_OPTIONS ?=

.PHONY: run test check format clean image image-test

run: $(INSTALLED)  ## photographs -> a searched, trained, folded, exported and verified network in runs/default
	$(BIN)/sr-pipeline run --set search.steps=1600

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

image:  ## the images sr-pipeline and sr-pipeline-runtime, with docker, podman or buildah
	@test -n "$(BUILDER)" || { echo "make image needs docker, podman or buildah, and none of them works here" >&2; exit 1; }
	$(BUILDER) build $(IMAGE_OPTIONS) --target pipeline --tag sr-pipeline .
	$(BUILDER) build $(IMAGE_OPTIONS) --target runtime --tag sr-pipeline-runtime .

image-test: $(INSTALLED)  ## builds and uses both images; needs root, buildah and debootstrap, and takes about ten minutes
	$(BIN)/pytest -m image

clean:  ## removes .venv and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv; the first time takes a few minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
