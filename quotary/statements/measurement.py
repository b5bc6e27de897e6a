"""The measurement id: one digest over the registers that a platform's evidence always holds.

Design section 4: ``SHA-256("quotary-measurement/v1\\n" || JCS{platform, registers})``. The set of
registers is fixed per platform and computable from evidence alone; never the profile, never RTMR0 or
RTMR3. A simulator's platform ``sim-x`` has the registers of ``x`` and other ids, because its name is
part of what is hashed.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from quotary.errors import Malformed

_CONTEXT = b"quotary-measurement/v1\n"

REGISTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nitro": ("pcr0", "pcr1", "pcr2"),
        "sgx": ("mrenclave",),
        "snp": ("measurement",),
        "tdx": ("mrtd", "rtmr1", "rtmr2"),
    }
)
"""The registers of each platform that make its measurement id."""

_LENGTHS = {"nitro": 48, "sgx": 32, "snp": 48, "tdx": 48}


def base_platform(platform: str) -> str:
    """Name the platform whose formats a platform has: ``sim-tdx`` has those of ``tdx``."""
    base = platform.removeprefix("sim-")
    if base not in REGISTERS:
        raise Malformed(f"platform {platform!r} is not known")
    return base


def register_length(platform: str) -> int:
    """Say how many bytes each register of a platform has."""
    return _LENGTHS[base_platform(platform)]


def measurement_id(platform: str, registers: Mapping[str, bytes]) -> bytes:
    """Compute the 32-byte id from a platform's registers; further registers in the mapping are not looked at.

    Raises ``Malformed`` for an unknown platform, a missing register or one of the wrong length.
    """
    base = base_platform(platform)
    chosen: list[str] = []
    for name in REGISTERS[base]:
        value = registers.get(name)
        if value is None:
            raise Malformed(f"register {name} of {platform} is missing")
        if len(value) != _LENGTHS[base]:
            raise Malformed(f"register {name} has {len(value)} bytes, {platform} has {_LENGTHS[base]}")
        chosen.append(f'"{name}":"{value.hex()}"')
    # The canonical form of {platform, registers}: the names above are sorted, nothing needs escaping.
    document = f'{{"platform":"{platform}","registers":{{{",".join(chosen)}}}}}'
    return hashlib.sha256(_CONTEXT + document.encode("ascii")).digest()
