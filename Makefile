# `make` lists what there is. Everything runs in .venv, which the first target that needs it creates.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	if $$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$p; break; fi; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
# A test that hangs ends its process and shows where pytest is, instead of nothing when CI's time is up; a command that crashes shows where it was.
PYTEST := PYTHONFAULTHANDLER=1 $(BIN)/python -m pytest -o faulthandler_timeout=1500 -o faulthandler_exit_on_timeout=true
# Several processes, a test module in each. Each needs up to 4 GB; a quarter of the time they wait, for Java, servers and clocks, so two cores keep three busy.
TESTERS ?= $(shell awk '/^MemTotal/ {print ($$2 > 15000000 ? 3 : 2)}' /proc/meminfo 2>/dev/null || echo 2)
PARALLEL := -n $(TESTERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
TESTS ?= tests
SEED ?= 1

.PHONY: help install demo test test-slow test-engines docs-check fuzz lint format templates requirements clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-14s %s\n", $$1, $$2}'

$(INSTALLED): requirements.txt
	@test -n "$(PYTHON)" || { echo "error: found no Python 3.11, 3.12 or 3.13 with venv (Debian, Ubuntu: apt install python3-venv); or say which: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing requirements.txt into .venv with $(PYTHON) (2 GB, a minute or two)"
	@$(PYTHON) -m venv --clear .venv  # what an interrupted installation left would stop pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

install: $(INSTALLED)  ## the packages of requirements.txt into .venv, 2 GB; all other targets begin with it

demo: $(INSTALLED)  ## draw scenes, extract features, train, caption unseen images: ends in demo/gallery.png
	@$(BIN)/python -m scripts.demo

test: $(INSTALLED)  ## the fast tests, 6 to 8 minutes; those of one folder: make test TESTS=tests/trainer/model
	$(PYTEST) $(PARALLEL) $(TESTS) -m "not slow and not engines"

test-slow: $(INSTALLED)  ## the slow tests: the whole demo, real Inception, real processes, runs that are killed
	$(PYTEST) $(PARALLEL) $(TESTS) -m "slow and not engines"

test-engines: $(INSTALLED)  ## both pipelines on Flink, Spark, Prism and Dask: needs java, mvn and go, downloads 1 GB once
	$(PYTEST) tests/end_to_end/test_engines.py -rs

docs-check: $(INSTALLED)  ## run every command of README and docs, over a small demo; 10 to 20 minutes
	@$(BIN)/python -m scripts.docs_check

fuzz: $(INSTALLED)  ## every format that is read, broken in thousands of ways; 15 minutes
	$(BIN)/python -m tests.fuzz --minutes 15 --seed $(SEED)

lint: $(INSTALLED)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## mend what lint finds, where that can be done by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

templates: $(INSTALLED)  ## make the Flex Templates' metadata anew from the commands' flags
	$(BIN)/python -m scripts.flex.templates

requirements:  ## pin setup.py's ranges anew in requirements.txt (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --extra dev setup.py --output-file requirements.txt

clean:  ## delete .venv, what the demo made, and engines
	rm -rf .venv demo .cluster
