"""Atom feeds (RFC 4287) of every list; an id names log and index, and is the same on any server."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Response, render_template, request

from registry.errors import NotFound
from registry.pages.checkpoints import checkpoints as checkpoint_lines
from registry.pages.lookup import WINDOW, described, iso, listed, log_time, statement_at
from registry.pages.revocations import timeline
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

PAGE = 20

_NOT_IN_XML = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a feed; ``link`` is the path of its page, ``id`` what tells it apart in the feed."""

    id: int
    title: str
    at: str
    link: str
    summary: str


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed under a name that stays; ``page`` is the path of the list as a page."""

    name: str
    title: str
    page: str
    items: tuple[Item, ...]


def entries(site: Site) -> Feed:
    snapshot = site.public.snapshot()
    newest = range(snapshot.size - 1, max(-1, snapshot.size - 1 - PAGE), -1)
    items = []
    for found in described(site, newest, snapshot):
        row = site.store.read.outcome(found.index)
        # What only the log makes stands in an interval with its state entry right behind it, or is that.
        last = snapshot.size - 1
        closed = row.closed_by if row else min(found.index + (found.kind != "state"), last)
        items.append(_item(found.index, found.kind, log_time(site, closed, snapshot), found.summary))
    return Feed("entries", "Entries", "/entries", tuple(items))


def releases(site: Site) -> Feed:
    return Feed("releases", "Releases", "/releases", _kind(site, "release"))


def rebuilds(site: Site) -> Feed:
    return Feed("rebuilds", "Rebuilds", "/rebuilds", _kind(site, "rebuild"))


def delegations(site: Site) -> Feed:
    return Feed("builders", "Delegations", "/builders", _kind(site, "delegation"))


def revocations(site: Site) -> Feed:
    found: Any = timeline(site)["revocations"]
    items = []
    for one in found:
        until = f"suspended until {one['until']}" if one["action"] == "suspend" else "revoked"
        more = f" Advisory: {one['advisory']}" if one["advisory"] else ""
        more += f" Use instead: {one['replacement']['statement']}" if one["replacement"] else ""
        link = f"/entries/{one['index']}"
        title = f"{one['service']}: {until}"
        items.append(Item(one["index"], title, one["logged_at"], link, one["summary"] + more))
    return Feed("revocations", "Revocations", "/revocations", tuple(items))


def service(site: Site, service: str) -> Feed:
    snapshot = site.public.snapshot()
    rows = site.store.read.newest_of(service, snapshot.size, PAGE)[::-1]
    if not rows:
        raise NotFound(f"the log has no statement of the service {service[:100]}")
    page = f"/services/{service}/"
    return Feed(f"services/{service}", f"Service {service}", page, _items(site, rows, snapshot))


def checkpoints(site: Site) -> Feed:
    lines: Any = checkpoint_lines(site)["checkpoints"]
    items = tuple(
        Item(
            line["size"],
            f"{line['size']} entries",
            line["log_time"],
            f"/log/checkpoints/{line['size']}",
            f"root {line['root']}",
        )
        for line in lines
    )
    return Feed("checkpoints", "Checkpoints", "/log/checkpoints", items)


def rendered(site: Site, feed: Feed) -> Response:
    """Write a feed; of an empty one the time is that of entry 0."""
    snapshot = site.public.snapshot()
    begun = iso(statement_at(site, 0, snapshot).issued)
    authority, _, rest = site.config.origin.partition("/")
    text = render_template(
        "feed.xml",
        tag=f"tag:{quote(authority)},{begun[:10]}:{quote(rest + '/' if rest else '')}{quote(feed.name)}",
        feed=feed,
        path=request.path,
        updated=max((item.at for item in feed.items), default=begun),
    )
    return Response(text.translate(_NOT_IN_XML), content_type="application/atom+xml; charset=utf-8")


def _kind(site: Site, kind: str) -> tuple[Item, ...]:
    snapshot = site.public.snapshot()
    first = max(0, snapshot.size - WINDOW)
    return _items(site, site.store.read.newest_of_kind(kind, first, snapshot.size, PAGE), snapshot)


def _items(site: Site, rows: list[OutcomeRow], snapshot: Snapshot) -> tuple[Item, ...]:
    found = []
    for row in rows:
        (line,) = listed(described(site, [row.index], snapshot))
        found.append(
            _item(row.index, row.kind, log_time(site, row.closed_by, snapshot), str(line["summary"]))
        )
    return tuple(found)


def _item(index: int, kind: str, at: str, summary: str) -> Item:
    return Item(index, f"Entry {index}: {kind}", at, f"/entries/{index}", summary)
