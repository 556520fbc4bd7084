# make demo   the whole journey on this machine          make test   every test but benches and soaks
# make up     the platform, until Ctrl-C                  make check  format, lint, types, import contracts
# make bench [NAME=x]   make soak   make lock   make clean
PYTHON ?= python3
export ATOLL_HOME ?= $(CURDIR)/.atoll
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= auto
DOCS ?=
ARGS ?=
NAME ?=

.PHONY: demo up test check format bench soak lock clean

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Atoll needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.laptop: $(VENV)/bin/python pyproject.toml requirements.lock
	@echo "installing Atoll with its laptop extras (some minutes at the first time)"
	@$(PIP) install --constraint requirements.lock --editable '.[laptop]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements.lock
	@echo "installing Atoll with all that tests need (some minutes at the first time)"
	@$(PIP) install --constraint requirements.lock --editable '.[laptop,postgres,dev]'
	@touch $@ $(VENV)/.laptop

demo: $(VENV)/.laptop
	@DOCS='$(DOCS)' $(BIN)/python examples/01-first-journey/demo.py $(ARGS)

up: $(VENV)/.laptop
	@$(BIN)/atoll up $(ARGS)

test: $(VENV)/.dev
	@$(BIN)/python tests/machine.py
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not soak' $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m soak $(ARGS)
	ATOLL_TEST_SEEK=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not soak' tests/property

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	@$(BIN)/python tests/bench/run.py $(NAME)

lock: $(VENV)/.dev
	@$(BIN)/python -m pip freeze --exclude-editable | sed -e 's/+cpu$$//' -e '/ @ /d' > requirements.lock
	@echo "requirements.lock has $$(wc -l < requirements.lock) pins"

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
