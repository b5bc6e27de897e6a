"""Ask NVIDIA's nv-local-gpu-verifier about a GPU: ``FOLDER mine|vendor``; exit 0 accepted, 10 refused.

It gets what its driver would give it, and fetches manifests and answers about certificates from a server on
loopback that has nothing but the folder's collateral.
"""

import base64
import json
import logging
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

from cryptography.x509 import ocsp
from pynvml import NVML_DEVICE_ARCH_HOPPER
from verifier.config import BaseSettings
from verifier.nvml import GpuCertificateChains
from verifier.nvml.test_handle import TestHandle

from verifier import cc_admin

folder, root = Path(sys.argv[1]), sys.argv[2]
about = json.loads((folder / "about.json").read_bytes())
collateral = json.loads((folder / "collateral.json").read_bytes())


class Service(BaseHTTPRequestHandler):
    """NVIDIA's two services: manifests by GET, answers about certificates by POST."""

    def do_GET(self):
        manifest = (folder / ("driver.xml" if "DRIVER" in self.path else "vbios.xml")).read_bytes()
        self.say(json.dumps({"rim": base64.b64encode(manifest).decode()}).encode())

    def do_POST(self):
        asked = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["Content-Length"])))
        self.say(base64.b64decode(collateral[f"ocsp:{asked.serial_number:x}"]))

    def say(self, data):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def evidence():
    """Give what the verifier's own class for tests gives; the last certificate is always the pinned root."""
    return SimpleNamespace(
        get_gpu_architecture=lambda: NVML_DEVICE_ARCH_HOPPER,
        get_uuid=lambda: "simulated",
        get_driver_version=lambda: about["driver"],
        get_vbios_version=lambda: about["vbios"],
        get_attestation_report=(folder / "evidence.bin").read_bytes,
        get_attestation_cert_chain=lambda: chain,
    )


server = HTTPServer(("127.0.0.1", 0), Service)
Thread(target=server.serve_forever, daemon=True).start()
BaseSettings.OCSP_URL = BaseSettings.RIM_SERVICE_BASE_URL = f"http://127.0.0.1:{server.server_port}/"
if root == "mine":
    BaseSettings.DEVICE_ROOT_CERT = str(folder / "root.pem")
    BaseSettings.RIM_ROOT_CERT = str(folder / "rim-root.pem")
chain = GpuCertificateChains(TestHandle((folder / "chain.pem").read_bytes())).GpuAttestationCertificateChain
BaseSettings.mark_attestation_report_as_available()
# Its last step is about the driver of a GPU, and here is none.
cc_admin.NvmlHandler.is_cc_dev_mode = staticmethod(lambda: False)
logging.getLogger("gpu-verifier-event").setLevel(logging.CRITICAL)
options = dict.fromkeys(("rim_service_url", "ocsp_url", "service_key", "driver_rim", "vbios_rim"))
options |= dict.fromkeys(("verbose", "test_no_gpu", "allow_hold_cert"), False)
# Answers that travel beside evidence are for everybody, so they carry nobody's nonce.
options |= {"user_mode": True, "ocsp_nonce_disabled": True}
accepted, _ = cc_admin.attest(options, about["nonce"], [evidence()])
sys.exit(0 if accepted else 10)
