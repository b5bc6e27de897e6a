"""The table of GUIDs at the end of OVMF firmware: how firmware tells a VMM where its metadata lies.

edk2, OvmfPkg/ResetVector: entries are ``data || u16 length || GUID`` and are walked backwards from a footer
entry that ends 32 bytes before the end of the file; lengths include themselves and the GUID.
"""

import uuid
from collections.abc import Mapping

from quotary.errors import Malformed

MAX_FIRMWARE = 64 << 20
FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
TDVF_OFFSET = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
SEV_METADATA_OFFSET = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
SEV_HASH_TABLE = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV_RESET_BLOCK = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")

_HEAD = 18
_BEHIND = 32


def guid_table(firmware: bytes) -> Mapping[uuid.UUID, bytes]:
    """Read the table, GUID to data; empty for firmware without a footer, ``Malformed`` for a broken one."""
    if len(firmware) > MAX_FIRMWARE:
        raise Malformed(f"firmware has {len(firmware)} bytes, at most {MAX_FIRMWARE} are allowed")
    end = len(firmware) - _BEHIND
    if end < _HEAD or firmware[end - 16 : end] != FOOTER.bytes_le:
        return {}
    start = end - int.from_bytes(firmware[end - _HEAD : end - 16], "little")
    end -= _HEAD
    if start < 0:
        raise Malformed("firmware's GUID table is longer than the firmware")
    found: dict[uuid.UUID, bytes] = {}
    while end > start:
        length = int.from_bytes(firmware[end - _HEAD : end - 16], "little") if end - start >= _HEAD else 0
        name = uuid.UUID(bytes_le=firmware[end - 16 : end]) if length >= _HEAD else None
        if name is None or end - length < start or name in found:
            raise Malformed("firmware's GUID table has an entry that does not fit or comes twice")
        found[name] = firmware[end - length : end - _HEAD]
        end -= length
    return found


def word(table: Mapping[uuid.UUID, bytes], name: uuid.UUID, what: str) -> int:
    """Read the first little-endian u32 of an entry that must be there."""
    if len(table.get(name, b"")) < 4:
        raise Malformed(f"firmware does not say where its {what} is")
    return int.from_bytes(table[name][-4:], "little")
