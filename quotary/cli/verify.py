"""``quotary verify``: judge a file, whatever kind of evidence it is."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from quotary.attestation.document import AttestationDocument
from quotary.canonical import hexbytes, time_text
from quotary.cli.files import read_bytes
from quotary.cli.kinds import Kind, kind_of
from quotary.cli.options import (
    log_client,
    memory,
    offline_option,
    policy_option,
    read_policy,
    simulation_option,
    url_option,
)
from quotary.cli.output import emit, json_option, summary, table
from quotary.client.clock import Clock, FixedClock, SystemClock
from quotary.client.files import EvidenceFile, verify_file, verify_receipt
from quotary.client.hint import nearest
from quotary.client.log import LogClient
from quotary.client.platforms import claimed_registers
from quotary.client.policy import Policy
from quotary.client.trust import Memory, ProcessMemory
from quotary.client.verdict import Check, Trail, documents
from quotary.client.verify import judge, verify_bundle, verify_proof, verify_release
from quotary.errors import CannotTell, NotInLog, QuotaryError, Refused, Unsupported, Usage
from quotary.statements.bundle import parse_bundle
from quotary.statements.envelope import Envelope
from quotary.statements.measurement import measurement_id
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement
from quotary.tlog.proof import TlogProof

FILE = click.Path(path_type=Path)


class Inputs:
    """What was given besides the file, and where to fetch what was not."""

    def __init__(
        self,
        policy: Policy,
        url: str | None,
        offline: bool,
        files: dict[str, Path | None],
        nonce: str | None,
        measurement: str | None,
        at_its_time: bool,
    ) -> None:
        self.policy = policy
        self.files = files
        self.nonce = None if nonce is None else hexbytes(nonce, 32)
        self.measurement = None if measurement is None else hexbytes(measurement, 32)
        self._url, self._offline, self._at_its_time = url, offline, at_its_time

    def moment(self, note: bytes) -> tuple[Memory, Clock]:
        """Give the memory and the clock to judge under: this machine's, or the checkpoint's own time.

        The witnesses' time is taken only after the policy has accepted the checkpoint.
        """
        if not self._at_its_time:
            return memory(), SystemClock()
        witnessed = self.policy.tlog.verify(note).quorum_time
        if witnessed is None:
            raise Refused("age", "no time that a witness states", "a checkpoint with a proven time")
        return ProcessMemory(), FixedClock(datetime.fromtimestamp(witnessed, UTC))

    def dated(self, headline: str, clock: Clock) -> str:
        """Say in the headline that it speaks of another time than now."""
        return f"at {time_text(clock.now())}: {headline}" if self._at_its_time else headline

    def log(self) -> LogClient:
        return log_client(self.policy, self._url, offline=self._offline)

    def given(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Read the file that an option names, or fetch it."""
        path = self.files[name]
        if path is not None:
            return read_bytes(path)
        if self._offline:
            raise CannotTell(f"offline, and no --{name} was given", next_command=f"add --{name} FILE")
        return fetch()


