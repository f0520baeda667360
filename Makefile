# `make demo` and `make test` need Python 3.11 and a package index, nothing else.
# All tests run with 3.11. Where that is not, 3.12 or 3.13 is taken and told of: what the demo needs
# installs with them, but no test is run. A shim of pyenv is no Python before it runs.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifeq ($(origin PYTHON),undefined)
PYTHON = $(eval PYTHON := $(firstword $(foreach each,python3.11 python3.12 python3.13 python3,$(if \
	$(shell $(each) -c '$(USABLE)' 2>/dev/null && echo yes),$(each)))))$(PYTHON)
endif
TORCH  ?= torch==2.13.0
# Of the tests. One more than two cores: some files wait for daemons and servers more than they work.
WORKERS ?= 3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := $(VENV)/.installed-demo
# The demo and the page need no Ray, Kubernetes, PostgreSQL or tools for tests; where all is
# installed already, that will do.
USED   := $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO))
ORACLE := .venv-oracle/.installed
PACKAGES := merge_ops eval_ops resources assets orchestration

export DAGSTER_HOME := $(CURDIR)/.ronghe/dagster
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
# Container images set it, and every process then compiles what it imports anew: torch alone is a
# second. Here it may be written.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo demo-update ui site test check sanitize dist bench docs oracle clean

help:  ## the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## the virtual environment with .venv/bin/ronghe, and all that tests need

INPUTS := pyproject.toml constraints.txt hatch_build.py $(wildcard merge_ops/kernels/*.[ch]) merge_ops/kernels/compile.py

# $(call installed,EXTRA): the environment with one extra of pyproject.toml
define installed
	@test -x $(BIN)/python || '$(PYTHON)' -c '$(USABLE)' >/dev/null 2>&1 || { printf '%s\n' \
	  "make: there is no Python 3.11 to 3.13 with venv ($(or $(PYTHON),python3.11) is none). Install one (Debian 12:" \
	  "apt install python3.11-venv; elsewhere: uv python install 3.11, pyenv or conda) and say where it is:" \
	  "make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  echo "make: takes $$($(PYTHON) --version); all tests run with 3.11 alone" >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --no-compile --progress-bar on $(TORCH)
	$(BIN)/pip install --disable-pip-version-check --no-compile --progress-bar on -c constraints.txt -e '.[$(1)]'
	@# On all cores, where pip compiles on one. A few files of others are for other Pythons: no fault.
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib $(PACKAGES) || true
	@mkdir -p .ronghe/dagster && cp dagster.yaml .ronghe/dagster/dagster.yaml
	@touch $@
	@echo 'ronghe is $(BIN)/ronghe; "source $(BIN)/activate" puts it on the PATH'
endef

$(STAMP): $(INPUTS)
	$(call installed,dev)

$(DEMO): $(INPUTS)
	$(call installed,demo)

.ronghe/dagster/dagster.yaml: dagster.yaml $(USED)
	@mkdir -p .ronghe/dagster && cp dagster.yaml $@

demo: $(USED) .ronghe/dagster/dagster.yaml  ## train the quickstart models, merge, score, print the leaderboard
	$(BIN)/python -m examples.quickstart
	$(BIN)/ronghe refresh
	$(BIN)/ronghe leaderboard

demo-update: $(USED) .ronghe/dagster/dagster.yaml  ## retrain one expert and re-merge only what it touches
	$(BIN)/python -m examples.quickstart
	$(BIN)/python -m examples.quickstart --update idioms
	$(BIN)/ronghe refresh
	$(BIN)/ronghe leaderboard

ui: $(USED) .ronghe/dagster/dagster.yaml  ## Dagster's web UI and daemon on http://127.0.0.1:3000
	$(BIN)/ronghe ui

site: $(USED) .ronghe/dagster/dagster.yaml  ## the catalog as static pages in .ronghe/site, to be opened in a browser
	$(BIN)/ronghe site --out .ronghe/site

oracle: $(ORACLE)  ## an environment for mergekit, the peer the tests compare with

$(ORACLE): $(STAMP)
	bash tests/oracle/make_environment.sh $(BIN)/python .venv-oracle
	@touch $@

test: install oracle  ## the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --workers $(WORKERS)

check: install  ## style, types, import rules, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs
	$(BIN)/python -m tests.sanitizing

sanitize: install  ## the tests of the loops in C under AddressSanitizer and UBSan (part of check)
	$(BIN)/python -m tests.sanitizing

dist: install  ## wheels for Linux on x86_64 and aarch64, and one without loops, into dist/
	$(BIN)/python -m pip wheel --no-deps -w dist --config-settings target=x86_64-linux .
	$(BIN)/python -m pip wheel --no-deps -w dist --config-settings target=aarch64-linux .
	$(BIN)/python -m pip wheel --no-deps -w dist --config-settings target=any .

bench: install oracle  ## side by side with mergekit on the same files
	$(BIN)/python -m benchmarks.vs_mergekit

docs: install  ## the written parts of docs/: methods, recipes, commands, trees, decisions
	$(BIN)/python -m docs.methods_page
	$(BIN)/python -m docs.methods_zh_page
	$(BIN)/python -m docs.recipes_page
	$(BIN)/python -m docs.commands_page
	$(BIN)/python -m docs.architecture_page
	$(BIN)/python -m docs.decisions_index

clean:  ## remove the environments, what was compiled and everything the demo made
	rm -rf .venv .venv-oracle .ronghe dist merge_ops/kernels/*.so
	find $(PACKAGES) tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
