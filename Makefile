# `make demo` and `make test` need Python 3.11 and a package index, nothing else.
PYTHON ?= python3.11
TORCH  ?= torch==2.13.0
# Of the tests. One more than two cores: some files wait for daemons and servers more than they work.
WORKERS ?= 3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ORACLE := .venv-oracle/.installed

export DAGSTER_HOME := $(CURDIR)/.ronghe/dagster
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help install demo demo-update ui test check bench docs oracle clean

help:  ## the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## the virtual environment with .venv/bin/ronghe

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard merge_ops/kernels/*.[ch]) merge_ops/kernels/compile.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@mkdir -p .ronghe/dagster && cp dagster.yaml .ronghe/dagster/dagster.yaml
	@touch $@

.ronghe/dagster/dagster.yaml: dagster.yaml $(STAMP)
	@mkdir -p .ronghe/dagster && cp dagster.yaml $@

demo: install .ronghe/dagster/dagster.yaml  ## train the quickstart models, merge, score, print the leaderboard
	$(BIN)/python -m examples.quickstart
	$(BIN)/ronghe refresh
	$(BIN)/ronghe leaderboard

demo-update: install .ronghe/dagster/dagster.yaml  ## retrain one expert and re-merge only what it touches
	$(BIN)/python -m examples.quickstart
	$(BIN)/python -m examples.quickstart --update idioms
	$(BIN)/ronghe refresh
	$(BIN)/ronghe leaderboard

ui: install .ronghe/dagster/dagster.yaml  ## Dagster's web UI and daemon on http://127.0.0.1:3000
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port 3000

oracle: $(ORACLE)  ## an environment for mergekit, the peer the tests compare with

$(ORACLE): $(STAMP)
	bash tests/oracle/make_environment.sh $(BIN)/python .venv-oracle
	@touch $@

test: install oracle  ## the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: install  ## style, types, import rules, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs

bench: install oracle  ## side by side with mergekit on the same files
	$(BIN)/python -m benchmarks.vs_mergekit

docs: install  ## docs/methods.md and its pictures, from the registry of methods
	$(BIN)/python -m docs.methods_page

clean:  ## remove the environments and everything the demo made
	rm -rf .venv .venv-oracle .ronghe
