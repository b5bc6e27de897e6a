"""The browser's verifier as one file that works from a disk: the same text as the modules of the site.

It is the same for every log and every server of one version, so that its digest can be logged and compared.
"""

import base64
import hashlib
import re
from functools import cache

import web

MODULES = (
    "ed25519.js", "trie.js", "documents.js", "statements.js", "verify.js", "panel.js", "owners.js",
    "bundle.js", "cbor.js", "x509.js", "layouts.js", "quote.js", "receipt.js", "devices.js", "kept.js",
    "pasted.js",
)  # fmt: skip
"""In the order of their imports."""
REPLAY = ("f1.js", "orders.js", "replay.js", "audit.js")
"""What ``/audit`` needs besides, and no saved page: it reads the log's files from where it was served."""
PARTS = ("paste", "outcome", "answers")
"""What this page and ``/verify`` have word for word."""
ITEM = "verify/standalone.html"

_IMPORT = re.compile(r'^import (\{[^}]*\})\s+from "\./([a-z0-9]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (async function|function|class|const) (\w+)", re.MULTILINE)
_EXPORTED = re.compile(r"^export \{ (\w+) \};$", re.MULTILINE)


@cache
def standalone() -> bytes:
    """Give the page."""
    style, script = _read("static", "style.css"), joined()
    directives = (
        "default-src 'none'",
        f"script-src {_source(script)}",
        f"style-src {_source(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    text = _read("templates", "standalone.html").replace("@POLICY@", "; ".join(directives))
    for part in PARTS:
        text = text.replace(f"@{part.upper()}@", _read("templates", f"{part}.html"))
    return text.replace("@STYLE@", style).replace("@SCRIPT@", script).encode()


def item() -> dict[str, object]:
    """Say the page as a statement names it (``items`` of an ``artefact``)."""
    page = standalone()
    return {"name": ITEM, "sha256": hashlib.sha256(page).hexdigest(), "size": len(page)}


def joined() -> str:
    """Write the modules as one script: each is a function whose exports the next one takes."""
    parts = ['"use strict";', "const modules = {};"]
    for name in MODULES:
        text = _IMPORT.sub(r'const \1 = modules["\2"];', _read("static", name))
        names = [match[2] for match in _EXPORT.finditer(text)] + _EXPORTED.findall(text)
        text = _EXPORTED.sub("", _EXPORT.sub(r"\1 \2", text))
        assert "\nexport " not in text, f"{name} exports in a form that is not known here"
        assert "\nimport " not in text, f"{name} imports in a form that is not known here"
        assert "</script" not in text.lower(), f"{name} would end the script"
        parts.append(f"modules[{name!r}] = (() => {{\n{text}\nreturn {{ {', '.join(names)} }};\n}})();")
    return "\n".join(parts) + "\n"


def _read(folder: str, name: str) -> str:
    return (web.FOLDER / folder / name).read_text("utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
