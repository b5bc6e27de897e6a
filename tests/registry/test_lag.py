"""When witnesses cosigned: kept by the sequencer, bounded, shown as picture and table; nothing rests on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.lag import KEPT, LEAST_SECONDS, MAX_WITNESSES, History, longest_gap, read_history
from tests.fakes.inprocess import Local
from tests.fakes.network import URLS, Network, witnessed

AT = 1_795_000_000


def test_times_are_kept_over_a_restart_and_no_closer_than_a_minute(tmp_path: Path) -> None:
    file = tmp_path / "cosignatures.json"
    history = History(file)
    history.add([("https://w", AT), ("https://x", None)])
    history.add([("https://w", AT + LEAST_SECONDS - 1)])
    assert read_history(file) == {"https://w": (AT,)}
    History(file).add([("https://w", AT + LEAST_SECONDS), ("https://x", AT)])
    assert read_history(file) == {"https://w": (AT, AT + LEAST_SECONDS), "https://x": (AT,)}


def test_what_is_kept_is_bounded_in_times_and_in_witnesses(tmp_path: Path) -> None:
    file = tmp_path / "cosignatures.json"
    history = History(file)
    for number in range(KEPT + 5):
        history.add([("https://w", AT + number * LEAST_SECONDS)])
    assert len(read_history(file)["https://w"]) == KEPT
    assert read_history(file)["https://w"][0] == AT + 5 * LEAST_SECONDS
    history.add((f"https://w{number}", AT + 10 * KEPT * LEAST_SECONDS) for number in range(MAX_WITNESSES))
    assert len(read_history(file)) == MAX_WITNESSES
    assert "https://w" not in read_history(file), "the one that was silent longest goes"


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"v":1,"witnesses":[{"times":["x"],"url":"https://w"}]}', b'{"v":2,"witnesses":[]}'],
)
def test_a_file_that_is_none_of_ours_is_no_history_and_no_stop(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "cosignatures.json"
    file.write_bytes(data)
    assert read_history(file) == {}
    History(file).add([("https://w", AT)])
    assert read_history(file) == {"https://w": (AT,)}


def test_the_longest_silence_lasts_until_now() -> None:
    assert longest_gap((), AT) is None
    assert longest_gap((AT, AT + 100, AT + 160), AT + 170) == (100, AT)
    assert longest_gap((AT, AT + 100, AT + 160), AT + 400) == (240, AT + 160)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def log(tmp_path: Path, network: Network) -> Iterator[Local]:
    with witnessed(tmp_path, network) as found:
        yield found


def test_a_witness_that_was_away_is_seen_on_the_page_after_it_came_back(log: Local, network: Network) -> None:
    for away in (False, True, True, True, False):
        network.away = {URLS[0]} if away else set()
        log.clock.forward(300)
        log.publisher.retry_now(refresh=True)
        log.loop.round()
    found = log.client().get("/witnesses.json").json
    kept = {line["name"]: (line["late"], line["silent_seconds"]) for line in found["history"]}
    assert kept[found["witnesses"][0]["name"]] == (True, 1200)
    assert {kept[line["name"]] for line in found["witnesses"][1:]} == {(False, 300)}
    page = log.client().get("/witnesses").get_data(as_text=True)
    assert "When each witness cosigned" in page
    assert "1200 s" in page
