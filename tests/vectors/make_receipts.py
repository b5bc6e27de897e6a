"""Make ``receipt/receipts.json``: receipts with the outcome that every implementation must give.

Run from the root: ``.venv/bin/python -m tests.vectors.make_receipts``
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from quotary.canonical import b64, canonical, parse_canonical
from quotary.client.receipt import MAX_RECEIPT, Receipt
from tests.client.test_receipt import CHANGES, EXCHANGE, KEYS, made, sign

FILE = Path(__file__).parent / "receipt" / "receipts.json"
JUDGED = {
    "service": "chat", "measurement": (b"M" * 32).hex(), "keyset": (b"K" * 32).hex(), "weights": (b"W" * 32).hex(),
}  # fmt: skip


def case(
    about: str, outcome: str, receipt: bytes, keys: Any = None, judged: Any = None, exchange: Any = EXCHANGE
) -> Any:
    return {
        "about": about,
        "outcome": outcome,
        "receipt": b64(receipt),
        "keys": {name: b64(key) for name, key in (KEYS if keys is None else keys).items()},
        "judged": judged or JUDGED,
        "exchange": {
            "request_wire": exchange.request_wire.hex(),
            "request": b64(exchange.request),
            "response": b64(exchange.response),
            "chains": [chain.hex() for chain in exchange.chains],
            "min_log_size": exchange.min_log_size,
        },
    }


def accepted() -> list[Any]:
    receipt = made()
    found = [
        case("a genuine receipt of this exchange", "ok", receipt.encode()),
        case("the first of a boot", "ok", sign(replace(receipt, previous=None)).encode()),
        case(
            "parameters in words",
            "ok",
            sign(replace(receipt, parameters={"gpu": "H100", "seed": 2**53 - 1})).encode(),
        ),
    ]
    for check, _, change, exchange in CHANGES:
        changed = change(receipt)
        signed = changed if changed.salt != receipt.salt else sign(changed)
        found.append(case(f"{check}, number {len(found)}", check, signed.encode(), exchange=exchange))
    for name, value in (
        ("service", "other"),
        ("measurement", "00" * 32),
        ("keyset", "00" * 32),
        ("weights", "00" * 32),
    ):
        found.append(
            case(
                f"another {name} was judged",
                f"receipt {name}",
                receipt.encode(),
                judged=JUDGED | {name: value},
            )
        )
    return found


def unsigned() -> list[Any]:
    receipt = made()
    value = bytearray(receipt.signatures[0].value)
    value[5] ^= 1
    broken = replace(receipt, signatures=(replace(receipt.signatures[0], value=bytes(value)),))
    return [
        case("a key that the keyset does not have", "signature", receipt.encode(), keys={}),
        case("another key of that name", "signature", receipt.encode(), keys={"receipt-1": b"\x06" * 32}),
        case("a key of small order", "signature", receipt.encode(), keys={"receipt-1": bytes(32)}),
        case("a flipped bit of the signature", "signature", broken.encode()),
        case("another sequence", "signature", replace(receipt, sequence=4).encode()),
        case("one good and one unknown signature", "signature",
             replace(receipt, signatures=(*receipt.signatures, replace(receipt.signatures[0], key_id="x"))).encode()),
    ]  # fmt: skip


def malformed() -> list[Any]:
    data = made().encode()
    document = parse_canonical(data, MAX_RECEIPT)
    assert isinstance(document, dict)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("an unknown member", {"extra": 1}), ("version 2", {"v": 2}), ("a count in words", {"seq": "3"}),
        ("a plain channel with frames", {"channel": "plain"}), ("another end", {"finish_reason": "done"}),
        ("no signature", {"sigs": []}), ("a digest of another kind", {"keyset": "sha512:" + "00" * 32}),
        ("upper-case hex", {"receipt_id": "AB" * 16}), ("a short salt", {"commit_salt": "AAAA"}),
        ("parameters of another digest", {"params": {"digest": "sha256:" + "00" * 32, "values": {}}}),
        ("five signatures", {"sigs": document["sigs"] * 5}),
    ]  # fmt: skip
    found = [case(about, "malformed", canonical(document | change)) for about, change in changes]
    found += [
        case(f"without {name}", "malformed", canonical({k: v for k, v in document.items() if k != name}))
        for name in document
        if name not in ("prev", "commit_salt")
    ]
    found += [case("cut off", "malformed", data[:-1]), case("a space", "malformed", data[:-1] + b" }")]
    found.append(case("too long", "malformed", b" " * MAX_RECEIPT + data))
    return found


def main() -> None:
    cases = [*accepted(), *unsigned(), *malformed()]
    Receipt.parse(made().encode())
    FILE.write_text(json.dumps({"cases": cases}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
