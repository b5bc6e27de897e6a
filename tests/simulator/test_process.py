"""Process mode: measured before it starts, quoted for alone, gone when it is gone."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model import write_manifest
from quotary.attestation.measure.process import measure
from quotary.canonical import canonical, unb64
from quotary.errors import CannotTell, Malformed, Refused, Usage
from simulator import launch
from simulator.launch import MeasuredProcess, SessionChannel
from simulator.process import ENVIRONMENT, TEE, Program, command, snapshot
from simulator.row import describe
from tests.simulator.conftest import CHILD, NOW

REQUEST = canonical({"op": "quote", "report_data": "07" * 64})
FRAME = len(REQUEST).to_bytes(4, "big") + REQUEST
SYS_PIDFD_GETFD = 438


@pytest.fixture
def run(platform, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[Program], object]:
    """Start a program, wait for it, and give what it printed."""

    def start(program: Program) -> object:
        with MeasuredProcess(snapshot(program), platform, tmp_path) as child:
            assert child.wait() == 0, capfd.readouterr().err
        return json.loads(capfd.readouterr().out)

    return start


def with_child(program: Program, source: str) -> Program:
    (program.code["child"] / "__main__.py").write_text(source)
    return program


def test_a_child_gets_a_quote_of_exactly_what_was_predicted(program, run, believe) -> None:
    predicted = measure(snapshot(program).image).registers
    found = run(program)
    facts = believe(unb64(found["reply"]["quote"]), found["reply"]["collateral"])
    assert dict(facts.registers) == dict(predicted)
    assert facts.report_data == bytes([7]) * 64
    assert facts.judged_at == NOW


def test_a_child_sees_only_what_was_measured(program, run, monkeypatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp")
    monkeypatch.setenv("PYTHONSTARTUP", "/tmp/x.py")
    found = run(replace(program, environment={"OMP_NUM_THREADS": "1"}))
    assert found["environment"].items() <= {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}.items()
    assert found["policy"] == '{"v":1}'
    assert found["folder"] == ["code", "lib", "model", "policy.json"]
    assert not [path for path in found["path"] if "site-packages" in path]


@pytest.mark.parametrize("extra", ['{"mrtd": "00"}', '{"registers": {}}', '{"pid": 1}'])
def test_a_child_cannot_name_registers(program, run, extra: str) -> None:
    found = run(replace(program, arguments=(*program.arguments, extra)))
    assert found["reply"]["error"]["kind"] == "malformed"


def test_each_part_changes_its_register_alone(program, tmp_path) -> None:
    before = measure(snapshot(program).image).registers

    def changed(other: Program) -> set[str]:
        after = measure(snapshot(other).image).registers
        return {name for name in before if before[name] != after[name]}

    assert changed(program) == set()
    assert changed(replace(program, arguments=(*program.arguments, "x"))) == {"rtmr2"}
    assert changed(replace(program, environment={"OMP_NUM_THREADS": "2"})) == {"rtmr2"}
    assert changed(replace(program, requirements=("rfc8785", "click"))) == {"rtmr1"}
    (tmp_path / "other.json").write_text("{}")
    assert changed(replace(program, policy=tmp_path / "other.json")) == {"rtmr2"}
    (program.code["child"] / "data.txt").write_text("read at run time")
    assert changed(program) == {"mrtd"}


def test_where_things_lie_does_not_change_a_register(program, tmp_path) -> None:
    before = measure(snapshot(program).image).registers
    for path in (program.code["child"], program.policy, program.model):
        path.rename(path.with_name(f"moved-{path.name}"))
    moved = replace(
        program,
        code={"child": tmp_path / "moved-child"},
        policy=tmp_path / "moved-p.json",
        model=tmp_path / "moved-m",
    )
    assert measure(snapshot(moved).image).registers == before


def test_byte_code_is_neither_measured_nor_read(program, run, tmp_path) -> None:
    (program.code["child"] / "secret.py").write_text("value = 'source'")
    source = CHILD.replace('"path": sys.path', '"path": __import__("child.secret").secret.value')
    with_child(program, source)
    before = snapshot(program).registers
    subprocess.run(
        [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
            program.code["child"],
        ],
        check=True,
    )
    cached = next((program.code["child"] / "__pycache__").glob("secret.*.pyc"))
    cached.write_bytes(cached.read_bytes().replace(b"source", b"poison"))
    assert snapshot(program).registers == before
    assert run(program)["path"] == "source"


def test_what_changes_after_the_measurement_does_not_reach_the_child(
    program, platform, tmp_path, capfd
) -> None:
    taken = snapshot(program)
    with_child(program, "print('poison')")
    program.policy.write_text("poison")
    with MeasuredProcess(taken, platform, tmp_path) as child:
        assert child.wait() == 0
    assert "poison" not in capfd.readouterr().out


def test_a_process_of_another_session_is_refused_even_with_the_childs_own_socket(
    program, platform, tmp_path, capfd
) -> None:
    waiting = with_child(
        program, "import sys\nprint('up', flush=True)\nsys.stdout.close()\nimport signal\nsignal.pause()"
    )
    with MeasuredProcess(snapshot(waiting), platform, tmp_path) as child:
        pidfd = os.pidfd_open(child.child.process.pid)
        stolen = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, pidfd, launch.TEE_FD, 0)
        os.close(pidfd)
        if stolen < 0:
            pytest.skip("this kernel does not let a process take another one's descriptors")
        with socket.socket(fileno=stolen) as thief:
            thief.sendall(FRAME)
            assert thief.recv(65536) == b""


@pytest.mark.parametrize("stranger", [False, True])
def test_only_processes_of_the_session_are_heard(stranger: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with ours, theirs:
        script = f"import os, sys; os.write({theirs.fileno()}, b'hello'); sys.stdin.read()"
        writer = subprocess.Popen(
            [sys.executable, "-c", script],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.PIPE,
            start_new_session=stranger,
        )
        try:
            channel = SessionChannel(ours, os.getsid(0))
            if stranger:
                with pytest.raises(Refused, match="device request"):
                    channel.receive(5)
            else:
                assert channel.receive(5) == b"hello"
        finally:
            writer.communicate()


def test_after_the_childs_death_nobody_is_quoted_for(program, platform, tmp_path, capfd) -> None:
    with MeasuredProcess(snapshot(with_child(program, "")), platform, tmp_path) as child:
        assert child.wait() == 0
        with pytest.raises(Refused, match="it has ended"):
            child.quote(bytes(64))


ORPHAN = """
import json, os, sys
go, gone = os.pipe()
if os.fork() == 0:
    os.close(gone)
    os.read(go, 1)  # ends when the measured process has ended
    from child import asker
    with open(sys.argv[2], "w") as answer:
        json.dump(asker.ask({"op": "quote", "report_data": "07" * 64}), answer)
    os._exit(0)
