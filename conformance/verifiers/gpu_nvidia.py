"""Ask NVIDIA's nv-local-gpu-verifier about a GPU: ``FOLDER mine|vendor``; exit 0 accepted, 10 refused."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

from nvidia_services import serve
from pynvml import NVML_DEVICE_ARCH_HOPPER
from verifier.config import BaseSettings
from verifier.nvml import GpuCertificateChains
from verifier.nvml.test_handle import TestHandle

from verifier import cc_admin

folder, root = Path(sys.argv[1]), sys.argv[2]
about = json.loads((folder / "about.json").read_bytes())
BaseSettings.OCSP_URL = BaseSettings.RIM_SERVICE_BASE_URL = serve(folder)
if root == "mine":
    BaseSettings.DEVICE_ROOT_CERT = str(folder / "root.pem")
    BaseSettings.RIM_ROOT_CERT = str(folder / "rim-root.pem")
# What its driver would give; it puts the pinned root in the place of the chain's last certificate.
chain = GpuCertificateChains(TestHandle((folder / "chain.pem").read_bytes())).GpuAttestationCertificateChain
evidence = SimpleNamespace(
    get_gpu_architecture=lambda: NVML_DEVICE_ARCH_HOPPER,
    get_uuid=lambda: "simulated",
    get_driver_version=lambda: about["driver"],
    get_vbios_version=lambda: about["vbios"],
    get_attestation_report=(folder / "evidence.bin").read_bytes,
    get_attestation_cert_chain=lambda: chain,
)
BaseSettings.mark_attestation_report_as_available()
# Its last step is about the driver of a GPU, and here is none.
cc_admin.NvmlHandler.is_cc_dev_mode = staticmethod(lambda: False)
logging.getLogger("gpu-verifier-event").setLevel(logging.CRITICAL)
options = dict.fromkeys(("rim_service_url", "ocsp_url", "service_key", "driver_rim", "vbios_rim"))
options |= dict.fromkeys(("verbose", "test_no_gpu", "allow_hold_cert"), False)
# Answers that travel beside evidence are for everybody, so they carry nobody's nonce.
options |= {"user_mode": True, "ocsp_nonce_disabled": True}
accepted, _ = cc_admin.attest(options, about["nonce"], [evidence])
sys.exit(0 if accepted else 10)
