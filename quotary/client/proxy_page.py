"""What the proxy has verified, for people (one page, complete without scripts) and for programs (JSON)."""

import base64
import hashlib
import json
from html import escape

from quotary.canonical import time_text
from quotary.client.verdict import Verdict, documents

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;width:100%} .warn{border:3px solid #a40000;padding:.5em 1em}
th,td{text-align:left;vertical-align:top;padding:.25em .75em .25em 0;border-bottom:1px solid #ccc}
td{overflow-wrap:anywhere}
"""
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
PAGE_HEADERS = _ALWAYS | {"Content-Security-Policy": f"{_NOTHING}style-src 'sha256-{_STYLE_DIGEST}'"}
# For files whose scripts may speak to this proxy alone.
FILE_HEADERS = _ALWAYS | {
    "Content-Security-Policy": f"{_NOTHING}script-src 'self'; style-src 'self'; connect-src 'self'"
}


def document(url: str, verdict: Verdict | None, refusal: str) -> bytes:
    """Say as JSON what holds now. refusal: why nothing is forwarded, or empty."""
    found: dict[str, object] = {"schema": "quotary/proxy/v1", "url": url, "forwards": not refusal}
    if refusal:
        found["refusal"] = refusal
    if verdict is not None:
        found |= {
            "headline": verdict.headline,
            "service": verdict.service,
            "release": verdict.release,
            "measurement": verdict.measurement_id.hex(),
            "log": verdict.origin,
            "size": verdict.size,
            "judged_at": time_text(verdict.judged_at.replace(microsecond=0)),
            "simulated": verdict.simulated,
            "checks": documents(verdict.checks),
        }
    return json.dumps(found, indent=1).encode()


def page(url: str, verdict: Verdict | None, refusal: str) -> bytes:
    """Say the same as HTML."""
    parts = [f"<h1>What this proxy verified</h1><p>Machine: {escape(url)}</p>"]
    if verdict is not None and verdict.simulated:
        parts.append('<p class="warn">SIMULATED: this evidence proves nothing of any hardware.</p>')
    if refusal:
        parts.append(f'<p class="warn">Refused: nothing is forwarded now. {escape(refusal)}</p>')
    if verdict is not None:
        judged = time_text(verdict.judged_at.replace(microsecond=0))
        parts.append(f"<p>{escape(verdict.headline)}</p>")
        newest = "Newest judgement that held" if refusal else "Judged"
        parts.append(f'<p>{newest}: <time datetime="{judged}">{judged}</time></p>')
        rows = "".join(
            f"<tr><td>{escape(check.outcome)}<td>{escape(check.name)}<td>{escape(check.found)}"
            f"<td>{escape(check.wanted)}<td>{escape(check.anchor)}"
            for check in verdict.checks
        )
        parts.append(f"<table><tr><th>outcome<th>check<th>found<th>wanted<th>anchor{rows}</table>")
    parts.append(
        '<p><a href="/verdict.json">The same as JSON</a>, <a href="/enclave/">judged by your browser</a></p>'
    )
    head = f'<meta charset="utf-8"><title>quotary proxy</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'.encode()
