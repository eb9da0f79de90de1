# The interface of the project: `make help` lists it, CI calls the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
PYTEST := $(BIN)/python -m pytest
# What the fast tests passed on: the hash of all that they could depend on.
TESTED := $(VENV)/.tested
SOURCES := Makefile pyproject.toml constraints.txt *.md benchmarks conf docs experiments hydra_plugins sdpo_exp tests
TREE := find $(SOURCES) -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-gpu lint format ablation smoke
.PHONY: bench bench-gpu upgrade clean

help:  ## This list.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Create .venv with the pinned versions; does nothing when it is up to date.

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(STAMP)  ## Train on the embedded world: dpo, safeguard on (ARGS="objective=dmpo ...").
	$(BIN)/python -m sdpo_exp $(ARGS)

test: $(STAMP)  ## The fast tests.
	@rm -f $(TESTED)
	$(PYTEST) -n 2 -m "not slow" $(ARGS)
	@test -n "$(ARGS)" || $(TREE) > $(TESTED)

test-all: $(STAMP)  ## All tests, with those that take minutes; what `make test` has just passed is not repeated.
	@if test -s $(TESTED) && test "$$($(TREE))" = "$$(cat $(TESTED))"; then \
	  echo 'the fast tests have passed on these very files: the slow ones'; \
	  $(PYTEST) -n 2 -m slow $(ARGS); \
	else $(PYTEST) -n 2 $(ARGS); fi

test-gpu: $(STAMP)  ## The tests that need a GPU; without one they are skipped.
	$(PYTEST) -rs tests/gpu $(ARGS)

lint: $(STAMP)  ## Style, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Apply the style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ablation: $(STAMP)  ## Objective x safeguard on the embedded world, three seeds, two processes; then its report.
	@$(BIN)/python -m sdpo_exp experiment=sweep_objective_safeguard name=ablation \
	  hydra/launcher=joblib hydra.launcher.n_jobs=2 $(ARGS); status=$$?; \
	$(BIN)/python -m sdpo_exp.report outputs/ablation title='Objective x safeguard' && exit $$status

smoke: $(STAMP)  ## A training run of a few seconds, end to end.
	$(BIN)/python -m sdpo_exp experiment=smoke $(ARGS)

bench: $(STAMP)  ## Step time and peak memory of SD 1.5 and SDXL at full size; needs a GPU.
	$(BIN)/python benchmarks/step_time.py --model sd15 --micro-batch 4
	$(BIN)/python benchmarks/step_time.py --model sdxl --micro-batch 1

bench-gpu: $(STAMP)  ## Full-size steps on a GPU, and their share of its ceiling: eight minutes.
	$(BIN)/python benchmarks/gpu.py $(ARGS)

upgrade:  ## Take the newest versions that pyproject.toml allows and pin them.
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -e '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable --local | grep -v ' @ ' > constraints.txt
	@touch $(STAMP)

clean:  ## Remove caches and build products; outputs/ and .venv stay.
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
