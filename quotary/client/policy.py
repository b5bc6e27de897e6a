"""Policy/v1: what a verifier demands, as one canonical document (``docs/formats/policy.md``).

Absent means refused: no member has a default that accepts, and "none" is a word that somebody wrote. The
SHA-256 stands on an enclave's measured command line and in the release, so the bytes are the identity. A
simulation policy cannot accept hardware or a production log, and a production policy cannot express a
simulator (design sections 5 and 6).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quotary.canonical import Fields, parse_canonical, unb64
from quotary.client.demands import Demands, parse_demands
from quotary.client.device_rules import DeviceRules, parse_device_rules
from quotary.client.location_rules import LocationRules, parse_location_rules
from quotary.errors import Malformed
from quotary.statements.envelope import key_id, parse_spki
from quotary.statements.floor import Floor, parse_floor
from quotary.statements.measurement import base_platform
from quotary.statements.predicates import LOG_SERVICE, ascending, parse_service, strings
from quotary.tlog.policy import TlogPolicy

MAX_POLICY = 1 << 20
MAX_AGE_LIMIT_SECONDS = 366 * 86_400
SIMULATION_SUFFIX = "/simulation"
SIMULATED_PREFIX = "sim-"
DOORS = ("browser", "nanogpt", "vllm-proxy")

Environment = Literal["production", "simulation"]


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of which ``threshold`` must have signed.

    keys: key id to Ed25519 public key (32 bytes)
    """

    keys: Mapping[str, bytes]
    threshold: int


@dataclass(frozen=True, slots=True)
class Rebuilders:
    """Who must have rebuilt a release: so many organisations, each by one of its keys.

    keys:          key id to Ed25519 public key (32 bytes)
    organisations: key id to the organisation that the policy's author knows it to be of; where the policy
                   names none, every key is one
    needed:        how many organisations
    """

    keys: Mapping[str, bytes]
    organisations: Mapping[str, str]
    needed: int

    @property
    def count(self) -> int:
        """Say how many organisations are listed."""
        return len(set(self.organisations.values()))

    @property
    def named(self) -> bool:
        """Say whether the policy names the organisations."""
        return self.organisations.keys() != set(self.organisations.values())


@dataclass(frozen=True, slots=True)
class PlatformRules:
    """What evidence of one platform must show besides its registers.

    floors:         product to the policy's own floor; None is the written ``log``: the logged one decides
    simulator_root: SHA-256 of the simulator's root certificate; exactly for simulated platforms
    demands:        what is demanded of the evidence besides
    """

    floors: Mapping[str, Floor] | None
    simulator_root: bytes | None
    demands: Demands


@dataclass(frozen=True, slots=True)
class StreamRules:
    """The cadence of streamed answers in the sealed channel.

    interval_ms: between two frames
    frames:      an answer has a whole multiple of so many
    """

    interval_ms: int
    frames: int


@dataclass(frozen=True, slots=True)
class EnclaveRules:
    """How an enclave under this policy runs; a client ignores it.

    poll_seconds: between two looks at the log
    plaintext:    whether prompts may come without the sealed channel
    doors:        other systems whose clients are served, of ``DOORS``; none that is not named
    oblivious:    whether capsules are taken that come through a relay
    stream:       the cadence of streamed answers; absent: they are sent as they come
    ratls:        whether TLS ends inside, with a certificate that carries evidence
    callers:      whether only enclaves that this policy admits are answered
    cache_mib:    memory for the keys and values of all answers; absent: what there is room for
    """

    poll_seconds: int
    plaintext: bool
    doors: tuple[str, ...] = ()
    oblivious: bool = False
    stream: StreamRules | None = None
    ratls: bool = False
    callers: bool = False
    cache_mib: int | None = None


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """Whose anonymous tokens an answer costs (docs/formats/oblivious.md).

    name:    the issuer's name in challenges, a host; service: its name in the log
    signers: whose signatures its logged keys need
    """

    name: str
    service: str
    signers: KeySet


