#!/bin/sh
# Prepare this machine for `make demo` or `make test`: Debian packages (installed when root, else listed), then .venv from
# the hashed locks. Idempotent; a second run takes no time.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-demo}

packages="python3-venv nix-bin qemu-system-x86 xz-utils libsodium23"
[ "$purpose" = test ] && packages="$packages postgresql chromium iproute2 nginx softhsm2 wrk strace"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    [ "$status" = "ii " ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        echo "setup: installing Debian packages:$missing" >&2
        log=$(mktemp)
        if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            echo "setup: Debian packages could not be installed:$missing" >&2
            exit 40
        fi
        rm -f "$log"
    else
        echo "setup: these Debian packages are missing:$missing" >&2
        echo "next: sudo apt-get install --no-install-recommends$missing" >&2
        exit 20
    fi
fi

python=/usr/bin/python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || python=python3.11
if ! command -v "$python" >/dev/null 2>&1; then
    echo "setup: Python 3.11 is needed (Debian 12 has it); found $(python3 --version 2>&1 || echo none)" >&2
    exit 20
fi

wanted=$(cat requirements.lock requirements-torch.lock pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.ready 2>/dev/null || true)" != "$wanted" ]; then
    echo "setup: making .venv from the locks (a few minutes the first time)" >&2
    rm -rf .venv
    "$python" -m venv .venv
    pip=".venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps"
    $pip --require-hashes -r requirements.lock
    $pip --require-hashes -r requirements-torch.lock 2>/dev/null ||
        $pip --require-hashes --index-url https://download.pytorch.org/whl/cpu -r requirements-torch.lock
    $pip --no-build-isolation --editable .
    .venv/bin/python -m pip check >&2
    printf '%s\n' "$wanted" >.venv/.ready
fi

[ "$purpose" = test ] || exit 0
wanted=$(sha256sum <requirements-s3test.lock | cut -d' ' -f1)
if [ "$(cat .venv-s3/.ready 2>/dev/null || true)" != "$wanted" ]; then
    echo "setup: making .venv-s3, an object store for the tests (about a minute the first time)" >&2
    rm -rf .venv-s3
    "$python" -m venv .venv-s3
    .venv-s3/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes \
        -r requirements-s3test.lock
    .venv-s3/bin/python -m pip check >&2
    printf '%s\n' "$wanted" >.venv-s3/.ready
fi
