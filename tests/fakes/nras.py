"""NVIDIA's attestation service with keys of its own: bundles whose every claim and signature is at the test's will."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from quotary.attestation.jws import b64url
from quotary.attestation.nras import ISSUER
from quotary.attestation.roots import Root
from tests.fakes.aws import NOW as NOW
from tests.fakes.aws import Signer, issue, sign

KEY_ID = "nv-eat-kid-test-1"
NONCE = b"\7" * 32
AT = int(NOW.timestamp())


def common(**changes: object) -> dict[str, object]:
    """The claims that every token has."""
    times = {"iat": AT - 60, "nbf": AT - 60, "exp": AT + 3540}
    return {"iss": ISSUER, "eat_nonce": NONCE.hex(), **times, **changes}


def gpu(**changes: object) -> dict[str, object]:
    """What the service says of a good GPU."""
    found = {"measres": "success", "secboot": True, "dbgstat": "disabled"}
    names = {"ueid": "478", "hwmodel": "GH100 A01 GSP BROM"}
    versions = {"x-nvidia-gpu-driver-version": "580.159.03", "x-nvidia-gpu-vbios-version": "96.00.9F.00.01"}
    return common(**(found | names | versions | changes))


@dataclass(frozen=True)
class Service:
    """The service's issuer and one signing key below it."""

    issuer: Signer = field(
        default_factory=lambda: issue("Attestation Service Intermediate", organisation="N")
    )
    leaf: Signer | None = None

    def __post_init__(self) -> None:
        if self.leaf is None:
            object.__setattr__(self, "leaf", issue("Attestation Service GPU", self.issuer, ca=False))

    @property
    def roots(self) -> tuple[Root, ...]:
        return (Root("nvidia-nras", hashlib.sha256(self.issuer.der).digest(), "a service of our own"),)

    def token(self, claims: Mapping[str, object], key_id: str = KEY_ID, algorithm: str = "ES384") -> str:
        assert self.leaf is not None
        header = {"alg": algorithm, "kid": key_id}
        signed = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{b64url(sign(self.leaf.key, signed.encode()))}"

    def bundle(
        self,
        devices: Mapping[str, str] | None = None,
        overall: Mapping[str, object] | None = None,
        submods: object = None,
        **header: str,
    ) -> bytes:
        """A bundle of these tokens, whose overall token has their digests if ``submods`` is not said."""
        tokens = {"GPU-0": self.token(gpu())} if devices is None else dict(devices)
        if submods is None:
            submods = {
                name: ["DIGEST", ["SHA-256", hashlib.sha256(text.encode()).hexdigest()]]
                for name, text in tokens.items()
            }
        claims = common(**{"submods": submods, "x-nvidia-overall-att-result": True}) | dict(overall or {})
        return json.dumps([["JWT", self.token(claims, **header)], tokens]).encode()

    def key_set(self, key_id: str = KEY_ID, *certificates: Signer) -> str:
        assert self.leaf is not None
        chain = certificates or (self.leaf, self.issuer)
        x5c = [base64.b64encode(signer.der).decode() for signer in chain]
        other = {"kid": "another", "kty": "EC", "x5c": x5c[::-1]}
        return json.dumps({"keys": [other, {"kid": key_id, "kty": "EC", "x5c": x5c}]})
