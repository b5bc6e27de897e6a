"""Strict XML and its canonical form, by the rules of W3C xml-c14n11."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import c14n
from quotary.errors import Malformed


def canonical(text: str) -> str:
    return c14n.canonical(c14n.parse(text.encode(), 1 << 16)).decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<a/>", "<a></a>"),
        ("<?xml version='1.0' encoding='utf-8'?>\n<a />\n", "<a></a>"),
        ("<a b='2' a='1'/>", '<a a="1" b="2"></a>'),
        ('<a b = "it\'s"/>', '<a b="it\'s"></a>'),
        ("<a b='&quot;&amp;&lt;>'/>", '<a b="&quot;&amp;&lt;>"></a>'),
        ("<a b='&#9;&#10;&#13; '/>", '<a b="&#x9;&#xA;&#xD; "></a>'),
        ("<a b='1\n2\t3'/>", '<a b="1 2 3"></a>'),
        ("<a>&lt;&gt;&amp;\"'&#13;\r\n</a>", "<a>&lt;&gt;&amp;\"'&#xD;\n</a>"),
        ("<a>&#x20AC;</a>", "<a>€</a>"),
        ("<!-- c --><a>1<!-- c -->2</a><!-- c -->", "<a>12</a>"),
        ('<a xmlns:p="u" xmlns="d" p:x="1" y="2"/>', '<a xmlns="d" xmlns:p="u" y="2" p:x="1"></a>'),
        ('<a xmlns="d"><b xmlns="d"/></a>', '<a xmlns="d"><b></b></a>'),
        ('<a xmlns="d"><b xmlns=""><c/></b></a>', '<a xmlns="d"><b xmlns=""><c></c></b></a>'),
        ('<a xmlns=""><b/></a>', "<a><b></b></a>"),
        ('<a xmlns:p="u"><b xmlns:p="u" xmlns:q="v"/></a>', '<a xmlns:p="u"><b xmlns:q="v"></b></a>'),
        ('<a xmlns:p="u"><b xmlns:p="w"/></a>', '<a xmlns:p="u"><b xmlns:p="w"></b></a>'),
        ('<a xmlns:b="1" xmlns:a="2" b:x="1" a:x="2"/>', '<a xmlns:a="2" xmlns:b="1" b:x="1" a:x="2"></a>'),
    ],
)
def test_the_canonical_form_is_the_one_of_the_specification(text: str, wanted: str) -> None:
    assert canonical(text) == wanted
    assert canonical(wanted) == wanted


def test_an_apex_shows_every_namespace_in_scope() -> None:
    root = c14n.parse(b'<a xmlns="d" xmlns:p="u"><p:b><c xmlns:q="v"/></p:b></a>', 1000)
    assert c14n.canonical(root.elements[0]) == b'<p:b xmlns="d" xmlns:p="u"><c xmlns:q="v"></c></p:b>'


def test_a_part_can_be_left_out_and_its_surroundings_stay() -> None:
    root = c14n.parse(b"<a>1 <b>2</b> <b>2</b> 3</a>", 1000)
    assert c14n.canonical(root, without=root.elements[0]) == b"<a>1  <b>2</b> 3</a>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a b='1' b='2'/>",
        "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
        "<p:a/>",
        "<a p:x='1'/>",
        "<:a/>",
        '<:a xmlns="urn:x"/>',
        "<a: xmlns:a='u'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:='u'/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:xmlns='u'/>",
        "<a xml:lang='en'/>",
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<a>&x;</a>",
        "<?x y?><a/>",
        "<a><?x y?></a>",
        "<a><![CDATA[x]]></a>",
        "<?xml version='1.1'?><a/>",
        "<?xml version='1.0' encoding='latin-1'?><a/>",
        "<a>\x01</a>",
        "<a" * 20,
        "<a>" * 17 + "</a>" * 17,
        "<a>" + "<b/>" * 4096 + "</a>",
        "<a " + " ".join(f"b{i}='1'" for i in range(65)) + "/>",
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        c14n.parse(text.encode(), 1 << 16)


def test_another_encoding_is_malformed() -> None:
    for data in ("<a>é</a>".encode("latin-1"), "<a/>".encode("utf-16"), b"\xff\xfe<a/>"):
        with pytest.raises(Malformed):
            c14n.parse(data, 100)


def test_a_limit_is_kept() -> None:
    assert c14n.parse(b"<a/>", 4).local == "a"
    with pytest.raises(Malformed, match="at most 3"):
        c14n.parse(b"<a/>", 3)


def test_elements_and_namespaces_are_counted() -> None:
    def nested(count: int) -> str:
        names = "".join(f' xmlns:p{number}="u"' for number in range(count))
        return f"<a{names}><b/></a>"

    assert c14n.parse(nested(c14n.MAX_NAMESPACES).encode(), 1 << 16).elements
    # Half of them each level: what is in scope counts, not what one element declares.
    half = "".join(f' xmlns:q{number}="u"' for number in range(c14n.MAX_NAMESPACES // 2 + 1))
    deeper = nested(c14n.MAX_NAMESPACES // 2).replace("<b/>", f"<b{half}/>")
    for text in (nested(c14n.MAX_NAMESPACES + 1), deeper):
        with pytest.raises(Malformed, match="namespaces in scope"):
            c14n.parse(text.encode(), 1 << 16)
    full = "<a>" + "<b/>" * (c14n.MAX_ELEMENTS - 1) + "</a>"
    assert len(c14n.parse(full.encode(), 1 << 16).elements) == c14n.MAX_ELEMENTS - 1
    with pytest.raises(Malformed, match="too many elements"):
        c14n.parse(full.replace("<a>", "<a><b/>").encode(), 1 << 16)


def test_the_reader_names_what_it_misses() -> None:
    root = c14n.parse(b'<a xmlns:p="u" p:x="1"><b/><b/><c>t</c></a>', 100)
    assert root.value("x", "u") == "1"
    assert root.only("", "c").text == "t"
    with pytest.raises(Malformed, match="no attribute x"):
        root.value("x")
    with pytest.raises(Malformed, match="2 children b"):
        root.only("", "b")
    with pytest.raises(Malformed, match="0 children d"):
        root.only("", "d")


NAMES = st.sampled_from(["a", "b", "p:c", "p:d"])
TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="￾￿"), max_size=8)
TREES = st.recursive(
    TEXT,
    lambda inner: st.tuples(NAMES, st.dictionaries(NAMES, TEXT, max_size=3), st.lists(inner, max_size=4)),
    max_leaves=8,
)


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def write(tree) -> str:
    if isinstance(tree, str):
        return escape(tree)
    name, attributes, children = tree
    text = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{text}>{''.join(map(write, children))}</{name}>"


@given(TREES)
def test_the_canonical_form_is_its_own_canonical_form(tree) -> None:
    once = canonical(f'<r xmlns:p="u">{write(tree)}</r>')
    assert canonical(once) == once


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_bytes_from_anywhere_are_malformed_or_read(data: bytes) -> None:
    try:
        c14n.parse(data, 200)
    except Malformed:
        return
