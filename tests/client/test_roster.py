"""A client picks its instance out of the log: by its own randomness, out of what everybody sees, and no other."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from enclave.gateway import Gateway
from quotary import Client
from quotary.canonical import time_text
from quotary.client.clock import FixedClock
from quotary.client.oblivious import GATEWAY_PATH
from quotary.client.policy import Policy
from quotary.client.roster import LEAST, MOST_BUNDLES, Roster, read_roster
from quotary.client.roster_maker import RosterMaker
from quotary.client.source import CHECKPOINT, Files
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, QuotaryError, Refused, Rejected
from quotary.net.transport import Reply, Request, Stream
from quotary.statements.envelope import sign
from quotary.statements.schema import statement_payload
from tests.cli.conftest import Live, Run, live, run
from tests.fakes import authority
from tests.fakes.enclave import FakeEnclave, over_http
from tests.fakes.files import MemorySource, files_of
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World

__all__ = ["live", "run"]
KEYSET, HOUR = "keyset", timedelta(hours=1)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "roster.md"
OTHERS = {"b": b"\x0b" * 32, "c": b"\x0c" * 32}


@dataclass(slots=True)
class Relay:
    """A relay with one enclave behind each of its names, and the log beside it; it remembers what it passed on."""

    enclaves: dict[str, FakeEnclave]
    asked: list[str]

    def send(self, request: Request) -> Reply:
        name, _, rest = request.url.removeprefix("http://relay/").partition("/")
        if name not in self.enclaves:
            return next(iter(self.enclaves.values())).send(request)
        self.asked.append(name)
        path = f"{GATEWAY_PATH}/keys" if rest == "keys" else f"/v1/{rest}"
        return self.enclaves[name].send(Request(f"http://enclave{path}", limits=request.limits))

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        name = request.url.removeprefix("http://relay/")
        sent = Request(f"http://enclave{GATEWAY_PATH}", "POST", request.body, request.headers)
        with self.enclaves[name].open(sent) as stream:
            yield stream


@pytest.fixture
def world(world: World) -> World:
    """The world's service, whose owners gave ``builder1`` the role of rosters, too."""
    world.log.append(world.log.maker.delegation(notices=(KEYSET,)))
    return world


@pytest.fixture
def enclave(world: World) -> FakeEnclave:
    return FakeEnclave(world, gateway=Gateway())


def rostered(
    world: World, keysets: dict[str, bytes], signers: Sequence[str] = ("builder1",), minutes: int = 30
) -> bytes:
    """Log a roster whose keysets end in so many minutes, and close the interval."""
    items = [{"name": name, "sha256": keysets[name].hex()} for name in sorted(keysets)]
    data = dict.fromkeys(keysets, time_text(world.now + timedelta(minutes=minutes)))
    entry = world.log.maker.notice(KEYSET, signers=signers, items=items, data=data)
    world.log.append(entry)
    world.log.close(world.ts)
    return entry


def policy_of(world: World) -> Policy:
    return Policy.parse(policy_bytes(world.policy()))


def read(world: World, source: MemorySource | None = None, memory: ProcessMemory | None = None) -> Roster:
    source = source or MemorySource(files_of(world.log.entries, world.ts))
    clock = FixedClock(world.now)
    return read_roster(
        Files(source), policy_of(world), authority.SERVICE, memory or ProcessMemory(), clock, Trail()
    )


def client_of(enclave: FakeEnclave, roster: Roster, name: str, relay: Relay) -> Client:
    picked = roster.pick(choose=lambda names: name)
    return Client(
        f"instance:{name}", policy_of(enclave.world), log_url="http://log", transport=relay,
        clock=FixedClock(enclave.world.now), relay=f"http://relay/{name}", picked=picked,
    )  # fmt: skip


def test_the_instance_that_was_picked_is_asked_through_the_relay(enclave: FakeEnclave) -> None:
    rostered(enclave.world, {"a": enclave.keys.digest, **OTHERS})
    relay = Relay({"a": enclave}, [])
    assert client_of(enclave, read(enclave.world), "a", relay).chat("x").text == "a log"
    assert set(relay.asked) == {"a"}


def test_each_instance_is_picked_about_as_often(world: World) -> None:
    names = [f"i{number}" for number in range(4)]
    rostered(world, {name: bytes([number]) * 32 for number, name in enumerate(names)})
    # A second keyset of one instance, as at a rotation, gives it no second chance.
    rostered(world, {"i0": b"\xaa" * 32})
    roster = read(world)
    assert roster.keysets["i0"] == {b"\x00" * 32, b"\xaa" * 32}
    seen = Counter(roster.pick().name for _ in range(4000))
    assert set(seen) == set(names)
    # Chi square with three degrees of freedom: above 27 less than once in a hundred thousand.
    assert sum((count - 1000) ** 2 / 1000 for count in seen.values()) < 27


