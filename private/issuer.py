"""The issuer of anonymous tokens (RFC 9578, type 0x0002): it knows customers, not where they spend.

A customer shows an account's secret and a blinded message; the issuer counts, signs and forgets. What it
signed is blinded, so neither it nor anyone who reads its disk can tell later whose token was spent where.
Each tier and epoch has a key of its own, which signs in that epoch only and counts once the log has it.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from private import problems
from private.ledger import Ledger
from quotary.canonical import b64
from quotary.errors import NotAuthorised, Rejected
from quotary.oblivious.blind_rsa import Signer
from quotary.oblivious.privacy_pass import (
    DIRECTORY_PATH,
    DIRECTORY_TYPE,
    REQUEST_TYPE,
    RESPONSE_TYPE,
    issue,
    key_id,
    parse_request,
)

REQUEST_PATH = "/token-request"
MAX_BODY = 259


@dataclass(frozen=True, slots=True)
class Account:
    """A customer: SHA-256 of the secret, the tier it may have tokens of, and how many a day."""

    digest: bytes
    tier: str
    per_day: int


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key in use: for tokens of a tier, from not_before up to and without not_after."""

    tier: str
    public: bytes
    not_before: datetime
    not_after: datetime
    signer: Signer


def create_app(
    keys: Sequence[SigningKey], accounts: Sequence[Account], ledger: Ledger, now: Callable[[], datetime]
) -> Flask:
    """Make the application of one issuer."""
    app = Flask("issuer", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY + 1

    def valid() -> list[SigningKey]:
        at = now()
        return [key for key in keys if key.not_before <= at < key.not_after]

    def token_request() -> Response:
        if request.mimetype != REQUEST_TYPE:
            raise UnsupportedMediaType
        account = find_account(accounts, request.headers.get("Authorization", ""))
        body = request.get_data(cache=False)
        if len(body) > MAX_BODY:
            raise RequestEntityTooLarge
        named, _ = parse_request(body)
        key = _key_for(valid(), account.tier, named)
        today = now().date().isoformat()
        if not ledger.take(account.digest, today, account.per_day):
            return problems.problem(
                "spent", f"{account.per_day} tokens a day were issued", Retry_After="3600"
            )
        return Response(issue(key.signer, key.public, body), content_type=RESPONSE_TYPE)

    def directory() -> Response:
        listed = [
            {"token-type": 2, "token-key": b64(key.public), "not-before": int(key.not_before.timestamp())}
            for key in valid()
        ]
        document = {"issuer-request-uri": REQUEST_PATH, "token-keys": listed}
        return Response(json.dumps(document) + "\n", content_type=DIRECTORY_TYPE)

    app.add_url_rule(REQUEST_PATH, "token_request", token_request, methods=["POST"])
    app.add_url_rule(DIRECTORY_PATH, "directory", directory, methods=["GET"])
    app.add_url_rule(
        "/healthz", "healthz", lambda: Response("ok\n", content_type="text/plain"), methods=["GET"]
    )
    problems.register(app)
    return app


def find_account(accounts: Sequence[Account], shown: str) -> Account:
    """Give the account whose secret a ``Bearer`` header shows, in the same time for each wrong one."""
    scheme, _, secret = shown.partition(" ")
    digest = hashlib.sha256(secret.encode()).digest()
    found = [account for account in accounts if hmac.compare_digest(account.digest, digest)]
    if scheme != "Bearer" or not secret or not found:
        raise NotAuthorised("no account has this secret")
    return found[0]


def _key_for(keys: Sequence[SigningKey], tier: str, named: int) -> SigningKey:
    ids: Mapping[int, SigningKey] = {key_id(key.public)[-1]: key for key in keys if key.tier == tier}
    if named not in ids:
        raise Rejected("token key", f"{named:02x}", f"a key of the tier {tier} that is in use")
    return ids[named]
