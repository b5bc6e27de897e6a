# make demo: the whole story on this machine.   make test: the whole suite.   Both set up what they need.
.PHONY: help demo test lint types bench soak fuzz lock release clean setup setup-test
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
VM ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup:
	@sh deploy/setup.sh demo

setup-test:
	@sh deploy/setup.sh test

demo: setup ## the main job, end to end (ARGS=--exit ends by itself; VM=1 boots the built image as well)
	@$(BIN)/quotary demo $(if $(VM),--vm) $(ARGS)

test: setup-test ## lint, types, all unit, vector and journey tests, the ci image, PostgreSQL, Chromium
	@sh tests/run.sh

lint: setup-test ## formatting, lint, import arrows, types
	@sh tests/lint.sh

bench: setup-test ## every benchmark, each against its reference
	@for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

soak: setup-test ## what takes longer: cpu image twice, VM journeys, every check deleted once
	@$(BIN)/python -m pytest -m soak -p no:randomly --timeout=7200 $(ARGS)

fuzz: setup-test ## changed bytes for every parser (ARGS='--seconds 600 --seed 1')
	@$(BIN)/python -W ignore -m tests.soak.fuzz $(ARGS)

COMPILE := pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
	  --no-header --upgrade --output-file

lock: ## resolve requirements.in again (needs pip-tools)
	$(COMPILE) requirements.lock requirements.in
	$(COMPILE) requirements-s3test.lock requirements-s3test.in
	@sed -i -e '/^# WARNING: pip install/d' -e '/^# Consider using a hashable/d' -e '/^quotary @ /,/^    # via -r/d' requirements.lock \
	  requirements-s3test.lock

release: ## wheel, sdist, bill of materials, saved verifier, digests (ARGS='FOLDER --service ...'; docs/upgrade.md)
	@$(BIN)/python deploy/distribution.py $(or $(ARGS),dist)

clean: ## remove the environment and the demo's files
	rm -rf $(VENV) .venv-s3 var build dist *.egg-info