def test_a_machine_whose_keyset_the_log_does_not_have_gets_no_prompt(enclave: FakeEnclave) -> None:
    """The operator answers for the picked name with a machine that was made for this client."""
    rostered(enclave.world, {"a": b"\x0a" * 32, **OTHERS})
    with pytest.raises(Refused) as caught:
        client_of(enclave, read(enclave.world), "a", Relay({"a": enclave}, [])).chat("a secret")
    assert (caught.value.check, caught.value.found) == ("roster", f"keyset {enclave.keys.digest.hex()}")
    assert enclave.prompts == []


def test_another_instance_cannot_stand_in_for_the_picked_one(enclave: FakeEnclave) -> None:
    rostered(enclave.world, {"a": b"\x0a" * 32, "b": enclave.keys.digest})
    with pytest.raises(Refused, match="roster"):
        client_of(enclave, read(enclave.world), "a", Relay({"a": enclave}, [])).verify()


def test_a_log_that_hides_a_roster_from_one_client_is_found_out(world: World) -> None:
    """Its index may leave out what it likes; entries are read by number, under the checkpoint that all see."""
    hidden = rostered(world, {"a": b"\x0a" * 32, **OTHERS})
    files = files_of(world.log.entries, world.ts)
    shown = [world.log.entries[1] if entry == hidden else entry for entry in world.log.entries]
    forged = files_of(shown, world.ts) | {CHECKPOINT: files[CHECKPOINT]}
    with pytest.raises(QuotaryError) as caught:
        read(world, MemorySource(forged))
    assert caught.value.exit_code == 10
    # A history of its own, with signatures of the log and of witnesses: what was accepted before speaks against it.
    memory = ProcessMemory()
    read(world, memory=memory)
    with pytest.raises(QuotaryError) as caught:
        read(world, MemorySource(files_of(shown, world.ts)), memory)
    assert caught.value.exit_code in (10, 11)


def test_a_roster_for_one_client_is_everybodys(world: World) -> None:
    """An operator who logs another roster before it shows the log to one client takes nothing away by it."""
    rostered(world, {"a": b"\x0a" * 32, **OTHERS})
    rostered(world, {"trap": b"\xee" * 32})
    assert set(read(world).keysets) == {"a", "b", "c", "trap"}


@pytest.mark.parametrize("count", range(LEAST))
def test_no_choice_is_refused(world: World, count: int) -> None:
    if count:
        rostered(world, {"a": b"\x0a" * 32})
    else:
        world.log.close(world.ts)
    with pytest.raises(Refused, match=f"{count} instances"):
        read(world).pick()


def test_a_keyset_that_has_ended_is_not_offered(world: World) -> None:
    rostered(world, {"old": b"\x01" * 32}, minutes=0)
    rostered(world, OTHERS)
    assert set(read(world).keysets) == set(OTHERS)


def test_a_roster_that_is_older_than_an_hour_is_not_read(world: World) -> None:
    rostered(world, {"a": b"\x0a" * 32}, minutes=300)
    world.log.close(world.ts)
    world.now += 2 * HOUR
    world.log.close(world.ts)
    rostered(world, OTHERS)
    assert set(read(world).keysets) == set(OTHERS)


def test_one_keyset_under_two_names_is_refused(world: World) -> None:
    rostered(world, {"a": b"\x0a" * 32, **OTHERS})
    rostered(world, {"d": OTHERS["b"]})
    with pytest.raises(Refused, match="each of one instance"):
        read(world)


def test_rosters_of_other_services_logs_and_shapes_are_none(world: World) -> None:
    rostered(world, OTHERS)
    maker, item = world.log.maker, {"name": "x", "sha256": "ee" * 32}
    world.log.append(
        maker.notice(KEYSET, service="other", items=[item], data={"x": time_text(world.now + HOUR)}),
        maker.notice(KEYSET, items=[item]),
        maker.notice(KEYSET, items=[item], data={"x": "soon"}),
        maker.notice("artefact", items=[item], data={"x": time_text(world.now + HOUR)}),
    )
    world.log.close(world.ts)
    assert set(read(world).keysets) == set(OTHERS)


def test_a_roster_that_the_service_did_not_sign_is_refused_before_a_prompt(enclave: FakeEnclave) -> None:
    rostered(enclave.world, {"a": enclave.keys.digest, **OTHERS})
    rostered(enclave.world, {"trap": b"\xee" * 32}, signers=["rebuilder1"])
    with pytest.raises(Refused, match="0 signatures of the role"):
        client_of(enclave, read(enclave.world), "a", Relay({"a": enclave}, [])).verify()


