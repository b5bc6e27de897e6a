#!/bin/sh
# Formatting, lint, the arrows between packages, types. Part of `make test`.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
echo "== format"; ruff format --check --quiet .
echo "== lint"; ruff check --quiet .
echo "== arrows"; lint-imports --no-cache >/dev/null || lint-imports --no-cache
echo "== types"; mypy quotary registry builder enclave simulator verifier private
