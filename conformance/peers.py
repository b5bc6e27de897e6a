"""Run other people's programs against a Quotary log on loopback (conformance/PEER.md: where they come from).

    python conformance/peers.py --programs FOLDER

Each peer is one function; it gives what it saw, raises ``Differs`` with what the peer said, or is "not run
here" because a program is missing. Exit codes: 0 all that ran agree, 10 one differs, 20 none could run.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: E402
from cryptography.hazmat.primitives.serialization import load_ssh_public_key  # noqa: E402

from conformance.add import adding  # noqa: E402
from quotary.tlog.note import COSIGNATURE_ED25519, VerifierKey  # noqa: E402
from quotary.tlog.proof import TlogProof  # noqa: E402
from registry.identity import read_public  # noqa: E402
from registry.setup import WitnessLine, write_policy  # noqa: E402
from tests.fakes.processes import Log, start_log, until  # noqa: E402

RELEASES = 600
SECONDS = 120.0
WITNESS = "peer.example.org/witness"


class Differs(Exception):
    """A peer did not accept what we made, or we did not accept what it made."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One program of somebody else.

    programs: what it needs, by file name, in the folder of programs or on PATH
    check:    gives a line that says what was seen, or raises ``Differs``
    """

    name: str
    programs: tuple[str, ...]
    check: Callable[[Log, Mapping[str, str], Path], str]


def check_fsck(log: Log, programs: Mapping[str, str], folder: Path) -> str:
    """Tessera's fsck fetches every tile and entry bundle over HTTP and rebuilds the root."""
    said = _run(
        programs["fsck"], "-ui=false", "-N=2", *_log_flags(log, "-storage_url", "-public_key", folder)
    )
    if "Successfully fsck'd log" not in said:
        raise Differs(said)
    return f"the whole log of {_size(log)} entries over HTTP"


def check_hammer(log: Log, programs: Mapping[str, str], folder: Path) -> str:
    """Tessera's hammer writes random leaves, a tenth of them twice, and looks each up again."""
    before = _size(log)
    with adding(log) as address:
        said = _run(
            programs["hammer"],
            *("--show_ui=false", "--num_writers=8", "--max_write_ops=40", "--leaf_write_goal=200"),
            *("--leaf_min_size=100", f"--log_url={log.address}/", f"--write_log_url={address}/"),
            *("--max_runtime=1m", f"--log_public_key={log.policy.logs[0].vkey()}"),
        )
    if "ERROR" in said or _size(log) < before + 150:
        raise Differs(said)
    return f"200 leaves written and read back, the log grew from {before} to {_size(log)} entries"


def check_spicy(log: Log, programs: Mapping[str, str], folder: Path) -> str:
    """Torchwood's spicy verifies our proofs: the same lines, in the order of its own older file format."""
    indices = (0, 1, 255, 256, _size(log) - 1)
    for index in indices:
        proof = TlogProof.parse(log.get(f"/api/v1/proofs/{index}"))
        entry = log.get(f"/api/v1/entries/{index}")
        path = folder / f"entry{index}"
        path.write_bytes(entry)
        lines = bytes(proof).split(b"\n", 1)[1]
        Path(f"{path}.spicy").write_bytes(lines)
        _run(programs["spicy"], "-verify", log.policy.logs[0].vkey(), str(path))
        path.write_bytes(entry + b" ")
        _refuses(programs["spicy"], "-verify", log.policy.logs[0].vkey(), str(path))
    return f"the proofs of entries {', '.join(map(str, indices))}; none of a changed entry"


def check_litewitness(log: Log, programs: Mapping[str, str], folder: Path) -> str:
    """Torchwood's litewitness cosigns our checkpoints, as the one witness that the quorum needs."""
    with _litewitness(log, programs, folder) as (address, vkey):
        public = read_public(log.folder / "keys" / "public")
        log.stop_registry()
        write_policy(log.folder / "policy.tlog", public, [WitnessLine(address, vkey)], None)
        log.registry.start()
        log.wait_ready()
        before = _size(log)
        log.submit(log.authority.release("seen by another witness"))
        verified = log.policy.verify(log.get("/checkpoint"))
        if set(verified.cosignatures) != {WITNESS} or verified.checkpoint.size <= before:
            raise Differs(
                f"the checkpoint of size {verified.checkpoint.size} has no cosignature of {WITNESS}"
            )
        return f"cosigned sizes {before} and {verified.checkpoint.size}; our policy demanded it"


