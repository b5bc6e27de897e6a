"""The strict Ed25519 form: degenerate keys and signatures are refused by name, whichever library computes."""

import hashlib
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary import ed25519
from quotary.errors import InvalidSignature, Malformed

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = PRIVATE.public_key().public_bytes_raw()
MESSAGE = b"what was signed"
SIGNATURE = PRIVATE.sign(MESSAGE)

D = -121665 * pow(121666, -1, ed25519.PRIME) % ed25519.PRIME


def add(a, b):
    """Add two affine points of the twisted Edwards curve."""
    product = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, ed25519.PRIME)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, ed25519.PRIME)
    return x % ed25519.PRIME, y % ed25519.PRIME


def times(n, point):
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def x_of(y):
    squared = (y * y - 1) * pow(D * y * y + 1, -1, ed25519.PRIME) % ed25519.PRIME
    x = pow(squared, (ed25519.PRIME + 3) // 8, ed25519.PRIME)
    if x * x % ed25519.PRIME != squared:
        x = x * pow(2, (ed25519.PRIME - 1) // 4, ed25519.PRIME) % ed25519.PRIME
    return x if x * x % ed25519.PRIME == squared else None


BASE_Y = 4 * pow(5, -1, ed25519.PRIME) % ed25519.PRIME
BASE = next((x, BASE_Y) for x in (x_of(BASE_Y), ed25519.PRIME - x_of(BASE_Y)) if x % 2 == 0)
NEUTRAL = (0, 1)
EQUATIONS = {"openssl": ed25519.openssl, "libsodium": ed25519.libsodium()}


def encoded(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def challenge(r, key, message):
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % ed25519.ORDER


def signed(key_torsion, r_torsion, message):
    """Sign with the secret numbers 5 and 7, key and R moved by points whose order divides 8."""
    key, r = encoded(add(times(5, BASE), key_torsion)), encoded(add(times(7, BASE), r_torsion))
    k = challenge(r, key, message)
    return key, r + ((7 + 5 * k) % ed25519.ORDER).to_bytes(32, "little"), k


def holds(equation, key, signature, message):
    try:
        equation(key, signature, message)
    except InvalidSignature:
        return False
    return True


def torsion_points():
    """Return all eight points whose order divides 8, found by multiplying points with the prime order."""
    found = set()
    for y in range(2, 60):
        x = x_of(y)
        if x is not None:
            found.add(times(ed25519.ORDER, (x, y)))
    assert len(found) == 8
    return found


def test_a_genuine_signature_is_accepted():
    ed25519.check_public_key(KEY)
    ed25519.check_signature(SIGNATURE)
    ed25519.verify(KEY, SIGNATURE, MESSAGE)


def test_every_point_of_small_order_is_refused_in_every_encoding():
    encodings = set()
    for _, y in torsion_points():
        for value in (y, y + ed25519.PRIME):
            if value < 2**255:
                encodings |= {value.to_bytes(32, "little"), (value | 2**255).to_bytes(32, "little")}
    assert len(encodings) == 14
    for encoding in encodings:
        with pytest.raises(InvalidSignature, match=r"small order|canonical"):
            ed25519.check_public_key(encoding)
        with pytest.raises(InvalidSignature):
            ed25519.verify(encoding, SIGNATURE, MESSAGE)
        with pytest.raises(InvalidSignature):
            ed25519.check_signature(encoding + SIGNATURE[32:])


def test_a_signature_of_the_neutral_key_never_verifies():
    neutral = (1).to_bytes(32, "little")
    with pytest.raises(InvalidSignature):
        ed25519.verify(neutral, neutral + bytes(32), MESSAGE)


def test_every_non_canonical_y_is_refused():
    for y in range(ed25519.PRIME, 2**255):
        with pytest.raises(InvalidSignature, match="canonical"):
            ed25519.check_public_key(y.to_bytes(32, "little"))


def test_a_key_off_the_curve_is_refused_and_verifies_nothing():
    y = next(y for y in range(2, 60) if x_of(y) is None)
    with pytest.raises(InvalidSignature, match="curve"):
        ed25519.check_public_key(y.to_bytes(32, "little"))
    with pytest.raises(InvalidSignature):
        ed25519.verify(y.to_bytes(32, "little"), SIGNATURE, MESSAGE)


def test_an_unreduced_s_is_refused():
    s = int.from_bytes(SIGNATURE[32:], "little") + ed25519.ORDER
    with pytest.raises(InvalidSignature, match="below the group order"):
        ed25519.verify(KEY, SIGNATURE[:32] + s.to_bytes(32, "little"), MESSAGE)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_malformed(length):
    with pytest.raises(Malformed):
        ed25519.check_public_key(bytes(length))
    with pytest.raises(Malformed):
        ed25519.verify(bytes(length), SIGNATURE, MESSAGE)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_malformed(length):
    with pytest.raises(Malformed):
        ed25519.verify(KEY, bytes(length), MESSAGE)


def test_every_changed_bit_is_refused():
    for bit in range(512):
        changed = bytearray(SIGNATURE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            ed25519.verify(KEY, bytes(changed), MESSAGE)
    with pytest.raises(InvalidSignature):
        ed25519.verify(KEY, SIGNATURE, MESSAGE + b"!")


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_library_takes_the_genuine_signature_and_no_other(name):
    equation = EQUATIONS[name]
    assert holds(equation, KEY, SIGNATURE, MESSAGE)
    assert holds(equation, KEY, PRIVATE.sign(b""), b"")
    assert not holds(equation, KEY, SIGNATURE, b"")
    assert not holds(equation, encoded(times(5, BASE)), SIGNATURE, MESSAGE)
    off_the_curve = next(y for y in range(2, 60) if x_of(y) is None).to_bytes(32, "little")
    assert not holds(equation, off_the_curve, SIGNATURE, MESSAGE)
    for bit in range(512):
        changed = bytearray(SIGNATURE)
        changed[bit // 8] ^= 1 << bit % 8
        assert not holds(equation, KEY, bytes(changed), MESSAGE)


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_library_computes_the_equation_without_cofactor(name):
    # S B - k A is 7 B - k T for a key 5 B + T: so R = 7 B + T' holds only if T' = -k T. With cofactor all would.
    points, taken = sorted(torsion_points()), 0
    for key_torsion, r_torsion in product(points, points):
        key, signature, k = signed(key_torsion, r_torsion, MESSAGE)
        wanted = add(r_torsion, times(k % 8, key_torsion)) == NEUTRAL
        assert holds(EQUATIONS[name], key, signature, MESSAGE) == wanted
        assert holds(ed25519.verify, key, signature, MESSAGE) == wanted
        taken += wanted
    assert taken in range(2, 33)


def test_what_libsodium_is_asked_first_holds_with_cofactor_only():
    key, signature, message = ed25519._COFACTOR_ONLY
    order_8 = next(point for point in torsion_points() if times(4, point) != NEUTRAL)
    made = [signed(NEUTRAL, times(n, order_8), message)[:2] for n in range(8)]
    assert (key, signature) in made[1::2]
    assert [holds(ed25519.openssl, *pair, message) for pair in made] == [True] + [False] * 7


def test_libsodium_is_chosen_only_where_it_is_there_and_without_cofactor():
    def refusing(*_):
        raise InvalidSignature("no")

    assert ed25519.choose(None) is ed25519.openssl
    assert ed25519.choose(lambda *_: None) is ed25519.openssl
    assert ed25519.choose(refusing) is refusing
    assert ed25519._EQUATION is not ed25519.openssl
