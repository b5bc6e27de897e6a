"""XML as signed manifests use it: a strict reader and canonical XML (W3C xml-c14n11, inclusive, no comments).

Comments are skipped, as the canonical form skips them. Refused are document types, entities, processing
instructions, character data sections, ``xml:`` attributes and undeclared prefixes, so that what is left has
one canonical form that needs no context but the namespaces in scope. Whatever the bytes, only ``Malformed``
comes out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.parsers import expat

from quotary.errors import Malformed

MAX_DEPTH = 16
# NVIDIA's manifests have 85 elements of at most 12 attributes, and 4 namespaces. Each element is written with
# every namespace in scope, so that many of both cost their product.
MAX_ELEMENTS = 1024
MAX_ATTRIBUTES = 64
MAX_NAMESPACES = 16

_XML_PREFIX = "xml"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: its namespace (empty without prefix), local name, name as written, value."""

    namespace: str
    local: str
    written: str
    value: str


@dataclass(frozen=True, slots=True)
class Element:
    """One element.

    namespace, local: what it is;  written: its name as written, with prefix
    scope:      every namespace in scope, by prefix (the default one under the empty prefix)
    attributes: without namespace declarations
    children:   elements and text, in order
    """

    namespace: str
    local: str
    written: str
    scope: Mapping[str, str]
    attributes: tuple[Attribute, ...]
    children: tuple["Element | str", ...]

    @property
    def elements(self) -> tuple["Element", ...]:
        return tuple(child for child in self.children if isinstance(child, Element))

    @property
    def text(self) -> str:
        return "".join(child for child in self.children if isinstance(child, str))

    def value(self, local: str, namespace: str = "") -> str:
        """Give an attribute's value; one that is not there is ``Malformed``."""
        for attribute in self.attributes:
            if (attribute.namespace, attribute.local) == (namespace, local):
                return attribute.value
        raise Malformed(f"element {self.written} has no attribute {local}")

    def named(self, namespace: str, local: str) -> tuple["Element", ...]:
        """Give the child elements of a name."""
        return tuple(child for child in self.elements if (child.namespace, child.local) == (namespace, local))

    def only(self, namespace: str, local: str) -> "Element":
        """Give the one child element of a name."""
        found = self.named(namespace, local)
        if len(found) != 1:
            raise Malformed(f"element {self.written} has {len(found)} children {local}, one is needed")
        return found[0]

    def all(self) -> Iterator["Element"]:
        """Give this element and everything below it, in document order."""
        yield self
        for child in self.elements:
            yield from child.all()


def parse(data: bytes, limit: int) -> Element:
    """Read a UTF-8 document of at most ``limit`` bytes."""
    if len(data) > limit:
        raise Malformed(f"XML has {len(data)} bytes, at most {limit} are allowed")
    builder = _Builder()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.XmlDeclHandler = builder.declaration
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.ProcessingInstructionHandler = builder.refuse
    parser.StartCdataSectionHandler = builder.refuse
    try:
        # A byte order mark would make expat read UTF-16, whatever encoding it was told.
        parser.Parse(data.decode("utf-8"), True)
    except (expat.ExpatError, ValueError) as error:
        raise Malformed("not well-formed XML") from error
    # expat let exactly one element pass; text outside of it is not well formed.
    (root,) = (child for child in builder.stack[0].children if isinstance(child, Element))
    return root


def canonical(element: Element, without: Element | None = None) -> bytes:
    """Write an element in canonical form, as the apex of what is signed, leaving out ``without``."""
    parts: list[str] = []
    _write(element, {}, without, parts)
    return "".join(parts).encode()


@dataclass(slots=True)
class _Open:
    """An element that has begun; ``children`` grows until it ends."""

    head: tuple[str, str, str]
    scope: Mapping[str, str]
    attributes: tuple[Attribute, ...]
    children: list["Element | str"]


class _Builder:
    """expat's handlers; the bottom of the stack is the document, whose only child is the root element."""

    def __init__(self) -> None:
        self.stack: list[_Open] = [_Open(("", "", ""), {}, (), [])]
        self.left = MAX_ELEMENTS

    def declaration(self, version: str, encoding: str | None, _standalone: int) -> None:
        if version != "1.0" or (encoding or "utf-8").lower() != "utf-8":
            raise Malformed(f"XML is of version {version} in {encoding}, 1.0 in UTF-8 is needed")

    def start(self, name: str, flat: list[str]) -> None:
        self.left -= 1
        if len(self.stack) > MAX_DEPTH or self.left < 0 or len(flat) > 2 * MAX_ATTRIBUTES:
            raise Malformed(f"XML is deeper than {MAX_DEPTH}, or has too many elements or attributes")
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        declared = {
            _declared(written, value): value
            for written, value in pairs
            if written == "xmlns" or written.startswith("xmlns:")
        }
        scope = {**self.stack[-1].scope, **declared}
        if len(scope) > MAX_NAMESPACES:
            raise Malformed(f"XML has more than {MAX_NAMESPACES} namespaces in scope")
        attributes = tuple(
            Attribute(*_resolve(written, scope, ""), written, value)
            for written, value in pairs
            if written != "xmlns" and not written.startswith("xmlns:")
        )
        if len({(attribute.namespace, attribute.local) for attribute in attributes}) != len(attributes):
            raise Malformed(f"element {name} has an attribute twice")
        namespace, local = _resolve(name, scope, scope.get("", ""))
        self.stack.append(_Open((namespace, local, name), scope, attributes, []))

    def end(self, name: str) -> None:
        done = self.stack.pop()
        element = Element(*done.head, done.scope, done.attributes, tuple(done.children))
        self.stack[-1].children.append(element)

    def data(self, text: str) -> None:
        self.stack[-1].children.append(text)

    def refuse(self, *_: object) -> None:
        raise Malformed("XML has a document type, an instruction or a section of character data")


def _declared(written: str, value: str) -> str:
    prefix = written.removeprefix("xmlns").removeprefix(":")
    if prefix in (_XML_PREFIX, "xmlns") or (prefix and not value) or (":" in written and not prefix):
        raise Malformed(f"XML declares the prefix {prefix!r} in a way that is not allowed")
    return prefix


def _resolve(written: str, scope: Mapping[str, str], default: str) -> tuple[str, str]:
    prefix, colon, local = written.rpartition(":")
    if not colon:
        return default, written
    if not prefix or not local or prefix not in scope:
        raise Malformed(f"the prefix of {written!r} is not declared")
    return scope[prefix], local


def _write(element: Element, rendered: Mapping[str, str], without: Element | None, parts: list[str]) -> None:
    parts.append(f"<{element.written}")
    for prefix in sorted(element.scope):
        if element.scope[prefix] != rendered.get(prefix, ""):
            name = f"xmlns:{prefix}" if prefix else "xmlns"
            parts.append(f' {name}="{_attribute_text(element.scope[prefix])}"')
    for attribute in sorted(element.attributes, key=lambda item: (item.namespace, item.local)):
        parts.append(f' {attribute.written}="{_attribute_text(attribute.value)}"')
    parts.append(">")
    for child in element.children:
        if isinstance(child, str):
            parts.append(_text(child))
        elif child is not without:
            _write(child, element.scope, without, parts)
    parts.append(f"</{element.written}>")


def _text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\r", "&#xD;")


def _attribute_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return escaped.replace("\t", "&#x9;").replace("\n", "&#xA;").replace("\r", "&#xD;")
