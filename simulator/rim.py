"""Signed manifests of reference values, as NVIDIA publishes them: a SWID tag under an XML signature.

ISO/IEC 19770-2:2015 for the tag, whose schema NVIDIA's verifier demands; TCG's RIM Information Model for who
made the firmware: here the simulator, under the number 0 that stands for nobody.

The text is written in its canonical form (W3C xml-c14n11), so that what is signed is what stands there; a
test reads it with the verifier's own canonical form.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from simulator.keys import Signer, sign_p384_big
from simulator.pki import ORGANISATION

_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_DS = "http://www.w3.org/2000/09/xmldsig#"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"


def make_rim(chain: Sequence[Signer], product: str, version: str, golden: Mapping[int, bytes]) -> bytes:
    """Sign the reference values of 48 bytes of a product's version; ``chain`` is signer to root."""
    resources = "".join(_resource(index, value) for index, value in sorted(golden.items()))
    tag = hashlib.sha384(resources.encode()).hexdigest()
    namespaces = f'xmlns="{_SWID}" xmlns:ns2="{_SHA384}"'
    head = f'<SoftwareIdentity {namespaces} name="{product}" tagId="{tag}" version="1.0">'
    entity = f'<Entity name="{ORGANISATION}" role="softwareCreator tagCreator"></Entity>'
    meta = (
        f'<Meta xmlns:ns1="{_TCG}" colloquialVersion="{version}" product="{product}" '
        f'ns1:FirmwareManufacturer="{ORGANISATION}" ns1:FirmwareManufacturerId="0"></Meta>'
    )
    body = f"{head}{entity}{meta}<Payload>{resources}</Payload>"
    digest = hashlib.sha384(f"{body}</SoftwareIdentity>".encode()).digest()
    # As it stands in the document, and as an apex with the namespaces that are in scope there.
    info = _info(digest)
    scope = f' xmlns="{_SWID}" xmlns:ds="{_DS}" xmlns:ns2="{_SHA384}"'
    signed = info.replace("<ds:SignedInfo>", f"<ds:SignedInfo{scope}>", 1)
    signature = sign_p384_big(chain[0].key, signed.encode())
    # In lines, as NVIDIA writes them: its verifier puts the words of PEM around them and nothing else.
    certificates = "".join(_tag("X509Certificate", _lines(signer)) for signer in chain)
    key = _tag("KeyInfo", _tag("X509Data", certificates))
    value = _tag("SignatureValue", _text(signature))
    envelope = f'<ds:Signature xmlns:ds="{_DS}">{info}{value}{key}</ds:Signature>'
    return f"{body}{envelope}</SoftwareIdentity>".encode()


def _resource(index: int, value: bytes) -> str:
    return (
        f'<Resource active="True" alternatives="1" index="{index}" name="Measurement_{index}" size="48" '
        f'type="Measurement" ns2:Hash0="{value.hex()}"></Resource>'
    )


def _info(digest: bytes) -> str:
    transforms = _method("Transform", f"{_DS}enveloped-signature") + _method("Transform", _C14N)
    reference = (
        _tag("Transforms", transforms)
        + _method("DigestMethod", f"{_MORE}sha384")
        + _tag("DigestValue", _text(digest))
    )
    return _tag(
        "SignedInfo",
        _method("CanonicalizationMethod", _C14N)
        + _method("SignatureMethod", f"{_MORE}ecdsa-sha384")
        + f'<ds:Reference URI="">{reference}</ds:Reference>',
    )


def _method(name: str, algorithm: str) -> str:
    return f'<ds:{name} Algorithm="{algorithm}"></ds:{name}>'


def _tag(name: str, content: str) -> str:
    return f"<ds:{name}>{content}</ds:{name}>"


def _lines(signer: Signer) -> str:
    return "".join(signer.pem.splitlines(keepends=True)[1:-1])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
