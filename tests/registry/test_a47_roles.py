"""Bar A47: every route with every role. What a key may do is what its signature may do; no route knows another word.

The routes are the application's own, so that a new one fails here until somebody says what it is. Reads are the
same for everybody; the two routes that write are tried with every kind of statement, signed by every role, those
of another service among them.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from quotary.canonical import b64
from quotary.net.vendors import Answer, DocumentSet
from registry.collateral import Collateral
from tests.fakes.authority import SERVICE, Authority, key, keyid, keys, measurement, role
from tests.fakes.inprocess import Local, local

OTHER = "other"
ID = measurement("a").hex()

# Whose keys sign. Each role is as strong as it gets: its threshold is met.
ROLES: dict[str, Sequence[str]] = {
    "none": ("nobody",),
    "builder of the service": ("builder1",),
    "owner": ("owner1", "owner2"),
    "builder of another service": ("builder8",),
    "owner of another service": ("owner8", "owner9"),
    "rebuilder": ("rebuilder1",),
    "security": ("security1",),
    "tcb": ("tcb1", "tcb2"),
    "root": ("root1", "root2"),
}

WRITES = {"/api/v1/entries", "/api/v1/batches"}

# They are sent something, and keep nothing of it.
CALCULATES = {"/api/v1/evidence/facts"}

# Every other rule of the application, with a path under it.
READS = {
    "/": "/",
    "/api": "/api",
    "/api.json": "/api.json",
    "/api/v1/bundles/<path:service>/<measurement>": f"/api/v1/bundles/{SERVICE}/{ID}",
    "/api/v1/collateral/<platform>/<product>": "/api/v1/collateral/tdx/b0c06f000000",
    "/api/v1/consistency": "/api/v1/consistency?old=2",
    "/api/v1/cose/consistency/<size>": "/api/v1/cose/consistency/2",
    "/api/v1/cose/inclusion/<name>": "/api/v1/cose/inclusion/0",
    "/api/v1/entries/<index>": "/api/v1/entries/0",
    "/api/v1/entries/by-hash/<digest>": "/api/v1/entries/by-hash/GENESIS",
    "/api/v1/log": "/api/v1/log",
    "/api/v1/measurements/<path:service>/<measurement>": f"/api/v1/measurements/{SERVICE}/{ID}",
    "/api/v1/proofs/<name>": "/api/v1/proofs/0",
    "/api/v1/search": "/api/v1/search?q=chat",
    "/api/v1/services": "/api/v1/services",
    "/api/v1/services/<path:service>": f"/api/v1/services/{SERVICE}",
    "/api/v1/tcb/<platform>": "/api/v1/tcb/sim-tdx",
    "/audit": "/audit",
    "/audit.json": "/audit.json",
    "/builders": "/builders",
    "/builders.atom": "/builders.atom",
    "/builders.json": "/builders.json",
    "/checkpoint": "/checkpoint",
    "/compare": "/compare",
    "/compare.json": "/compare.json",
    "/digests/<digest>": f"/digests/{'03' * 32}",
    "/digests/<digest>.json": f"/digests/{'03' * 32}.json",
    "/entries": "/entries",
    "/entries.atom": "/entries.atom",
    "/entries.json": "/entries.json",
    "/entries/<int:index>": "/entries/2",
    "/entries/<int:index>.json": "/entries/2.json",
    "/healthz": "/healthz",
    "/index.json": "/index.json",
    "/log": "/log",
    "/log.json": "/log.json",
    "/log/checkpoints": "/log/checkpoints",
    "/log/checkpoints.atom": "/log/checkpoints.atom",
    "/log/checkpoints.json": "/log/checkpoints.json",
    "/log/checkpoints/<int:size>": "/log/checkpoints/2",
    "/log/checkpoints/<int:size>.json": "/log/checkpoints/2.json",
    "/log/consistency": "/log/consistency",
    "/log/consistency.json": "/log/consistency.json",
    "/log/growth": "/log/growth",
    "/log/growth.json": "/log/growth.json",
    "/measurements/<path:service>/<string(length=64):digest>": f"/measurements/{SERVICE}/{ID}",
    "/measurements/<path:service>/<string(length=64):digest>.json": f"/measurements/{SERVICE}/{ID}.json",
    "/openapi.json": "/openapi.json",
    "/policies": "/policies",
    "/policies.json": "/policies.json",
    "/problems/<name>": "/problems/reserved",
    "/readyz": "/readyz",
    "/rebuilds": "/rebuilds",
    "/rebuilds.atom": "/rebuilds.atom",
    "/rebuilds.json": "/rebuilds.json",
    "/releases": "/releases",
    "/releases.atom": "/releases.atom",
    "/releases.json": "/releases.json",
    "/releases/<int:index>": "/releases/4",
    "/releases/<int:index>.json": "/releases/4.json",
    "/revocations": "/revocations",
    "/revocations.atom": "/revocations.atom",
    "/revocations.json": "/revocations.json",
    "/search": "/search?q=chat",
    "/search.json": "/search.json?q=chat",
    "/services": "/services",
    "/services.json": "/services.json",
    "/services/<path:service>/": f"/services/{SERVICE}/",
    "/services/<path:service>/feed.atom": f"/services/{SERVICE}/feed.atom",
    "/services/<path:service>/index.json": f"/services/{SERVICE}/index.json",
    "/signed/tile/<path:rest>": "/signed/tile/entries/000.p/2",
    "/static/<name>": "/static/style.css",
    "/status": "/status",
    "/status.json": "/status.json",
    "/tcb": "/tcb",
    "/tcb.json": "/tcb.json",
    "/tile/<path:rest>": "/tile/entries/000.p/2",
    "/trust": "/trust",
    "/trust.json": "/trust.json",
    "/verify": "/verify",
    "/verify.json": "/verify.json",
    "/verify/standalone.html": "/verify/standalone.html",
    "/witnesses": "/witnesses",
    "/witnesses.json": "/witnesses.json",
}

Make = Callable[[Authority, Sequence[str], bytes], bytes]

# What can be written, and which roles may write it; every other cell is refused.
ACTS: dict[str, tuple[Make, set[str]]] = {
    "release": (lambda by, who, _: by.release("new", signers=who, sequence=9), {"builder of the service"}),
    "delegation": (
        lambda by, who, _: by.delegation(signers=who, sequence=3, expires="2027-01-01T00:00:00Z"),
        {"owner"},
    ),
    "rebuild": (
        lambda by, who, release: by.rebuild(release, {"a": True}, signers=who, sequence=9),
        {"rebuilder"},
    ),
    "revocation of a release": (
        lambda by, who, release: by.revocation(release, signers=who, sequence=9),
        {"builder of the service", "security", "root"},
    ),
    "suspension": (
        lambda by, who, _: by.revocation(["a"], signers=who, sequence=9, suspend=timedelta(hours=9)),
        {"builder of the service", "security", "root"},
    ),
    "revocation everywhere": (
        lambda by, who, _: by.revocation(["a"], service="log", signers=who, sequence=9),
        {"security", "root"},
    ),
    "tcb floor": (lambda by, who, _: by.floor(signers=who, sequence=9), {"tcb", "root"}),
    "allocation": (lambda by, who, _: by.allocation("fresh", signers=who), {"root"}),
    "delegation of the log": (
        lambda by, who, _: by.delegation(
            "log", signers=who, sequence=2, keys=keys("root1"), roles={"root": role(["root1"], 1)}
        ),
        {"root"},
    ),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Local, bytes]]:
    with local(tmp_path_factory.mktemp("roles")) as log:
        log.loop.round()
        made = log.authority
        other = {"owner": role(["owner8", "owner9"], 2)}
        log.append(made.allocation(), made.delegation(), release := made.release("a"))
        log.append(made.allocation(OTHER, keys=keys("owner8", "owner9"), roles=other))
        named = {**other, "builder": role(["builder8"], 1)}
        members = keys("owner8", "owner9", "builder8")
        log.append(made.delegation(OTHER, signers=("owner8", "owner9"), keys=members, roles=named))
        log.append(made.release("b", service=OTHER, signers=["builder8"]))
        assert all(outcome.effect for outcome in log.store.read.outcomes(0, 99))
        documents = {"crl": Answer({}, b"from a vendor", made.now)}
        Collateral(log.config.collateral_folder).keep(DocumentSet("tdx", "b0c06f000000", documents))
        yield log, release


@pytest.fixture(scope="module")
def client(scene: tuple[Local, bytes]) -> FlaskClient:
    return scene[0].client()


def credentials(who: Sequence[str]) -> dict[str, str]:
    """What somebody might send who believes that headers mean something here."""
    signature = b64(key(who[0]).sign(b"GET"))
    word = f'Signature keyId="{keyid(who[0])}",signature="{signature}"'
    return {"Authorization": word, "Cookie": f"session={keyid(who[0])}", "X-Role": "root"}


def test_a47_every_route_of_the_application_is_listed_here(client: FlaskClient) -> None:
    found = {rule.rule: rule.methods or set() for rule in client.application.url_map.iter_rules()}
    assert found.keys() == {*WRITES, *CALCULATES, *READS}
    for rule, methods in found.items():
        assert methods <= ({"GET", "HEAD"} if rule in READS else {"POST"}), rule


@pytest.mark.parametrize("rule", READS)
def test_a47_a_read_is_the_same_for_every_role(client: FlaskClient, rule: str) -> None:
    genesis = client.get("/api/v1/entries/0").headers["Quotary-Leaf-Hash"]
    path = READS[rule].replace("GENESIS", genesis)
    bare = client.get(path)
    assert bare.status_code == 200
    for who in ROLES.values():
        found = client.get(path, headers=credentials(who))
        assert (found.status_code, _lasting(found.data)) == (bare.status_code, _lasting(bare.data))


@pytest.mark.parametrize("rule", sorted(CALCULATES))
def test_a47_a_calculation_is_the_same_for_every_role_and_changes_nothing(
    scene: tuple[Local, bytes], client: FlaskClient, rule: str
) -> None:
    before = scene[0].store.read.entries(0, 99)
    found = {client.post(rule, data=scene[1], headers=credentials(who)).data for who in ROLES.values()}
    assert len(found) == 1
    assert scene[0].store.read.entries(0, 99) == before


@pytest.mark.parametrize("role_name", ROLES)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("rule", sorted(WRITES))
def test_a47_a_write_is_for_the_roles_that_are_named_for_it(
    scene: tuple[Local, bytes], client: FlaskClient, rule: str, act: str, role_name: str
) -> None:
    log, release = scene
    make, allowed = ACTS[act]
    by = _copy(log.authority)
    entry = make(by, ROLES[role_name], release)
    # What is admitted is forgotten again, and a worker that knew of it with it.
    worker = log.client() if role_name in allowed else client
    answer = worker.post(rule, data=entry, headers=credentials(("root1",)))
    # The first line of a batch's answer is its entry's; a promise may follow.
    line = answer.data.splitlines()[0]
    status = answer.status_code if rule == "/api/v1/entries" else json.loads(line)["status"]
    waiting = log.store.read.waiting(9)
    log.store.write.forget([row.id for row in waiting])
    if role_name in allowed:
        assert (status, [row.data for row in waiting]) == (202, [entry])
    else:
        assert (status, waiting) == (403, [])


def test_a47_nothing_of_a_service_is_open_to_the_keys_of_another() -> None:
    strangers = {"none", "builder of another service", "owner of another service"}
    assert all(not strangers & allowed for _, allowed in ACTS.values())


def _copy(authority: Authority) -> Authority:
    return Authority(
        authority.origin, authority.now, dict(authority.sequences), dict(authority.last_delegation)
    )


def _lasting(body: bytes) -> bytes:
    """What is said without its clock and without the disk."""
    return re.sub(rb"[0-9]+ (s ago|s\n|bytes)", b"", body)
