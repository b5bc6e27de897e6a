#!/bin/sh
# What `make test` runs: lint and types, then every test that is not marked soak.
set -eu
cd "$(dirname "$0")/.."
sh tests/lint.sh
echo "== tests"
exec .venv/bin/python -m pytest -m "not soak" --timeout=900 --durations=15
