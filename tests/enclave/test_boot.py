"""The boot check as processes see it: what is imported when, what a failed renewal means, and the
words refused.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from enclave import boot
from quotary.errors import CannotTell, InvalidProof, Malformed, NotInLog, QuotaryError, Refused, Rejected
from simulator.tcb import CURRENT
from tests.conftest import ROOT
from tests.fakes.attempt import Attempt
from tests.fakes.machine import FLOOR, PRODUCT, World, hardware

HEAVY = "['flask', 'gunicorn', 'torch', 'transformers', 'tokenizers', 'safetensors', 'numpy']"


def python(code: str) -> str:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_the_boot_check_imports_no_web_framework_and_no_model_library() -> None:
    assert (
        python(f"import sys, enclave.boot, enclave.cli; print([m for m in {HEAVY} if m in sys.modules])")
        == "[]"
    )


def test_the_server_imports_no_model_library_before_it_loads_a_model() -> None:
    models = "['torch', 'transformers', 'tokenizers', 'safetensors', 'numpy']"
    assert python(f"import sys, enclave.serve; print([m for m in {models} if m in sys.modules])") == "[]"


def test_a_server_with_one_door_takes_nothing_of_what_the_second_needs() -> None:
    """A start counts: under emulation each module costs ten milliseconds before the first answer."""
    assert python("import sys, enclave.cli, enclave.serve; print('asyncio' in sys.modules)") == "False"


def test_a_start_that_is_refused_stops_before_torch_is_imported(tmp_path: Path) -> None:
    from quotary.canonical import canonical
    from tests.fakes.log import policy_document

    document = policy_document() | {"enclave": {"poll_seconds": 1, "plaintext": "refused"}}
    (tmp_path / "p.json").write_bytes(canonical(document, multiline=True))
    words = ["--policy", str(tmp_path / "p.json"), "--registry", "http://127.0.0.1:1", "--service", "chat"]
    words += ["--model", str(tmp_path), "--listen", "127.0.0.1:0", "--tee", "fd:0"]
    code = f"""
import sys
from enclave.cli import serve
from quotary.errors import QuotaryError
try:
    serve.main({words!r}, standalone_mode=False)
except QuotaryError as error:
    print(error, [name for name in ("torch", "transformers", "safetensors") if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith("the TEE device does not answer")
    assert found.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("error", "code", "final"),
    [
        (Refused("status", "revoked: key lost", "active"), "measurement_revoked", True),
        (
            Refused("status", "suspended until 2026-11-22T00:00:00Z: x", "active"),
            "measurement_suspended",
            False,
        ),
        (Refused("status", "ended at 2026-11-22T00:00:00Z", "a release in force"), "log_stale", False),
        (Refused("state", "a log that ended with the freeze at entry 7", "one"), "log_ended", True),
        (Refused("state", "no map F1", "a root of the map F1"), "log_stale", False),
        (Refused("tcb floor", "tcb minimum: pce_svn 12", "at least 13"), "tcb_refused", True),
        (Refused("tcb floor", "tcb status: OutOfDate", "UpToDate"), "tcb_refused", True),
        (Refused("tcb floor", "denied chip: 00", "none of the floor's list"), "tcb_refused", True),
        (Refused("tcb floor", "no logged floor", "a floor"), "log_stale", False),
        (Refused("confidential mode", "devtools", "on"), "gpu_refused", True),
        (Refused("gpu confidential mode", "off", "on"), "gpu_refused", True),
        (Refused("gpu", "a GPU was reset or exchanged", "the GPUs of the start"), "gpu_lost", False),
        (Refused("age", "700 s", "at most 600 s"), "log_stale", False),
        (Refused("rollback", "9 entries", "at least 10"), "log_stale", False),
        (Rejected("checkpoint", "a bad signature", "one that holds"), "log_stale", False),
        (InvalidProof("x"), "log_stale", False),
        (Malformed("x"), "log_stale", False),
        (CannotTell("x"), "log_stale", False),
        (NotInLog("x"), "log_stale", False),
    ],
)
def test_only_a_verified_statement_of_the_log_or_the_driver_is_final(
    error: QuotaryError, code: str, final: bool
) -> None:
    assert boot.consequence(error) == boot.Consequence(code, final)


def test_a_policy_without_rules_for_enclaves_starts_none(tmp_path: Path) -> None:
    from quotary.canonical import canonical
    from tests.fakes.log import policy_document

    document = policy_document()
    document.pop("enclave", None)
    path = tmp_path / "p.json"
    path.write_bytes(canonical(document, multiline=True))
    with pytest.raises(Refused, match="no member enclave"):
        boot.open_setup(path, "http://127.0.0.1:1", "chat", "fd:0", 0)
    document["enclave"] = {"poll_seconds": 1, "plaintext": "refused"}
    path.write_bytes(canonical(document, multiline=True))
    with pytest.raises(Refused, match="no owner keys for other"):
        boot.open_setup(path, "http://127.0.0.1:1", "other", "fd:0", 0)
    assert boot.open_setup(path, "http://127.0.0.1:1", "chat", "fd:0", 0).rules.poll_seconds == 1


def test_a_policy_that_cannot_be_read_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="cannot be read"):
        boot.open_setup(tmp_path / "none.json", "http://127.0.0.1:1", "chat", "fd:0", 0)
    (tmp_path / "large.json").write_bytes(b"x" * (boot.MAX_POLICY + 1))
    with pytest.raises(Malformed):
        boot.open_setup(tmp_path / "large.json", "http://127.0.0.1:1", "chat", "fd:0", 0)


def test_a_floor_raised_above_a_real_machine_is_final(tmp_path: Path) -> None:
    world = World(*hardware(tmp_path)).publish()
    attempt = Attempt.of(world)
    attempt.judge()
    raised = {**FLOOR["minimum"], "pce_svn": CURRENT.pce_svn + 1}  # type: ignore[dict-item]  # an object
    world.log.append(world.log.maker.floor(product=PRODUCT, floor={**FLOOR, "minimum": raised}))
    attempt.renew()
    with pytest.raises(Refused) as caught:
        attempt.judge()
    assert boot.consequence(caught.value) == boot.Consequence("tcb_refused", final=True)
