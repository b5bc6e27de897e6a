"""The few DER values that the SGX extension of a PCK certificate needs (OID 1.2.840.113741.1.13.1).

Layout: Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5.
"""

_SGX_ARC = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1
_PLATFORM_INSTANCE = bytes.fromhex("ff53494d" + "00" * 12)
_SCALABLE = 1  # SGX type "scalable": what every TDX platform reports


def utf8(text: str) -> bytes:
    """Encode a UTF8String."""
    return _value(0x0C, text.encode("utf-8"))


def sgx_extension(*, ppid: bytes, components: bytes, pce_svn: int, pce_id: bytes, fmspc: bytes) -> bytes:
    """Encode the extension's value; ``components`` is 16 bytes, one SVN each, and serves as the CPUSVN
    too."""
    assert (len(ppid), len(components), len(pce_id), len(fmspc)) == (16, 16, 2, 6)
    tcb = [_member((2, n + 1), _integer(svn)) for n, svn in enumerate(components)]
    tcb += [_member((2, 17), _integer(pce_svn)), _member((2, 18), _octets(components))]
    configuration = [
        _member((7, 1), _boolean(True)),  # dynamic platform
        _member((7, 2), _boolean(False)),  # cached keys
        _member((7, 3), _boolean(True)),  # SMT
    ]
    return _sequence(
        _member((1,), _octets(ppid)),
        _member((2,), _sequence(*tcb)),
        _member((3,), _octets(pce_id)),
        _member((4,), _octets(fmspc)),
        _member((5,), _value(0x0A, bytes([_SCALABLE]))),
        _member((6,), _octets(_PLATFORM_INSTANCE)),
        _member((7,), _sequence(*configuration)),
    )


def _member(arcs: tuple[int, ...], value: bytes) -> bytes:
    return _sequence(_value(0x06, _SGX_ARC + bytes(arcs)), value)


def _sequence(*values: bytes) -> bytes:
    return _value(0x30, b"".join(values))


def _octets(data: bytes) -> bytes:
    return _value(0x04, data)


def _boolean(truth: bool) -> bytes:
    return _value(0x01, b"\xff" if truth else b"\x00")


def _integer(number: int) -> bytes:
    return _value(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _value(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content