def test_a_signature_that_does_not_hold_is_rejected(enclave: FakeEnclave) -> None:
    entry = rostered(enclave.world, {"a": enclave.keys.digest, **OTHERS})
    other = rostered(enclave.world, {"a": enclave.keys.digest, **OTHERS})
    spoiled = json.loads(entry) | {"signatures": json.loads(other)["signatures"]}
    roster = read(enclave.world)
    from quotary.canonical import canonical

    bad = replace(roster, entries={7: canonical(spoiled)})
    with pytest.raises(Rejected, match="entry 7"):
        client_of(enclave, bad, "a", Relay({"a": enclave}, [])).verify()


def test_a_service_without_the_role_has_no_rosters(vendor: tuple, tmp_path: Path) -> None:  # type: ignore[type-arg]
    world = World(*vendor).publish()
    enclave = FakeEnclave(world, gateway=Gateway())
    rostered(world, {"a": enclave.keys.digest, **OTHERS})
    with pytest.raises(Refused, match="no role keyset"):
        client_of(enclave, read(world), "a", Relay({"a": enclave}, [])).verify()


def test_an_hour_with_more_entries_than_a_client_reads_is_no_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_BUNDLES >= 64
    monkeypatch.setattr("quotary.client.roster.MOST_BUNDLES", 1)
    world.log.append(*(world.log.maker.release(f"r{number}") for number in range(260)))
    rostered(world, OTHERS)
    with pytest.raises(CannotTell, match="entries in an hour"):
        read(world)


@dataclass(slots=True)
class Instances:
    """Enclaves by address, for who makes rosters."""

    enclaves: dict[str, FakeEnclave]

    def send(self, request: Request) -> Reply:
        for url, enclave in self.enclaves.items():
            if request.url == f"{url}/v1/attestation":
                return Reply(200, {}, enclave.world.document(nonce=None, keys=enclave.keys).encode())
        raise CannotTell("away")

    def open(self, request: Request):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing here is streamed")


def test_a_roster_is_made_of_what_answers_and_made_again_when_keys_change(enclave: FakeEnclave) -> None:
    known = Instances({"http://a": enclave})
    clock = FixedClock(enclave.world.now)
    maker = RosterMaker({"a": "http://a", "b": "http://b"}, authority.SERVICE, authority.ORIGIN, known, clock)
    made = maker.made()
    assert made is not None
    assert made.keysets == {"a": enclave.keys.digest}
    enclave.world.log.append(sign(made.payload, [authority.key("builder1")]))
    rostered(enclave.world, OTHERS)
    assert set(read(enclave.world).keysets) == {"a", *OTHERS}
    maker.logged(made)
    assert maker.made() is None
    enclave.gateway = Gateway()
    assert maker.made() is not None
    known.enclaves.clear()
    with pytest.raises(CannotTell):
        maker.made()
    known.enclaves["http://a"] = enclave
    with pytest.raises(Refused, match="an instance of"):
        RosterMaker({"a": "http://a"}, "other", authority.ORIGIN, known, clock).made()


def test_the_commands_show_and_refuse(run: Run, live: Live) -> None:
    world = live.world
    world.log.append(world.log.maker.delegation(notices=(KEYSET,)))
    rostered(world, {"a": b"\x0a" * 32, **OTHERS})
    files, enclave = files_of(world.log.entries, world.ts), FakeEnclave(world)
    enclave.files = files
    judged = ("--policy", live.policy, "--simulation")
    with over_http(enclave) as url:
        ran = run("roster", "show", *judged, "--log", url, "--json")
        assert ran.code == 0, ran.err
        assert set(json.loads(ran.out)["instances"]) == {"a", "b", "c"}
        assert "not checked: that the service" in run("roster", "show", *judged, "--log", url).out
        words = ("chat", *judged, "--log", url, "--prompt", "x")
        ran = run(*words, "--relay", f"{url}/relay", "--pick", "--least", "4")
        assert (ran.code, "3 instances" in ran.err) == (11, True)
        ran = run(*words, "--relay", f"{url}/relay", "--pick")
        assert "picked " in ran.err
        assert ran.code == 40  # nobody answers for it here
        assert run(*words, "--pick").code == 2
        assert run("chat", url, *words[1:], "--relay", url, "--pick").code == 2
        assert run(*words).code == 2
    assert enclave.prompts == []


def test_the_page_shows_a_roster(world: World) -> None:
    text = PAGE.read_text().split("```json roster\n")[1].split("\n```")[0]
    world.log.append(sign(statement_payload(KEYSET, json.loads(text)), [authority.key("builder1")]))
    world.log.close(world.ts)
    assert read(world).pick().name in {"a", "b"}
