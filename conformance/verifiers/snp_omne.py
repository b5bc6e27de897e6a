"""Ask omne-attest about a report: ``FOLDER mine|vendor``; exit 0 accepted, 10 refused."""

import hashlib
import sys
from importlib.resources import files
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from omne_attest.snp import Fail, Policy, verify

folder, root = Path(sys.argv[1]), sys.argv[2]
chain = x509.load_pem_x509_certificates((folder / "chain.pem").read_bytes())
vcek, ask, ark = (certificate.public_bytes(Encoding.DER) for certificate in chain)
mine = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes()).public_bytes(Encoding.DER)
vendors = files("omne_attest").joinpath("vectors/milan_ark.der").read_bytes()
pin = hashlib.sha256(mine if root == "mine" else vendors).digest()
try:
    print(verify((folder / "evidence.bin").read_bytes(), vcek, ask, ark, pin, Policy()))
except Fail as error:
    print(error)
    sys.exit(10)
