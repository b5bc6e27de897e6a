"""Keccak-256 as Ethereum uses it: SHA3-256 (FIPS 202) with the padding byte 0x01 in place of 0x06.

Neither ``hashlib`` nor ``cryptography`` has it. It hashes public values only: keys and texts that are about
to be sent. With the other padding it must be ``hashlib.sha3_256``, which is how a test holds it.
"""

RATE = 136
KECCAK, SHA3 = 0x01, 0x06

_MASK = (1 << 64) - 1
_ROUNDS = 24


def keccak256(data: bytes, padding: int = KECCAK) -> bytes:
    """Hash to 32 bytes. padding: ``KECCAK``, or ``SHA3`` for what FIPS 202 made of it."""
    room = RATE - len(data) % RATE
    padded = bytearray(data + bytes([padding]) + bytes(room - 1))
    padded[-1] |= 0x80
    state = [0] * 25
    for block in range(0, len(padded), RATE):
        for lane in range(RATE // 8):
            at = block + 8 * lane
            state[lane] ^= int.from_bytes(padded[at : at + 8], "little")
        state = _permuted(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])


def _permuted(state: list[int]) -> list[int]:
    for constant in _CONSTANTS:
        columns = [state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20] for x in range(5)]
        mixed = [columns[(x - 1) % 5] ^ _rotated(columns[(x + 1) % 5], 1) for x in range(5)]
        moved = [0] * 25
        for x in range(5):
            for y in range(5):
                lane = state[x + 5 * y] ^ mixed[x]
                moved[y + 5 * ((2 * x + 3 * y) % 5)] = _rotated(lane, _OFFSETS[x + 5 * y])
        state = [
            moved[at] ^ (~moved[at - at % 5 + (at + 1) % 5] & moved[at - at % 5 + (at + 2) % 5])
            for at in range(25)
        ]
        state[0] ^= constant
    return state


def _rotated(lane: int, by: int) -> int:
    return ((lane << by) | (lane >> (64 - by))) & _MASK


def _offsets() -> list[int]:
    """FIPS 202 section 3.2.2: the walk over the lanes, and how far each is rotated."""
    offsets, x, y = [0] * 25, 1, 0
    for step in range(24):
        offsets[x + 5 * y] = (step + 1) * (step + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return offsets


def _constants() -> list[int]:
    """FIPS 202 section 3.2.5: bits of a shift register at the places 2^j - 1 of each round's constant."""
    constants, register = [], 1
    for _ in range(_ROUNDS):
        constant = 0
        for j in range(7):
            constant |= (register & 1) << ((1 << j) - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


_OFFSETS, _CONSTANTS = _offsets(), _constants()
