"""What NVIDIA's verifiers fetch, from a folder's files: manifests by GET, answers on certificates by POST."""

import base64
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from cryptography.x509 import ocsp

MANIFESTS = {"NV_GPU_DRIVER": "driver.xml", "NV_GPU_VBIOS": "vbios.xml", "NV_SWITCH_BIOS": "switch.xml"}


def serve(folder: Path) -> str:
    """Serve the folder on loopback until the program ends; give the address of both services."""
    collateral = json.loads((folder / "collateral.json").read_bytes())

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            (name,) = (name for kind, name in MANIFESTS.items() if self.path.startswith(f"/{kind}_"))
            self.say(json.dumps({"rim": base64.b64encode((folder / name).read_bytes()).decode()}).encode())

        def do_POST(self):
            asked = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["Content-Length"])))
            self.say(base64.b64decode(collateral[f"ocsp:{asked.serial_number:x}"]))

        def say(self, data):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Service)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"