@dataclass(frozen=True, slots=True)
class KeyServiceRules:
    """Whose nodes release keys to attested enclaves (docs/formats/kms.md).

    service: the key service's name in the log; signers: whose signatures an epoch of its needs, its nodes'
    """

    service: str
    signers: KeySet


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy.

    digest:       SHA-256 of its bytes, 32 bytes
    tlog:         log keys and witnesses, of exactly one origin
    genesis:      leaf hash of the log's entry 0, 32 bytes
    services:     the owner keys of each service that may answer
    minimum_size, minimum_at: no checkpoint before these is accepted
    map_auditors: witnesses that recompute the statuses and must have cosigned; empty is the written ``none``
    rebuilders:   who must have rebuilt a release; None is the written ``none``
    devices:      what GPUs must show; None: a release that demands any is refused
    issuer:       whose token each answer costs; None: answers cost none
    kms:          who keeps keys for the services' enclaves; None: nobody
    location:     where a machine must be; None: anywhere
    """

    digest: bytes
    environment: Environment
    tlog: TlogPolicy
    genesis: bytes
    services: Mapping[str, KeySet]
    minimum_size: int
    minimum_at: datetime
    max_age_seconds: int
    map_auditors: tuple[str, ...]
    rebuilders: Rebuilders | None
    platforms: Mapping[str, PlatformRules]
    devices: DeviceRules | None
    enclave: EnclaveRules | None
    issuer: IssuerRules | None
    kms: KeyServiceRules | None
    location: LocationRules | None

    @property
    def origin(self) -> str:
        """Name the one log that this policy believes."""
        return self.tlog.logs[0].name

    @property
    def log_url(self) -> str:
        """Give the address that the policy lists for its log, or an empty string."""
        return next((url for url in self.tlog.urls.values() if url), "")

    @property
    def simulation(self) -> bool:
        """Say whether this policy is about simulated evidence."""
        return self.environment == "simulation"

    @classmethod
    def parse(cls, data: bytes) -> "Policy":
        """Read a policy of at most 1 MiB, or raise ``Malformed``."""
        fields = Fields(parse_canonical(data, MAX_POLICY, multiline=True), "policy")
        fields.integer("v", 1, 1)
        environment: Environment = (
            "production"
            if fields.choice("environment", "production", "simulation") == "production"
            else "simulation"
        )
        minimum = fields.fields("minimum")
        found = cls(
            digest=hashlib.sha256(data).digest(),
            environment=environment,
            tlog=_tlog(fields.text("tlog_policy", MAX_POLICY), environment),
            genesis=fields.hexbytes("genesis", 32),
            services=_services(fields.mapping("services", 64)),
            minimum_size=minimum.integer("size"),
            minimum_at=minimum.time("time"),
            max_age_seconds=fields.integer("max_age_seconds", 1, MAX_AGE_LIMIT_SECONDS),
            map_auditors=_map_auditors(fields),
            rebuilders=_rebuilders(fields),
            platforms=_platforms(fields.mapping("platforms", 16), environment),
            devices=fields.optional(
                "devices",
                lambda name: parse_device_rules(fields.fields(name), simulation=environment == "simulation"),
            ),
            enclave=fields.optional("enclave", lambda name: _enclave(fields.fields(name))),
            issuer=fields.optional("issuer", lambda name: _issuer(fields.fields(name))),
            kms=fields.optional("kms", lambda name: _kms(fields.fields(name))),
            location=fields.optional("require_location", lambda name: _location(fields.fields(name))),
        )
        minimum.done()
        fields.done()
        for name in found.map_auditors:
            if name not in found.tlog.witnesses:
                raise Malformed(f"policy.map_auditor {name} is not a witness of tlog_policy")
        return found


def _tlog(text: str, environment: Environment) -> TlogPolicy:
    try:
        tlog = TlogPolicy.parse(text)
    except Malformed as error:
        raise Malformed(f"policy.tlog_policy: {error}") from error
    origins = {log.name for log in tlog.logs}
    if len(origins) != 1:
        raise Malformed(f"policy.tlog_policy lists {len(origins)} logs, a policy is about one")
    if (environment == "simulation") != tlog.logs[0].name.endswith(SIMULATION_SUFFIX):
        raise Malformed(
            f"policy for {environment} about the log {tlog.logs[0].name}: the origins of simulation logs, "
            f"and of no others, end in {SIMULATION_SUFFIX}"
        )
    return tlog


def _services(members: Mapping[str, object]) -> dict[str, KeySet]:
    if not members:
        raise Malformed("policy.services is empty: nothing could be accepted")
    services = {}
    for name, value in members.items():
        if parse_service(name) == LOG_SERVICE:
            raise Malformed(f"policy.services cannot have {LOG_SERVICE}: the log is no service")
        fields = Fields(value, f"service {name}")
        services[name] = _keys(fields.fields("owner"), "threshold")
        fields.done()
    return services


def _keys(fields: Fields, threshold: str) -> KeySet:
    keys = _public_keys(fields)
    found = KeySet(keys, fields.integer(threshold, 1, len(keys)))
    fields.done()
    return found


def _public_keys(fields: Fields) -> dict[str, bytes]:
    keys = {}
    for name, value in fields.mapping("keys", 64).items():
        if not isinstance(value, str):
            raise Malformed(f"key {name} is not a string")
        keys[name] = parse_spki(unb64(value))
        if key_id(keys[name]) != name:
            raise Malformed(f"key {name} has the id {key_id(keys[name])}")
    if not keys:
        raise Malformed("a set of keys is empty: nobody could sign")
    return keys


def _map_auditors(fields: Fields) -> tuple[str, ...]:
    if fields.value("map_auditor") == "none":
        return ()
    names = fields.items("map_auditor", 16, low=1)
    return ascending(tuple(_string(name) for name in names), "policy.map_auditor")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Malformed("policy.map_auditor holds something other than names")
    return value


def _rebuilders(fields: Fields) -> Rebuilders | None:
    if fields.value("rebuilders") == "none":
        return None
    inner = fields.fields("rebuilders")
    keys = _public_keys(inner)
    named = inner.optional("organisations", lambda name: _organisations(inner.mapping(name, 64), keys))
    owners = {name: name for name in keys} if named is None else named
    found = Rebuilders(keys, owners, inner.integer("k", 1, len(set(owners.values()))))
    inner.done()
    return found


def _organisations(members: Mapping[str, object], keys: Mapping[str, bytes]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name, value in members.items():
        if not isinstance(value, list) or not value:
            raise Malformed(f"policy.rebuilders: the organisation {name!r} is not a list of key ids")
        for key in value:
            if not isinstance(key, str) or key not in keys or key in owners:
                raise Malformed(
                    f"policy.rebuilders: a key of {name!r} is not listed, or of two organisations"
                )
            owners[key] = name
    if owners.keys() != keys.keys():
        raise Malformed(f"policy.rebuilders: {len(keys) - len(owners)} keys are of no organisation")
    return owners


def _platforms(members: Mapping[str, object], environment: Environment) -> dict[str, PlatformRules]:
    if not members:
        raise Malformed("policy.platforms is empty: no evidence could be accepted")
    platforms = {}
    for name, value in members.items():
        base_platform(name)
        if (environment == "simulation") != name.startswith(SIMULATED_PREFIX):
            raise Malformed(f"policy for {environment} cannot accept the platform {name}")
        platforms[name] = _platform(Fields(value, f"platform {name}"), name, environment)
    return platforms


def _platform(fields: Fields, name: str, environment: Environment) -> PlatformRules:
    demands = parse_demands(fields.fields("require"), name)
    floors = None
    if fields.value("floors") != "log":
        products = fields.mapping("floors", 256)
        floors = {product: parse_floor(Fields(value, "floor"), name) for product, value in products.items()}
    root = fields.hexbytes("simulator_root_sha256", 32) if environment == "simulation" else None
    fields.done()
    return PlatformRules(floors, root, demands)


def _enclave(fields: Fields) -> EnclaveRules:
    rules = EnclaveRules(
        fields.integer("poll_seconds", 1, 3600),
        fields.choice("plaintext", "refused", "allowed") == "allowed",
        fields.optional("doors", lambda name: strings(fields, name, len(DOORS), low=1)) or (),
        fields.optional("oblivious", lambda name: fields.choice(name, "refused", "offered")) == "offered",
        fields.optional("stream", lambda name: _stream(fields.fields(name))),
        fields.optional("ratls", lambda name: fields.choice(name, "refused", "offered")) == "offered",
        fields.optional("callers", lambda name: fields.choice(name, "any", "attested")) == "attested",
        fields.optional("cache_mib", lambda name: fields.integer(name, 1, 1 << 24)),
    )
    unknown = [door for door in rules.doors if door not in DOORS]
    if unknown:
        raise Malformed(f"policy.enclave.doors has {unknown[0]}, there are {', '.join(DOORS)}")
    fields.done()
    return rules


def _stream(fields: Fields) -> StreamRules:
    rules = StreamRules(fields.integer("interval_ms", 5, 1000), fields.integer("frames", 1, 4096))
    fields.done()
    return rules


def _issuer(fields: Fields) -> IssuerRules:
    rules = IssuerRules(
        fields.name("name", 253),
        parse_service(fields.text("service", 100)),
        _keys(fields.fields("signers"), "threshold"),
    )
    fields.done()
    return rules


def _kms(fields: Fields) -> KeyServiceRules:
    rules = KeyServiceRules(
        parse_service(fields.text("service", 100)), _keys(fields.fields("signers"), "threshold")
    )
    fields.done()
    return rules


def _location(fields: Fields) -> LocationRules:
    return parse_location_rules(fields, _keys(fields.fields("signers"), "threshold"))
