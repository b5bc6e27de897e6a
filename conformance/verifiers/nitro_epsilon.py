"""Ask epsilon-attestation-verifier about a document: ``FOLDER mine``; exit 0 accepted, 10 refused."""

import base64
import sys
from pathlib import Path

from epsilon_verifier.verifier import verify_attestation

folder = Path(sys.argv[1])
document = base64.b64encode((folder / "evidence.bin").read_bytes()).decode("ascii")
result = verify_attestation(document, aws_root_cert_path=str(folder / "root.pem"))
print(result.error or result.module_id)
sys.exit(0 if result.valid else 10)
