"""Keys that tests sign with; made from constants, so that every run signs the same."""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from quotary.tlog.note import SigningKey

ORIGIN = "log.example.org/measurements"


def seed(label):
    return hashlib.sha256(label.encode()).digest()


def ed25519_private(label):
    return Ed25519PrivateKey.from_private_bytes(seed(label))


def ml_dsa_private(label):
    return MLDSA44PrivateKey.from_seed_bytes(seed(label))


def log_key(origin=ORIGIN, label="log"):
    return SigningKey.log(origin, ed25519_private(label))


def log_key_ml_dsa(origin=ORIGIN, label="log ml-dsa"):
    return SigningKey.cosigner(origin, ml_dsa_private(label))


def witness_key(name):
    return SigningKey.cosigner(name, ed25519_private(name))


def witness_key_ml_dsa(name):
    return SigningKey.cosigner(name, ml_dsa_private(name))
