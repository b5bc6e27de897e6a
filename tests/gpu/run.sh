#!/bin/sh
# Everything that needs a real GPU, about five minutes: sh tests/gpu/run.sh FOLDER (docs/gpu.md). What was seen is
# written to FOLDER. Needs python3 with torch for CUDA, transformers, click, pytest, pytest-timeout and nvidia-ml-py.
set -u
[ $# = 1 ] || { echo "usage: sh tests/gpu/run.sh FOLDER" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) && cd "$(dirname "$0")/../.." || exit 40
export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

echo "== machine"
{ nvidia-smi; nvidia-smi conf-compute -f; uname -r; python3 -V; } >"$out/machine.txt" 2>&1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
python3 -c 'import torch, transformers as t; print(torch.__version__, t.__version__); exit(not torch.cuda.is_available())' || {
    echo "torch finds no GPU here: nothing was checked" >&2; exit 20; }

echo "== detect"
python3 -m quotary quote detect 2>&1 | tee "$out/detect.txt"
python3 -m quotary quote detect --json >"$out/detect.json" 2>/dev/null
echo "== evidence"
python3 -c '
from enclave import nvml
driver = nvml.ask_driver(nvml.load()); print(driver)
print(nvml.gpu_evidence(nvml.load(), [bytes([7]) * 32] * len(driver.gpus)).decode())' >"$out/evidence.txt" 2>&1
tail -n 1 "$out/evidence.txt" | cut -c 1-300

echo "== tests"
timeout 170 python3 -m pytest -v -rs --confcutdir=tests/gpu -W default --timeout=100 -p no:cacheprovider tests/gpu \
    >"$out/tests.txt" 2>&1
tests=$?
grep -E "^(FAILED|ERROR|SKIPPED|E  )|passed|failed" "$out/tests.txt" | tail -n 40

echo "== speed"
timeout 240 python3 benchmarks/bench_engine.py --size 1b --device cuda --tokens 128 --rounds 3 --callers 8 \
    --json "$out/bench.json" >"$out/bench.txt" 2>&1
speed=$?
tail -n 12 "$out/bench.txt"
echo "tests ended with $tests, speed with $speed (0 is well)"
[ "$tests" = 0 ] && [ "$speed" = 0 ]
