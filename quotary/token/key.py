"""An Ed25519 key inside a PKCS #11 token: whoever signs asks for signatures and never holds the key.

A file ``<name>.token``, in the place of a key file, says where the key lies. A lost
session is opened again once a request; a PIN that the token refused is not tried again, because tokens count.
A signature is checked before anybody relies on it: what the signer remembers must be good.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from quotary.errors import Malformed, Refused
from quotary.secret import read_secret
from quotary.token.errors import TokenRefused, TokenUnavailable
from quotary.token.place import TokenPlace

# DER of the curve's name as PrintableString: what SoftHSM 2 takes, and PKCS #11 3.1 section 6.3.3 allows.
EDWARDS25519 = b"\x13\x0cedwards25519"
# CKA_EC_POINT: the 32 bytes in an OCTET STRING, in a BIT STRING (3.0), or bare (3.1).
POINTS = (b"\x04\x20", b"\x03\x21\x00", b"")
PUBLIC_LENGTH = 32


class TokenKey:
    """Signs like an Ed25519 key of ``cryptography``; one session, one request at a time."""

    def __init__(self, place: TokenPlace) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._refused: TokenRefused | None = None
        self._connect()
        with _named(place):
            self._public = _public(self._session, place)

    def public_key(self) -> Ed25519PublicKey:
        return self._public

    def sign(self, data: bytes, /) -> bytes:
        """Give 64 bytes, or raise ``TokenUnavailable`` or ``TokenRefused``."""
        with self._lock:
            try:
                return self._checked(data)
            except TokenUnavailable:
                self._connect()
                return self._checked(data)

    def close(self) -> None:
        self._session.close()

    def _checked(self, data: bytes) -> bytes:
        # Opening another key of the token, as a rotation does, ends this session, and its handles may then
        # name that other key: a signature that does not hold is a reason to look again.
        signature = self._sign(data)
        try:
            self._public.verify(signature, data)
        except InvalidSignature as error:
            raise TokenUnavailable(
                f"token {self._place.token} made a signature that does not hold"
            ) from error
        return signature

    def _sign(self, data: bytes) -> bytes:
        with _named(self._place):
            # The library's types know no key that signs; one of this object class does.
            return bytes(self._key.sign(data, mechanism=Mechanism.EDDSA))  # type: ignore[attr-defined]

    def _connect(self) -> None:
        if self._refused is not None:
            raise self._refused
        try:
            self._session = _open(self._place)
            with _named(self._place):
                self._key = self._session.get_key(
                    ObjectClass.PRIVATE_KEY, KeyType.EC_EDWARDS, self._place.key
                )
        except TokenRefused as error:
            self._refused = error
            raise


def create_token_key(place: TokenPlace) -> None:
    """Make a key inside the token that cannot leave it; an existing one is never replaced."""
    session = _open(place, writes=True)
    try:
        with _named(place):
            if list(session.get_objects({Attribute.LABEL: place.key})):
                raise Refused("token key", f"{place.key} exists in {place.token}", "a new label")
            curve = {Attribute.EC_PARAMS: EDWARDS25519}
            parameters = session.create_domain_parameters(KeyType.EC_EDWARDS, curve, local=True)
            parameters.generate_keypair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                store=True,
                label=place.key,
                private_template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
            )
    finally:
        session.close()


def _open(place: TokenPlace, *, writes: bool = False) -> pkcs11.Session:
    pin = read_secret(Path(place.pin_file)).decode("utf-8", "replace").strip()
    with _named(place):
        library = pkcs11.lib(place.module)
        # A module keeps what it knew of a token that went away; only this makes it look again.
        library.reinitialize()
        return library.get_token(token_label=place.token).open(rw=writes, user_pin=pin)


def _public(session: pkcs11.Session, place: TokenPlace) -> Ed25519PublicKey:
    key = session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC_EDWARDS, place.key)
    point = bytes(key[Attribute.EC_POINT])
    for prefix in POINTS:
        if point.startswith(prefix) and len(point) == len(prefix) + PUBLIC_LENGTH:
            return Ed25519PublicKey.from_public_bytes(point.removeprefix(prefix))
    raise Malformed(f"token {place.token} gives {len(point)} bytes for an Ed25519 point")


@contextmanager
def _named(place: TokenPlace) -> Iterator[None]:
    """Turn what a module says into our own errors; no message of a module carries a secret."""
    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.PinInvalid) as error:
        found = type(error).__name__
        wanted = f"the user's PIN in {place.pin_file}"
        raise TokenRefused(f"PIN of token {place.token}", found, wanted) from error
    except pkcs11.PKCS11Error as error:
        said = f"{type(error).__name__} {error}".strip()
        raise TokenUnavailable(
            f"token {place.token} cannot be used: {said}",
            next_command=f"look whether {place.module} shows it, and the key {place.key} in it",
        ) from error
