# make run   makes .venv, installs guerdon and runs the main job
# make test  makes .venv with the test extras and runs every check
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEBIAN := chromium bubblewrap gcc iverilog yosys

.PHONY: run test lint debian clean

run: .venv/.installed
	$(BIN)/guerdon train recipes/arithmetic.yaml

test: debian .venv/.installed-test lint
	OMP_WAIT_POLICY=passive $(BIN)/pytest -q -n 2 --dist loadgroup  # or threads that wait keep others from working

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# What the tests need from Debian: installed when we may, named when we may not.
debian:
	@missing=""; for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	  else echo "missing Debian packages, whose tests will be skipped:$$missing"; fi; fi

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.installed: .venv/.made pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[tasks,lora,tensorboard]'
	touch $@

.venv/.installed-test: .venv/.made pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[test]'
	$(PIP) -e '.[pesq]' || echo "pesq does not compile here: its tests will be skipped"
	touch $@ .venv/.installed

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis
