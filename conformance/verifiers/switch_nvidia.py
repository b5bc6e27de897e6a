"""Ask NVIDIA's nv-attestation-sdk about a switch: ``FOLDER mine|vendor``; exit 0 accepted, 10 refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from nv_attestation_sdk.verifiers.nv_switch_verifier import nvswitch_admin
from nv_attestation_sdk.verifiers.nv_switch_verifier.config import BaseSettings, LS10Settings
from nv_attestation_sdk.verifiers.nv_switch_verifier.models.nvswitch import NVSwitch
from nvidia_services import serve

folder, root = Path(sys.argv[1]), sys.argv[2]
about = json.loads((folder / "about.json").read_bytes())
BaseSettings.OCSP_URL = BaseSettings.RIM_SERVICE_BASE_URL = serve(folder)
if root == "mine":
    BaseSettings.DEVICE_ROOT_CERT = str(folder / "root.pem")
    BaseSettings.RIM_ROOT_CERT = str(folder / "rim-root.pem")
# It asks the driver of switches for their architecture, and here is none.
driver = SimpleNamespace(get_switch_architecture=lambda: (LS10Settings().SwitchArch, 0))
nvswitch_admin.NSCQHandler = lambda: driver
evidence = NVSwitch(
    "simulated", [(folder / "chain.pem").read_bytes()], (folder / "evidence.bin").read_bytes()
)
options = dict.fromkeys(("rim_service_url", "ocsp_url", "service_key", "vbios_rim"))
# Answers that travel beside evidence are for everybody, so they carry nobody's nonce.
options |= {"allow_hold_cert": False, "ocsp_nonce_disabled": True}
accepted, _ = nvswitch_admin.attest(options, about["nonce"], [evidence])
sys.exit(0 if accepted else 10)
