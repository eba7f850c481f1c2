# Everything a person or CI does here. `make run` and `make test` do all the set-up.
PYTHON ?= python3
PIPELINE ?= digits
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run ui install test test-parts lint chromium screenshots bench faults clean

run: install  ## run a whole pipeline: make run PIPELINE=mnist
	@$(BIN)/gan-foundry run $(PIPELINE)

ui: install  ## Dagster's and MLflow's pages on this machine
	@exec $(BIN)/gan-foundry ui

install: .venv/installed  ## make .venv and install the program

# Two tests at a time, each on one core. The longest begin first; the second makes the run that
# others look at.
LONGEST := tests/browser/test_pages.py tests/e2e/test_consumers.py tests/e2e/test_mirror.py \
  tests/faults/test_killed_run.py tests/faults/test_operation.py
OF_WHOLE_RUNS := $(wildcard tests/browser/test_*.py tests/e2e/test_*.py tests/faults/test_*.py)

test: .venv/installed-dev  ## all that CI runs
	@$(MAKE) --no-print-directory --jobs 3 lint chromium test-parts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  $(LONGEST) $(filter-out $(LONGEST),$(OF_WHOLE_RUNS))

test-parts: .venv/installed-dev  # those that start no whole pipeline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile \
	  tests/gan_core tests/pipelines tests/benchmarks

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chromium:  # the distribution's browser, for tests/browser
	@command -v chromium > /dev/null || { \
	  echo "installing chromium …"; \
	  if [ $$(id -u) = 0 ]; then run=; else run="sudo --non-interactive"; fi; \
	  $$run apt-get update --quiet=2 && $$run apt-get install --yes --quiet=2 chromium > /dev/null; } || \
	  { echo "error: chromium cannot be installed; apt-get install chromium" >&2; exit 1; }

screenshots: .venv/installed-dev chromium  ## the pictures of the README, from a run in a fresh home
	$(BIN)/python -m tests.browser.screenshots

bench: .venv/installed-dev  ## measurements, written to benchmarks/results
	for name in first_run training_speed kernel_limits weight_gradients \
	    thread_waiting training_overhead stopping redrawn_floor sample_draws evaluation_speed \
	    evaluation_table peers stacked_mnist; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; done

faults: .venv/installed-dev  ## the fault tests in their long form
	GAN_FOUNDRY_FAULTS=long $(BIN)/python -m pytest tests/faults

clean:  ## remove what was installed; what was trained stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/python: 
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name a newer one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "error: $(PYTHON) cannot make .venv; apt-get install python3-venv" >&2; exit 1; }
	@touch $@

.venv/installed: pyproject.toml constraints.txt | .venv/python
	@echo "installing into .venv (a few minutes the first time) …"
	@$(PIP_INSTALL) --editable '.[pipelines]'
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/python
	@echo "installing into .venv, with what tests need (a few minutes the first time) …"
	@$(PIP_INSTALL) --editable '.[pipelines,dev]'
	@touch .venv/installed $@
