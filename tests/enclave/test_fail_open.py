"""Whatever breaks between start and answer, nothing is served.

Each call of the code that decides about serving is made to raise, one after the other, in a machine that would serve
otherwise; then it is asked. What was reached and what was not is counted and printed.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from builder.model import MadeModel
from enclave import serve
from enclave.api import create_app
from enclave.boot import Machine, Setup
from enclave.runtime import Enclave, Terms
from enclave.transformer import TransformerModel
from quotary.client.policy import EnclaveRules
from quotary.client.sealed import MEDIA_TYPE, Head, seal_request
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, QuotaryError
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.enclave.sites import Hits, Site, broken, sites_of, traced
from tests.enclave.test_boot_check import machine, vendor  # noqa: F401  # a fixture
from tests.fakes.authority import SERVICE

# Where it is decided whether a prompt is answered. What comes after that decision (the model, the receipt) may fail in
# the middle of an answer, and the client sees that by the end that is missing (tests/client/test_sealed.py).
SEARCHED = (
    "enclave.api",
    "enclave.batches",
    "enclave.boot",
    "enclave.keyset",
    "enclave.lifecycle",
    "enclave.replay",
    "enclave.runtime",
    "enclave.serve",
    "quotary.client.appraisal",
    "quotary.client.authority",
    "quotary.client.standing",
    "quotary.client.verify",
)
# Where closing the door is itself what is broken, the age of the checkpoint closes it (test_lifecycle.py:
# test_an_old_checkpoint_admits_nobody_even_if_nobody_watches).
LAST = {("Enclave._change", "change")}
ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: RuntimeError("forced"),
    lambda: CannotTell("forced"),
)


@dataclass(slots=True)
class Served:
    """A machine that would serve, and how to ask it."""

    setup: Setup
    options: serve.Options
    load: Callable[[bytes], TransformerModel]
    patch: pytest.MonkeyPatch

    def preflight(self) -> None:
        """The parent's check, with the variables of a measured start."""
        with self.patch.context() as patch:
            patch.setattr(os, "environ", {})
            serve.preflight(self.options, Trail())

    def enclave(self) -> Enclave:
        setup = replace(self.setup, memory=ProcessMemory())
        return Enclave(Terms(SERVICE, EnclaveRules(30, True), 900), Machine(setup), setup.clock)

    def started(self) -> Enclave:
        """Start as the command does: the check in the parent, then the worker's own, then the model."""
        enclave = self.enclave()
        self.preflight()
        enclave.start(self.load)
        return enclave

    def sealed(self, enclave: Enclave) -> bytes:
        """Ask through the channel, and give what a client could read of the answer."""
        # The private list, because the way to it may be what is broken.
        keyset = enclave.keys._live[0]
        now = int(self.setup.clock.now().timestamp())
        head = Head.new("POST", "/v1/chat/completions", at=now, min_log_size=1)
        wire, opener = seal_request(head, question(), keyset.channel.public, keyset.digest)
        reply = create_app(enclave).test_client().post("/v1/sealed", data=wire, content_type=MEDIA_TYPE)
        return opener.feed(reply.data)

    def plain(self, enclave: Enclave) -> bytes:
        """Ask in the clear, which the policy of this search allows."""
        http = create_app(enclave).test_client()
        return http.post("/v1/chat/completions", data=question()).data

    def opened(self, enclave: Enclave, hits: Hits) -> list[str]:
        """Name the doors that answer although what decides about them is broken."""
        doors, before = [], hits.count
        for door in (self.sealed, self.plain):
            reached = hits.count
            with suppress(QuotaryError, RuntimeError, IndexError):
                if b"choices" in door(enclave) and (before or hits.count > reached):
                    doors.append(door.__name__)
        return doors


def question() -> bytes:
    messages = [{"role": "user", "content": "x"}]
    asked = {"model": SERVICE, "messages": messages, "max_tokens": 1, "temperature": 0}
    return json.dumps(asked).encode()


@pytest.fixture
def served(
    vendor: tuple[PKI, Platform],  # noqa: F811
    model: MadeModel,
    loaded: TransformerModel,
    monkeypatch: pytest.MonkeyPatch,
) -> Served:
    made, _ = machine(vendor, weights_sha256=model.digest.hex())
    return Served(
        made.setup, serve.Options(made.setup, model.folder, "cpu"), lambda digest: loaded, monkeypatch
    )


def after_start(served: Served, site: Site, error: Callable[[], BaseException]) -> tuple[int, list[str]]:
    """Break the site before the start; give how often it was reached, and the doors that stood open."""
    enclave = served.enclave()
    with broken(site, error) as hits:
        # Where this fails the command ends. Whoever asks the application all the same gets nothing either.
        with suppress(QuotaryError, RuntimeError):
            served.preflight()
            enclave.start(served.load)
        opened = served.opened(enclave, hits)
    enclave.close()
    return hits.count, opened


def after_poll(served: Served, site: Site, error: Callable[[], BaseException]) -> tuple[int, list[str]]:
    """Break the site in a serving machine, and let it ask the log again."""
    enclave = served.started()
    with broken(site, error) as hits:
        with suppress(QuotaryError, RuntimeError):
            enclave.poll()
        opened = served.opened(enclave, hits)
    enclave.close()
    return hits.count, opened


def test_the_machine_of_this_search_serves_when_nothing_is_broken(served: Served) -> None:
    enclave = served.started()
    for door in (served.sealed, served.plain):
        assert b"choices" in door(enclave)
    enclave.poll()
    for door in (served.sealed, served.plain):
        assert b"choices" in door(enclave)
    enclave.close()


def search(served: Served, part: slice, capsys: pytest.CaptureFixture[str]) -> None:
    sites, found = sites_of(SEARCHED), []
    with traced(SEARCHED) as seen:
        enclave = served.started()
        served.sealed(enclave)
        served.plain(enclave)
    with traced(SEARCHED) as seen_later:
        enclave.poll()
    enclave.close()
    ways = [(after_start, site) for site in sites if site.ran(seen)]
    ways += [(after_poll, site) for site in sites if site.ran(seen_later)]
    broken = 0
    for number, (way, site) in enumerate(ways[part]):
        count, doors = way(served, site, ERRORS[number % len(ERRORS)])
        broken += bool(count)
        if (site.function, site.text) not in LAST:
            found += [f"{way.__name__}, {door}: {site}" for door in doors]
    with capsys.disabled():
        print(
            f"\nfail-open search: {len(sites)} call sites, {len(ways)} ways, {broken} broken, {len(found)} doors open"
        )
    assert found == []
    assert broken > 0


def test_whichever_third_call_fails_on_the_way_to_an_answer_nothing_is_served(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    search(served, slice(1, None, 3), capsys)


@pytest.mark.soak
def test_whatever_call_fails_on_the_way_to_an_answer_nothing_is_served(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    search(served, slice(None), capsys)
