# One vocabulary for work. `make` alone prints it. Needs Python 3.11 or newer, git and make; writes into this folder only.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix docs bench soak lint unit
MAKEFLAGS += --no-print-directory

# Whoever has these set wants them for other work: without bytecode every start compiles every module again.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV COVERAGE_FILE

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PYTEST := $(BIN)/python -m pytest -q --no-header
# No plugin but the one that ends what hangs: the others' start takes longer than most unit tests together.
PLAIN := --disable-plugin-autoload -p pytest_timeout
# The first worker that is done takes of the others' rest; what is left together shares its module's daemon.
PARALLEL := -n auto --dist worksteal
# Where a test belongs says CONTRIBUTING.md. What covers core and engine, or has slow tests: all but e2e and soak.
PARTS := $(addprefix tests/,unit properties stories contract integration)
# A `python3` on the path may be a shim for nothing, or lack venv: only one that really runs will do.
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3 python

help: ## what can be typed
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

setup: $(READY) ## install everything, locked by hash, into .venv

$(READY): requirements.lock pyproject.toml
	@if ! $(BIN)/python -c '$(FITS)' 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if $$python -c '$(FITS)' 2>/dev/null; then break; fi; python=; \
	  done; \
	  [ -n "$$python" ] || { echo 'make setup: no Python 3.11 or newer with venv found; name one: make setup PYTHON=...' >&2; exit 2; }; \
	  echo "setup: $$($$python -V) in .venv" >&2; \
	  $$python -m venv --clear .venv; \
	fi
	@echo 'setup: installing what requirements.lock names, a minute or two the first time' >&2
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@mkdir -p .cache && touch $@

demo: setup ## the whole story on real parts, in minutes; KEEP=1 leaves it running
	@$(BIN)/branchline demo $(if $(KEEP),--keep)

test: setup lint unit ## everything that must hold: lint, unit, then all other tests
	@echo '— core and engine, every branch: unit, properties, stories, contract, integration'
	@$(PYTEST) $(PARALLEL) -m 'not slow' $(PARTS) --cov --cov-report= --no-cov-on-fail
	@$(BIN)/coverage report --fail-under=100
	@echo '— every scenario, every kill, every command'
	@$(PYTEST) $(PARALLEL) -m slow $(PARTS)
	@$(PYTEST) $(PARALLEL) tests/e2e

check: setup lint unit ## lint, unit tests, properties and stories, in seconds
	@echo '— properties and stories'
	@$(PYTEST) $(PARALLEL) -m 'not slow' tests/properties tests/stories

fix: setup ## repair and format what ruff can
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

docs: setup ## write again what the pages print from the code
	@$(PYTEST) -m printed --write-docs

bench: setup ## every figure that is claimed, one file after another
	@for script in bench/[!_]*.py; do [ ! -e "$$script" ] || { echo "— $$script"; $(BIN)/python "$$script" || exit 1; }; done

soak: setup ## random walks, thousands of kills, minutes of death: an hour
	@$(PYTEST) $(PARALLEL) --timeout=3600 tests/soak

lint: setup
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check . || { echo 'not formatted: make fix' >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/importlinter > .cache/layers.txt || { cat .cache/layers.txt; exit 1; }

unit: setup
	@echo '— unit'
	@$(PYTEST) $(PLAIN) -m 'not slow' tests/unit
