"""What it costs to ask two provers instead of the slower one, in processor time, with a real model in each.

Both enclaves, both clients and the comparison are in this process. Provers stand on machines of their own, so
a joint answer takes as long as the slower one, and what is added is all that is not one of the two answers.
Run: ``.venv/bin/python benchmarks/bench_provers.py [ROUNDS]``.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builder.model import make_model
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.client.provers import Provers
from tests.fakes.provers import Pair

ROOT = Path(__file__).resolve().parents[1]
ASK, TOKENS = "What is a log?", 64


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make_model(folder / "model", source=ROOT / "quotary", steps=1)
        models = [TransformerModel(read_weights(made.folder, made.digest), threads=1) for _ in range(2)]
        pair = Pair.made(folder, [made.digest] * 2)
        with pair.running(models) as both:
            clients = [pair.client(prover) for prover in both]
            provers, asks = Provers(clients[0], clients[1]), {"max_tokens": TOKENS, "temperature": 0.0}
            works = [lambda: clients[0].chat(ASK, **asks), lambda: clients[1].chat(ASK, **asks)]
            works.append(lambda: provers.chat(ASK, **asks))
            for work in works:
                work()
            found = [[seconds(work) for work in works] for _ in range(rounds)]
    alone = [max(first, second) for first, second, _ in found]
    added = [joint - first - second for first, second, joint in found]
    slower, more = statistics.median(alone), statistics.median(added)
    print(f"load {os.getloadavg()[0]:.1f}, {rounds} rounds, {TOKENS} tokens, processor time")
    print(f"the slower prover  {1e3 * slower:8.1f} ms")
    print(f"added by two       {1e3 * more:8.1f} ms   {(slower + more) / slower:.3f} x; bar 1.05")


if __name__ == "__main__":
    main()