PEERS = (
    Peer("Tessera fsck", ("fsck",), check_fsck),
    Peer("Tessera hammer", ("hammer",), check_hammer),
    Peer("torchwood spicy", ("spicy",), check_spicy),
    Peer(
        "torchwood litewitness",
        ("litewitness", "witnessctl", "ssh-agent", "ssh-add", "ssh-keygen"),
        check_litewitness,
    ),
)


def main(words: Sequence[str]) -> int:
    """Run every peer whose programs are there, each against the same log, and say what came of each."""
    parser = argparse.ArgumentParser(description="run other people's programs against a Quotary log")
    parser.add_argument("--programs", default="", help="folder with the peers' programs, before PATH")
    where = os.pathsep.join(filter(None, (parser.parse_args(words).programs, os.environ.get("PATH", ""))))
    found = {peer.name: {name: shutil.which(name, path=where) for name in peer.programs} for peer in PEERS}
    ready = [peer for peer in PEERS if all(found[peer.name].values())]
    for peer in PEERS:
        missing = [name for name, path in found[peer.name].items() if path is None]
        if missing:
            print(f"{peer.name}: not run here, no program {', '.join(missing)}", flush=True)
    if not ready:
        return 20
    return _against_one_log(ready, found)


def _against_one_log(peers: Sequence[Peer], found: Mapping[str, Mapping[str, str | None]]) -> int:
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        log = start_log(Path(folder))
        try:
            _fill(log)
            for peer in peers:
                programs = {name: str(path) for name, path in found[peer.name].items()}
                try:
                    print(f"{peer.name}: agrees on {peer.check(log, programs, Path(folder))}", flush=True)
                except Differs as error:
                    print(f"{peer.name}: DIFFERS\n{error}", flush=True)
                    code = 10
        finally:
            log.stop()
    return code


def _fill(log: Log) -> None:
    made = log.authority
    log.submit(made.allocation(), made.delegation(), made.floor())
    batch = b"\n".join(made.release(f"r{number}") for number in range(RELEASES))
    lines = log.request("POST", "/api/v1/batches", batch).data.splitlines()
    answers = [json.loads(line) for line in lines[:-1]]  # the last one is the promise
    assert all(answer["status"] == 202 for answer in answers), answers[0]
    until(lambda: _size(log) > RELEASES, "the releases are published", SECONDS)


def _size(log: Log) -> int:
    return log.policy.verify(log.get("/checkpoint")).checkpoint.size


def _log_flags(log: Log, address: str, key: str, folder: Path) -> tuple[str, str]:
    path = folder / "log.vkey"
    path.write_text(log.policy.logs[0].vkey(), "ascii")
    return f"{address}={log.address}/", f"{key}={path}"


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise Differs(f"exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _refuses(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode == 0:
        raise Differs(f"accepted what was changed: {' '.join(words)}")


@contextmanager
def _litewitness(log: Log, programs: Mapping[str, str], folder: Path) -> Iterator[tuple[str, VerifierKey]]:
    """Start the witness with a key of its own in an agent of its own; give its address and its key."""
    key, agent, database = folder / "peer", folder / "agent", folder / "litewitness.db"
    _run(programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = load_ssh_public_key(Path(f"{key}.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    vkey = VerifierKey.of(WITNESS, COSIGNATURE_ED25519, public.public_bytes_raw())
    about = ("-db", str(database), "-origin", log.authority.origin)
    _run(programs["witnessctl"], "add-log", *about)
    _run(programs["witnessctl"], "add-key", *about, "-key", log.policy.logs[0].vkey())
    port = _free_port()
    address = f"127.0.0.1:{port}"
    started = [subprocess.Popen([programs["ssh-agent"], "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)]
    try:
        until(agent.exists, "the agent listens")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
        subprocess.run([programs["ssh-add"], "-q", str(key)], env=environment, check=True, timeout=SECONDS)
        words = ["-db", str(database), "-name", WITNESS, "-ssh-agent", str(agent), "-listen", address]
        fingerprint = _run(programs["ssh-keygen"], "-l", "-f", f"{key}.pub").split()[1]
        with open(folder / "litewitness.log", "wb") as said:
            started.append(
                subprocess.Popen(
                    [programs["litewitness"], *words, "-key", fingerprint], stdout=said, stderr=said
                )
            )
        yield f"http://{address}", vkey
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(SECONDS)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
