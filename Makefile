# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEVELOPED := $(VENV)/.developed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test check format bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recbench needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[fast,report,zstd]'
	touch $@

$(DEVELOPED): $(READY)
	$(INSTALL) '.[dev,fast,hf,report,text,zstd]'
	touch $@

demo: $(READY)
	$(BIN)/recbench demo

test: $(DEVELOPED)
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal

check: $(DEVELOPED)
	$(BIN)/ruff format --check recbench tests benchmarks
	$(BIN)/ruff check recbench tests benchmarks
	$(BIN)/mypy

format: $(DEVELOPED)
	$(BIN)/ruff format recbench tests benchmarks
	$(BIN)/ruff check --fix recbench tests benchmarks

bench: $(DEVELOPED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