"""


def test_a_grandchild_that_outlives_the_measured_process_is_refused(program, platform, tmp_path) -> None:
    (program.code["child"] / "asker.py").write_text(CHILD)
    os.mkfifo(tmp_path / "answer")
    orphan = with_child(program, ORPHAN)
    orphan = replace(orphan, arguments=(*orphan.arguments, str(tmp_path / "answer")))
    with MeasuredProcess(snapshot(orphan), platform, tmp_path) as child:
        assert child.wait() == 0
        with (tmp_path / "answer").open() as answer:
            assert json.load(answer)["error"]["kind"] == "refused"


@pytest.mark.parametrize("code", [0, 3, 11])
def test_the_exit_code_is_the_childs(program, platform, tmp_path, code: int) -> None:
    leaving = with_child(program, f"import sys; sys.exit({code})")
    with MeasuredProcess(snapshot(leaving), platform, tmp_path) as child:
        assert child.wait() == code


def test_a_signal_reaches_the_child_and_its_end_is_told(program, platform, tmp_path) -> None:
    # The child tells its parent that it is up by sending it the signal that the parent is to pass on.
    source = "import os, signal\nsignal.signal(signal.SIGUSR1, signal.SIG_DFL)\nos.kill(os.getppid(), signal.SIGUSR1)\nsignal.pause()"
    with MeasuredProcess(snapshot(with_child(program, source)), platform, tmp_path) as child:
        assert child.wait() == 128 + signal.SIGUSR1


def test_leaving_kills_the_child_and_removes_its_folder(program, platform, tmp_path) -> None:
    waiting = with_child(program, "import signal; signal.pause()")
    with MeasuredProcess(snapshot(waiting), platform, tmp_path) as child:
        pass
    assert child.child.process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("enclave-*"))


def test_the_manifest_stands_for_the_model(program) -> None:
    before = snapshot(program).image.weights
    (program.model / "w.bin").write_bytes(b"weightz")
    assert snapshot(program).image.weights == before  # what the enclave itself refuses while it loads
    write_manifest(program.model)
    assert snapshot(program).image.weights != before


def test_a_manifest_that_is_not_canonical_is_malformed(program) -> None:
    path = program.model / "MANIFEST"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(Malformed, match="manifest"):
        snapshot(program)


def test_a_variable_that_is_not_allowed_is_refused(program) -> None:
    with pytest.raises(Usage, match="LD_PRELOAD"):
        snapshot(replace(program, environment={"LD_PRELOAD": "/tmp/x.so"}))


def test_a_linked_folder_in_our_code_is_refused(program, tmp_path) -> None:
    (program.code["child"] / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(Malformed, match="link to a folder"):
        snapshot(program)


def test_a_missing_dependency_is_named(program) -> None:
    with pytest.raises(CannotTell, match="no-such-distribution"):
        snapshot(replace(program, requirements=("no-such-distribution",)))


def test_the_interpreter_is_measured_under_a_word_and_started_by_its_path(program) -> None:
    taken = snapshot(program)
    assert taken.image.argv[0] == "python"
    assert Path(command(taken)[0]).is_absolute()
    assert command(taken)[1:] == list(taken.image.argv[1:])
    assert TEE in taken.image.argv


def test_the_row_parses_and_names_the_simulated_platform(program) -> None:
    from quotary.statements.row import parse_row

    document, text = describe(snapshot(program))
    row = parse_row(document["rows"][0])
    assert (row.platform, row.profile) == ("sim-tdx", "process/v1")
    assert row.measurement.hex() == document["measurement"]
    assert document["measurement"] in text


def test_two_children_cannot_be_started_over_each_other(program, platform, tmp_path) -> None:
    taken = snapshot(program)
    read, write = os.pipe()
    os.dup2(read, launch.TEE_FD)
    try:
        with pytest.raises(CannotTell, match="descriptor 100 is in use"):
            MeasuredProcess(taken, platform, tmp_path)
    finally:
        for descriptor in (read, write, launch.TEE_FD):
            os.close(descriptor)
    assert not list(tmp_path.glob("enclave-*"))


def test_files_that_are_missing_or_too_large_are_named(program) -> None:
    with pytest.raises(CannotTell, match="cannot measure"):
        snapshot(replace(program, policy=program.policy.with_name("none")))
    program.policy.write_bytes(b"1" * (1 << 20) + b"1")
    with pytest.raises(Malformed, match="policy has 1048577 bytes"):
        snapshot(program)


def test_a_package_of_ours_that_a_dependency_has_too_is_refused(program) -> None:
    with pytest.raises(CannotTell, match="rfc8785 is both"):
        snapshot(replace(program, code={"rfc8785": program.code["child"]}))