@click.command(
    epilog="\b\nExample:\n  quotary verify answer.evidence.json --policy policy.json --offline\n\n"
    "\b\nFILE is an evidence file, an attestation document, a bundle, a proof, a signed statement,\n"
    "or a receipt (with --evidence).\n\n"
    "Exit codes: 0, 2, 10, 11, 12, 20, 30, 40."
)
@click.argument("file", type=FILE)
@policy_option
@simulation_option
@offline_option
@url_option
@click.option("--bundle", type=FILE, help="Bundle, if it is not to be fetched.")
@click.option("--proof", type=FILE, help="Proof of a statement, if it is not to be fetched.")
@click.option("--entry", type=FILE, help="Entry that a proof is about, if it is not to be fetched.")
@click.option("--evidence", type=FILE, help="Evidence file that a receipt belongs to.")
@click.option(
    "--at-its-time", is_flag=True, help="Judge a bundle or proof at its witnesses' time: what held then."
)
@click.option("--nonce", help="Nonce that the attestation document answers, 64 hex digits.")
@click.option("--measurement", help="Measurement id that the bundle must be about, 64 hex digits.")
@json_option
def verify(
    file: Path,
    policy_file: Path,
    simulation: bool,
    offline: bool,
    url: str | None,
    bundle: Path | None,
    proof: Path | None,
    entry: Path | None,
    evidence: Path | None,
    at_its_time: bool,
    nonce: str | None,
    measurement: str | None,
    as_json: bool,
) -> None:
    """Judge FILE under a policy; every check says what was found, wanted, and against which anchor."""
    policy = read_policy(policy_file, simulation=simulation)
    files = {"bundle": bundle, "proof": proof, "entry": entry, "evidence": evidence}
    inputs = Inputs(policy, url, offline, files, nonce, measurement, at_its_time)
    data = read_bytes(file)
    trail = Trail()
    try:
        headline = _JUDGES[kind_of(data)](data, inputs, trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    emit(_document("proven", headline, trail.checks, policy), _text(headline, trail.checks), as_json=as_json)


def refuse(error: QuotaryError, checks: Sequence[Check], as_json: bool) -> NoReturn:
    """Show what was checked until the refusal, then fail with it."""
    document = {
        "schema": "quotary/verdict/v1",
        "outcome": type(error).__name__,
        "exit_code": error.exit_code,
        "reason": str(error),
        "checks": documents(list(checks)),
    }
    if as_json or checks:
        emit(document, table(checks), as_json=as_json)
    raise error


def _document(outcome: str, headline: str, checks: Sequence[Check], policy: Policy) -> dict[str, object]:
    return {
        "schema": "quotary/verdict/v1",
        "outcome": outcome,
        "exit_code": 0,
        "headline": headline,
        "simulated": policy.simulation,
        "policy_sha256": policy.digest.hex(),
        "checks": documents(list(checks)),
    }


def _text(headline: str, checks: Sequence[Check]) -> str:
    return f"{table(checks)}\n{headline}\n{summary(checks)}"


def _evidence_file(data: bytes, inputs: Inputs, trail: Trail) -> str:
    file = EvidenceFile.parse(data)
    verdict = verify_file(file, inputs.policy, trail)
    return f"at {file.judged_at.isoformat()}: {verdict.headline}"


def _attestation_document(data: bytes, inputs: Inputs, trail: Trail) -> str:
    document = AttestationDocument.parse(data)
    shown = document.bundle

    def fetch() -> bytes:
        service, measurement = _hint(document, inputs.policy)
        return inputs.log().bundle(service, measurement)

    bundle = shown if shown is not None and inputs.files["bundle"] is None else inputs.given("bundle", fetch)
    try:
        verdict = judge(document, inputs.nonce, bundle, inputs.policy, memory(), SystemClock(), trail)
    except NotInLog as error:
        raise NotInLog(str(error), next_command=_nearest(document, inputs)) from error
    return verdict.headline


def _bundle(data: bytes, inputs: Inputs, trail: Trail) -> str:
    known, clock = inputs.moment(parse_bundle(data).checkpoint)
    found = verify_bundle(data, inputs.measurement, inputs.policy, known, clock, trail)
    return inputs.dated(found.headline, clock)


def _proof(data: bytes, inputs: Inputs, trail: Trail) -> str:
    entry = inputs.given("entry", lambda: inputs.log().entry(TlogProof.parse(data).index))
    return _included(data, entry, inputs, trail)


def _entry(data: bytes, inputs: Inputs, trail: Trail) -> str:
    statement = parse_statement(Envelope.parse(data).payload)
    release = statement.predicate
    if not isinstance(release, Release):
        proof = inputs.given("proof", lambda: inputs.log().proof(_leaf_hash(data)))
        return _included(proof, data, inputs, trail)
    bundle = inputs.given(
        "bundle", lambda: inputs.log().bundle(statement.service, release.rows[0].measurement)
    )
    known, clock = inputs.moment(parse_bundle(bundle).checkpoint)
    return inputs.dated(verify_release(data, bundle, inputs.policy, known, clock, trail).headline, clock)


def _receipt(data: bytes, inputs: Inputs, trail: Trail) -> str:
    path = inputs.files["evidence"]
    if path is None:
        raise Usage(
            "a receipt alone proves nothing: its key is in the evidence", next_command="add --evidence FILE"
        )
    verdict = verify_file(EvidenceFile.parse(read_bytes(path)), inputs.policy, trail)
    receipt = verify_receipt(data, verdict, trail)
    return f"receipt {receipt.served.receipt_id} of {receipt.served.chat_id}; {verdict.headline}"


def _quote(data: bytes, inputs: Inputs, trail: Trail) -> str:
    raise Unsupported(
        "a bare quote binds no keys and no log", next_command="quotary quote verify FILE --collateral FILE"
    )


def _included(proof: bytes, entry: bytes, inputs: Inputs, trail: Trail) -> str:
    known, clock = inputs.moment(TlogProof.parse(proof).checkpoint_note)
    found = verify_proof(proof, entry, inputs.policy, known, clock, trail)
    checkpoint = found.checkpoint.checkpoint
    return inputs.dated(
        f"entry {found.index} of {checkpoint.origin} at {checkpoint.size} entries; whether what it says "
        "holds was not decided",
        clock,
    )


def _leaf_hash(entry: bytes) -> bytes:
    from quotary.tlog.merkle import leaf_hash

    return leaf_hash(entry)


def _hint(document: AttestationDocument, policy: Policy) -> tuple[str, bytes]:
    """Read out of unverified evidence which bundle to ask for; judging it comes next."""
    from quotary.statements.keyset import Keyset

    platform, registers = claimed_registers(document.evidence, policy.platforms)
    return Keyset.parse(document.keyset).service, measurement_id(platform, registers)


def _nearest(document: AttestationDocument, inputs: Inputs) -> str | None:
    try:
        platform, registers = claimed_registers(document.evidence, inputs.policy.platforms)
        found = nearest(inputs.log(), tuple(inputs.policy.services), platform, registers)
    except QuotaryError:
        return None
    return None if found is None else str(found)


_JUDGES: dict[Kind, Callable[[bytes, Inputs, Trail], str]] = {
    Kind.EVIDENCE: _evidence_file,
    Kind.DOCUMENT: _attestation_document,
    Kind.BUNDLE: _bundle,
    Kind.PROOF: _proof,
    Kind.ENTRY: _entry,
    Kind.RECEIPT: _receipt,
    Kind.QUOTE: _quote,
}
