# Two commands: `make demo` transcribes real speech, `make test` runs the fast tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
AUDIO ?=
ARGS ?=

.PHONY: help demo recipe test test-all check format bench docs clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## transcribe the demo's recordings, or AUDIO="a.mp3 b.wav"
	$(BIN)/batched-whisper demo $(AUDIO)

recipe: $(VENV)/.recipe  ## the recipe of deploy/modal without Modal; AUDIO="folder or dataset"
	$(BIN)/python deploy/modal/batched_whisper.py --local $(AUDIO) $(ARGS)

test: $(VENV)/.dev  ## run the fast tests, in less than a minute; ARGS="tests/batching -k queue"
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(ARGS)

test-all: $(VENV)/.dev  ## run every test, with all examples of Hypothesis
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/.dev  ## formatter, linter, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_words.py

format: $(VENV)/.dev  ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## measure on this machine, side by side; ARGS="--quick"
	$(BIN)/python -m benchmarks.batching $(ARGS)
	$(BIN)/python -m benchmarks.compare $(ARGS)

docs: $(VENV)/.dev  ## make the generated pages of docs/ and the benchmark tables
	$(BIN)/python scripts/make_settings_page.py
	$(BIN)/python scripts/make_cli_page.py
	$(BIN)/python scripts/make_api_page.py
	$(BIN)/python -m benchmarks.page

clean:  ## remove what was made here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.recipe: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[demo,modal]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo
