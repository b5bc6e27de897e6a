"""A log in memory and the keys of those who watch it, from fixed seeds, and policies that list them.

``tests.fakes.authority`` signs the entries; here are the checkpoint's signers: the log's two keys, one
witness and one map auditor.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from quotary.canonical import canonical
from quotary.statements.bundle import AbsenceBundle, Bundle, Included, Proven
from quotary.statements.envelope import Envelope
from quotary.statements.f1 import F1
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.order import Order
from quotary.statements.outcome import Outcome
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry, is_reserved
from quotary.tlog import trie
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.merkle import leaf_hash, path_in, root_of
from quotary.tlog.note import SigningKey
from quotary.tlog.proof import TlogProof
from tests.fakes import authority

WITNESS = "witness.example.net/w1"
AUDITOR = "auditor.example.com/map"
GENESIS_PLACEHOLDER = "00" * 32


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"quotary test log key {name}".encode()).digest()


def log_keys(origin: str = authority.ORIGIN) -> tuple[SigningKey, SigningKey]:
    """The log's Ed25519 (0x01) and ML-DSA-44 (0x06) keys."""
    return (
        SigningKey.log(origin, Ed25519PrivateKey.from_private_bytes(_seed(origin))),
        SigningKey.cosigner(origin, MLDSA44PrivateKey.from_seed_bytes(_seed(origin))),
    )


def witness_key(name: str = WITNESS) -> SigningKey:
    """A cosigner's Ed25519 key (0x04)."""
    return SigningKey.cosigner(name, Ed25519PrivateKey.from_private_bytes(_seed(name)))


def tlog_policy(origin: str = authority.ORIGIN, url: str = "") -> str:
    """Both log keys, and both cosigners needed."""
    logs = "".join(f"log {key.verifier.vkey()} {url}".rstrip() + "\n" for key in log_keys(origin))
    cosigners = "".join(
        f"witness {name} {witness_key(name).verifier.vkey()}\n" for name in (WITNESS, AUDITOR)
    )
    return f"{logs}{cosigners}group both all {WITNESS} {AUDITOR}\nquorum both\n"


def signed_note(
    checkpoint: Checkpoint, time: int, witnesses: Iterable[str] = (WITNESS, AUDITOR), log_signers: int = 2
) -> bytes:
    """The checkpoint's note, signed by the log and cosigned at ``time``."""
    text = str(checkpoint)
    lines = [key.line(text, time) for key in log_keys(checkpoint.origin)[:log_signers]]
    lines += [cosign(text, witness_key(name), time) for name in witnesses]
    return (text + "\n" + "".join(lines)).encode()


def policy_document(
    origin: str = authority.ORIGIN, genesis: str = GENESIS_PLACEHOLDER, root: str = "11" * 32, url: str = ""
) -> dict[str, object]:
    """A policy for simulation with everything demanded that can be: what tests change to be wrong."""
    return {
        "v": 1,
        "environment": "simulation",
        "tlog_policy": tlog_policy(origin, url),
        "genesis": genesis,
        "services": {
            authority.SERVICE: {
                "owner": {"keys": authority.keys("owner1", "owner2", "owner3"), "threshold": 2}
            }
        },
        "minimum": {"size": 1, "time": "2026-11-01T00:00:00Z"},
        "max_age_seconds": 900,
        "map_auditor": [AUDITOR],
        "rebuilders": {"keys": authority.keys("rebuilder1", "rebuilder2"), "k": 1},
        "platforms": {
            "sim-tdx": {
                "floors": {"ff53494d0000": dict(authority.FLOOR)},
                "require": {"debug": "refused"},
                "simulator_root_sha256": root,
            }
        },
        "enclave": {"poll_seconds": 30, "plaintext": "refused"},
    }


def policy_bytes(document: Mapping[str, object]) -> bytes:
    return canonical(dict(document), multiline=True)


class FakeLog:
    """A log in memory: real statements, F1, status map, state entries and signatures; time only by argument.

    maker: signs the entries that ``append`` is given by tests
    """

    def __init__(self, origin: str = authority.ORIGIN, now: datetime = authority.NOW) -> None:
        self.origin = origin
        self.maker = authority.Authority(origin, now)
        self.entries: list[bytes] = []
        self.nodes = trie.MemoryStore()
        self.map_root = trie.EMPTY
        self.records: dict[bytes, bytes] = {}
        self.at: dict[str, int] = {}
        self._f1 = F1(origin)
        self._open: list[tuple[int, bytes]] = []
        self._state: int | None = None
        self.outcomes: list[Outcome] = []

    def append(self, *entries: bytes) -> None:
        """Take entries; those that F1 ignores are this test's mistake."""
        for entry in entries:
            self._open.append((len(self.entries), entry))
            self.at[Envelope.parse(entry).statement_id] = len(self.entries)
            self.entries.append(entry)

    def order(self, made: Order, ts: int = authority.TS) -> None:
        """Log an order of the roots in an interval of its own."""
        self._open.append((len(self.entries), made.encode()))
        self.entries.append(made.encode())
        self.close(ts, made.kind if made.ends_log else None)

    def close(self, ts: int = authority.TS, end: str | None = None) -> None:
        """End an interval: the map changes, a state entry commits it."""
        closed = self._f1.close(self._open, ts)
        self._open = []
        self.outcomes += closed.outcomes
        for key, record in closed.changes.items():
            self.records[key] = record
            value = hashlib.sha256(record).digest()
            self.map_root = trie.insert(self.nodes, self.map_root, key, value)
        state = StateEntry(len(self.entries), {"F1": self.map_root}, ts, self._state, end)
        self._state = len(self.entries)
        self.entries.append(state.encode())

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self.origin, len(self.entries), root_of([leaf_hash(entry) for entry in self.entries])
        )

    @property
    def genesis(self) -> str:
        return leaf_hash(self.entries[0]).hex()

    def included(self, index: int) -> Included:
        path = path_in([leaf_hash(entry) for entry in self.entries], index)
        return Included(index, self.entries[index], path)

    def proven(self, key: bytes) -> Proven:
        return Proven(self.records[key], trie.prove(self.nodes, self.map_root, key))

    def note(self, ts: int = authority.TS) -> bytes:
        return signed_note(self.checkpoint, ts)

    def bundle(
        self,
        measurement: bytes,
        service: str = authority.SERVICE,
        product: str = "ff53494d0000",
        ts: int = authority.TS,
        platform: str = "sim-tdx",
        floors: Iterable[bytes] = (),
    ) -> Bundle:
        """What the registry would serve for a measurement that it knows; floors: keys of its devices' floors."""
        key = key_measurement(service, measurement)
        record = parse_record(self.records[key])
        assert isinstance(record, MeasurementRecord)
        chain = [
            index
            for index, entry in enumerate(self.entries)
            if not is_reserved(entry) and self._is_delegation(entry, service)
        ]
        keys = [key, key_service(service), key_tcb(platform, product), *floors]
        return Bundle(
            self.note(ts),
            self.included(len(self.entries) - 1),
            None if record.release is None else self.included(self.at[record.release]),
            tuple(self.included(index) for index in (0, *chain)),
            tuple(self.proven(name) for name in keys if name in self.records),
        )

    def absence(
        self, measurement: bytes, service: str = authority.SERVICE, ts: int = authority.TS
    ) -> AbsenceBundle:
        key = key_measurement(service, measurement)
        proof = trie.prove(self.nodes, self.map_root, key)
        return AbsenceBundle(self.note(ts), self.included(len(self.entries) - 1), key, proof)

    def proof(self, index: int, ts: int = authority.TS) -> bytes:
        return bytes(TlogProof(index, self.included(index).path, self.note(ts)))

    def _is_delegation(self, entry: bytes, service: str) -> bool:
        statement = parse_statement(Envelope.parse(entry).payload)
        effective = {outcome.statement_id for outcome in self.outcomes if outcome.effect}
        named = (statement.kind, statement.service) == ("delegation", service)
        return named and statement.statement_id in effective
