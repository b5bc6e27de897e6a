"""``quotary demo``: the whole story on this machine, told by running our own commands."""

import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.cli.stage import Stage, answers, free_ports
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Request
from quotary.tlog.merkle import leaf_hash

SERVICE = "demo/chat"
PORT = 8470
POLL_SECONDS = 2
MAX_AGE_SECONDS = 600
QUESTION = "What is a log?"
VM_MIB = 2048
VM_SECONDS = 840.0


@click.command(
    epilog="\b\nExample:\n  quotary demo --exit\n\nExit codes: 0 the story went as told, 1 it did not, "
    "40 something is missing on this machine."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/demo"),
    show_default=True,
    help="Where the run's files go; its folder `run` is emptied at the start.",
)
@click.option(
    "--port", default=PORT, show_default=True, help="First of four ports of 127.0.0.1; 0 takes any."
)
@click.option("--exit", "leave", is_flag=True, help="End after the last chapter instead of serving on.")
@click.option("--vm", is_flag=True, help="Also boot the built image with the model in QEMU (minutes).")
def demo(folder: Path, port: int, leave: bool, vm: bool) -> None:
    """Build, log, refuse, serve, verify, revoke: every party's part, on one machine, with a simulated TEE."""
    with Stage(folder / "run") as stage:
        story = Story(stage, folder, free_ports(port, 4))
        for chapter in story.chapters(vm):
            chapter()
        stage.save_repeats()
        story.farewell(leave)
        if not leave:
            stage.wait_until_interrupted()


class Story:
    """The chapters, in order; each stands on what the ones before it left in the folder.

    A command is written as a reader would type it; ``{names}`` stand for this run's files and addresses.
    """

    def __init__(self, stage: Stage, folder: Path, ports: list[int]) -> None:
        self.stage = stage
        self.here = stage.folder
        self.kept = folder
        registry, witness, enclave, machine = (f"127.0.0.1:{port}" for port in ports)
        self.ports = dict(zip(("registry", "witness", "enclave", "machine"), ports, strict=True))
        self.vendor: Mapping[str, object] = {}
        here = shlex.quote(str(stage.folder))
        # Each run is another log: this machine's memory of an earlier one must not be asked to forget it.
        origin = f"demo.quotary.dev/{datetime.now(UTC):%Y%m%dt%H%M%Sz}/simulation"
        self.names = {
            "here": here,
            "kept": shlex.quote(str(folder)),
            "origin": origin,
            "service": SERVICE,
            "url": f"http://{registry}",
            "registry": registry,
            "witness": witness,
            "machine": f"http://{machine}",
            "enclave": f"http://{enclave}",
            "policy": f"--policy {here}/policy.json --simulation",
            "program": f"--policy {here}/policy.json --model {here}/model --registry http://{registry}"
            f" --service {SERVICE} --listen {enclave}",
            "vendor": f"--directory {here}/vendor",
            "statement": f"--origin {origin} --service {SERVICE} --url http://{registry}",
        }

    def chapters(self, vm: bool) -> list[Callable[[], None]]:
        """Give the chapters of a run, with or without the virtual machine's."""
        first = [self.opening, self.log, self.authority, self.policy, self.image, self.unlogged, self.logged]
        second = [self.serves, self.changed_weights, self.changed_program]
        return [*first, *second, *([self.boots] if vm else []), self.raised_floor, self.revoked]

    def opening(self) -> None:
        self.stage.chapter("Quotary: which program may read your prompt, and who vouches for it")
        say = self.stage.say
        say("Mode: process/v1. The TEE is SIMULATED: same bytes as Intel TDX, keys of a vendor of our own.")
        say("It proves nothing about this machine, and no production policy can accept it.")
        say(f"Shortened in the measured policy: the enclave looks at the log every {POLL_SECONDS} s.")
        if not (self.kept / "model" / "MANIFEST").is_file():
            say("There is no model yet: a small one is trained on the project's own text, once.")
            self.run("build model --out {kept}/model")
        shutil.copytree(self.kept / "model", self.here / "model")

    def log(self) -> None:
        self.stage.chapter("1. A log, and a witness that holds it to one history")
        made = self.run(
            "registry witness init --dir {here}/witness --name witness.demo.quotary.dev", quiet=True
        )
        self.names["witness_key"] = made.split()[-1]
        keys = self.run(
            "registry init --dir {here}/log --origin {origin} --bind {registry} --publish-interval 0.3"
            " --refresh 5 --witness http://{witness} {witness_key}",
            quiet=True,
        ).split()
        self.names["log_key"] = keys[0]
        self.stage.say(f"log's key (Ed25519):   {keys[0]}")
        self.stage.say(f"log's key (ML-DSA-44): {keys[1][:60]}… ({len(keys[1])} characters)")
        self.stage.say(f"witness's key:         {self.names['witness_key']}")
        followed = " ".join(f"--log {key}" for key in keys[:2])
        self.run(f"registry witness follow --dir {{here}}/witness {followed}", show=False, quiet=True)
        self.start("witness", "registry witness serve --dir {here}/witness --bind {witness}")
        self.stage.wait_for("witness", lambda: answers(self.ports["witness"]), "listening")
        self.start("registry", "registry serve --dir {here}/log")
        self.stage.wait_for("registry", lambda: answers(self.ports["registry"]), "listening")

    def authority(self) -> None:
        self.stage.chapter("2. Who may say what: an owner, a builder, a rebuilder, and who sets floors")
        for name in ("owner", "builder"):
            self.run(f"keys new {{here}}/{name}.key --public {{here}}/{name}.pub", show=False, quiet=True)
        spki = self.ask("keys show {here}/log/keys/rebuilder.pem")["spki"]
        pem = f"-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n"
        (self.here / "rebuilder.pub").write_text(pem)
        self.names["expires"] = f"--expires {datetime.now(UTC) + timedelta(days=365):%Y-%m-%d}"
        common = "delegate {statement} {expires} --submit --role owner={here}/owner.pub"
        first = self.ask(f"{common} --sequence 1 --key {{here}}/log/keys/root.pem")
        self.stage.say(
            f"the log's root allocates the name {SERVICE} to the owner's key; the owner then names a builder:"
        )
        builder = f"--previous {first['statement_id']} --role builder={{here}}/builder.pub"
        self.run(f"{common} {builder} --sequence 2 --key {{here}}/owner.key")
        self.vendor = self.ask("enclave simulate-init {vendor}")
        self._set_floor(self._minimum())

    def policy(self) -> None:
        self.stage.chapter("3. What client and enclave demand: one policy, measured with the program")
        self.run(
            "policy new --from-log {url} --service {service} --owner {here}/owner.pub --platform sim-tdx"
            f" --floors log --simulator-root {self.vendor['root_sha256']} --map-auditor none"
            f" --rebuilders {{here}}/rebuilder.pub --max-age {MAX_AGE_SECONDS} --poll {POLL_SECONDS}"
            " --out {here}/policy.json"
        )

    def image(self) -> None:
        self.stage.chapter("4. An image, built by Nix from a lock, and what a machine would show for it")
        self.run(
            "build run --profile ci --policy {here}/policy.json --model {here}/model --set service={service}"
            " --fresh-lock --out {here}/image"
        )
        self.run("measure run {here}/image --platform sim-tdx --out {here}/image-rows.json")
        self.run("measure run {here}/image --platform snp", expect=20)
        self.stage.say("The program that this demo starts as a measured process gets a row of its own:")
        found = self.run("measure process {program} --json", quiet=True)
        (self.here / "process-rows.json").write_text(found)
        self.names["id"] = str(json.loads(found)["measurement"])
        self.stage.say(f"measurement id {self.names['id']}")

    def unlogged(self) -> None:
        self.stage.chapter("5. Refused: a program that is not in the log (12)")
        self.stage.say("It asks its TEE for a quote and the log for its own measurement, and stops:")
        self.run("enclave simulate {program} {vendor}", expect=12)
        self.run("bundle {service} {id} {policy} --url {url} --out {here}/absence.json", expect=12)
        judge = "verify {here}/absence.json {policy} --measurement {id}"
        self.repeat("absence", f"{judge} --offline --at-its-time", 12)

    def logged(self) -> None:
        self.stage.chapter("6. Logged, and built a second time")
        self.run(
            "release new {here}/image --rows {here}/image-rows.json --rows {here}/process-rows.json"
            " {statement} --source-uri https://quotary.dev/source --out {here}/release.json"
        )
        self._log("release", "{here}/builder.key")
        self.stage.say(
            "The log has it, but nobody has repeated the build, and the policy demands one rebuilder:"
        )
        self.run("bundle {service} {id} {policy} --url {url} --out {here}/too-early.json", expect=11)
        self.repeat("too early", "verify {here}/too-early.json {policy} --offline --at-its-time", 11)
        again = self.run("measure process {program} --json", show=False, quiet=True)
        (self.here / "rebuilt-rows.json").write_text(again)
        self.run(
            "rebuild run {here}/release.entry --organisation 'A second builder' --model {here}/model"
            " --lock {here}/image/lock --measured {here}/rebuilt-rows.json"
            " --url {url} --out {here}/rebuild.json"
        )
        self._log("rebuild", "{here}/log/keys/rebuilder.pem")
        self.run("bundle {service} {id} {policy} --url {url} --out {here}/bundle.json")
        self.repeat("bundle", "verify {here}/bundle.json {policy} --offline --at-its-time")

    def serves(self) -> None:
        self.stage.chapter("7. The enclave serves, a question is answered, its receipt verified")
        self._start_enclave(show=True)
        self._ask_enclave("answer")

    def changed_weights(self) -> None:
        self.stage.chapter("8. Refused: changed weights under the logged command line (10)")
        self.stage.stop("enclave")
        weights = self.here / "model" / "model.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.stage.say(f"one bit of {weights} is flipped; the manifest, and so the measurement, stays:")
        try:
            self.run("enclave simulate {program} {vendor}", expect=10)
        finally:
            weights.write_bytes(good)

    def changed_program(self) -> None:
        self.stage.chapter("9. Refused: a changed program (12)")
        code, root = self.here / "changed", Path(__file__).resolve().parents[2]
        for package in ("quotary", "enclave"):
            shutil.copytree(root / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        changed = code / "enclave" / "__init__.py"
        changed.write_text(changed.read_text() + "# one line more\n")
        self.stage.say(f"one comment is added to a copy of the program, {changed}:")
        self.run("enclave simulate {program} {vendor} --code {here}/changed", expect=12)

    def boots(self) -> None:
        self.stage.chapter(
            "The whole image, with torch and the model, in a machine of its own (QEMU, by software)"
        )
        vm, port = "{here}/vm", self.ports["registry"]
        self.run(
            "build run --profile cpu-debian --policy {here}/policy.json --model {here}/model --fresh-lock"
            f" --out {vm} --set service={{service}} --set log=http://10.0.2.2:{port}"
            " --set tee=virtio:quotary.tee --set network=10.0.2.15/24,10.0.2.2 --set listen=8080"
        )
        self.run(f"measure run {vm} --platform sim-tdx --memory {VM_MIB} --out {{here}}/vm-rows.json")
        start = (
            f"enclave simulate-vm --image {vm} --memory {VM_MIB} --port {self.ports['machine']} {{vendor}}"
        )
        self.stage.say("Not logged yet: it boots, checks itself, and stops before torch is imported:")
        self.run(start, expect=12)
        self.run(
            f"release new {vm} --rows {{here}}/vm-rows.json {{statement}} --source-uri https://quotary.dev/source"
            " --out {here}/vm-release.json"
        )
        self._log("vm-release", "{here}/builder.key")
        self.run(
            "rebuild run {here}/vm-release.entry --organisation 'A second builder' --model {here}/model"
            " --lock {here}/vm/lock --url {url} --out {here}/vm-rebuild.json"
        )
        self._log("vm-rebuild", "{here}/log/keys/rebuilder.pem")
        self.stage.say(
            "Logged and rebuilt: it boots again and serves. By software emulation this takes minutes:"
        )
        self.start("machine", start)
        self.stage.wait_for("machine", lambda: self._phase("machine") == "ready", "ready", VM_SECONDS)
        self._ask_enclave("vm-answer", "machine")
        self.stage.stop("machine")

    def raised_floor(self) -> None:
        self.stage.chapter(
            "10. Refused: the firmware floor is raised above this machine, while it serves (11)"
        )
        self._start_enclave()
        minimum = self._minimum()
        raised = _raised(str(minimum["tee_tcb_svn"]))
        self._set_floor({**minimum, "tee_tcb_svn": raised})
        self._wait_refusing()
        self.stage.stop("enclave")
        self.stage.say("A new start is refused as well:")
        self.run("enclave simulate {program} {vendor}", expect=11)
        self.stage.say(
            "After the firmware update, simulated by a platform of the newer level, it serves again:"
        )
        self._start_enclave(f"--tcb-svn {raised}")
        self._ask_enclave("patched")

    def revoked(self) -> None:
        self.stage.chapter("11. Revoked while it serves (11)")
        self.run(
            "revoke --release {release} --reason 'end of the demo' {statement} --out {here}/revocation.json"
        )
        self._log("revocation", "{here}/builder.key")
        self._wait_refusing()
        self.stage.say("The client refuses by its own look at the log, whatever the enclave says:")
        self.run("bundle {service} {id} {policy} --url {url} --out {here}/revoked.json", expect=11)
        self.repeat("revoked", "verify {here}/revoked.json {policy} --offline --at-its-time", 11)
        self.stage.stop("enclave")

    def farewell(self, leave: bool) -> None:
        self.stage.chapter("What is left")
        say = self.stage.say
        say(f"pages:      {self.names['url']}/ (your browser recomputes what they claim)")
        say(f"log's key:  {self.names['log_key']}")
        say(f"            (with its ML-DSA-44 key and its witness in {self.here / 'log' / 'policy.tlog'})")
        say(f"files:      {self.here}; every repeat command is in {self.here / 'repeat.json'}")
        say("stop:       it stops now" if leave else "stop:       Ctrl-C; all that was started ends with it")

    def run(self, line: str, *, expect: int = 0, show: bool = True, quiet: bool = False) -> str:
        return self.stage.run(*self._words(line), expect=expect, show=show, quiet=quiet)

    def ask(self, line: str) -> Mapping[str, object]:
        return self.stage.ask(*self._words(line))

    def start(self, name: str, line: str) -> None:
        self.stage.start(name, *self._words(line))

    def repeat(self, title: str, line: str, exit_code: int = 0) -> None:
        self.stage.repeat(title, *self._words(line), exit_code=exit_code)

    def _words(self, line: str) -> list[str]:
        return shlex.split(line.format_map(self.names).format_map(self.names))

    def _minimum(self) -> dict[str, object]:
        minimum = self.vendor["minimum"]
        assert isinstance(minimum, dict), "our own command's JSON"
        return minimum

    def _set_floor(self, minimum: Mapping[str, object]) -> None:
        floor = {
            "minimum": dict(minimum),
            "evaluation_number": self.vendor["evaluation_number"],
            "accepted_status": ["UpToDate"],
            "grace_seconds": 0,
            "denied_advisories": [],
            "denied_families": [],
            "denied_chips": [],
        }
        (self.here / "floor.json").write_text(json.dumps(floor, indent=1))
        self.run(
            f"floor --platform sim-tdx --product {self.vendor['product']} --floor {{here}}/floor.json"
            " --origin {origin} {expires} --key {here}/log/keys/tcb.pem --url {url} --submit"
        )

    def _log(self, name: str, key: str) -> None:
        """Sign and submit NAME.json; keep its entry and its proof, and say how to check them offline."""
        signed = self.ask(f"sign {{here}}/{name}.json --key {key} --out {{here}}/{name}.entry")
        self.names[name] = str(signed["statement_id"])
        self.run(f"submit {{here}}/{name}.entry --url {{url}} --wait")
        found = leaf_hash((self.here / f"{name}.entry").read_bytes()).hex()
        self.run(f"proof {found} {{policy}} --url {{url}} --out {{here}}/{name}.tlog-proof")
        proof = f"verify {{here}}/{name}.tlog-proof --entry {{here}}/{name}.entry"
        self.repeat(f"the {name} is in the log", f"{proof} {{policy}} --offline --at-its-time")

    def _start_enclave(self, more: str = "", show: bool = False) -> None:
        self.start("enclave", f"enclave simulate {{program}} {{vendor}} {more}")
        self.stage.wait_for("enclave", lambda: self._phase() == "ready", "ready")
        if show:
            self.stage.show_log("enclave")
        self.stage.say("ready")

    def _ask_enclave(self, name: str, place: str = "enclave") -> None:
        self.run(
            f"chat {{{place}}} {{policy}} --log {{url}} --prompt '{QUESTION}' --max-tokens 40"
            f" --keep {{here}}/{name}.evidence.json"
        )
        self.repeat(f"{name} and its receipt", f"verify {{here}}/{name}.evidence.json {{policy}} --offline")

    def _phase(self, place: str = "enclave") -> str:
        try:
            reply = HTTP().send(Request(f"{self.names[place]}/v1/state"))
            return str(json.loads(reply.body)["phase"])
        except (CannotTell, ValueError, KeyError, TypeError):
            return "unreachable"

    def _wait_refusing(self) -> None:
        before = time.monotonic()
        self.stage.wait_for("enclave", lambda: self._phase() == "refusing", "refusing")
        self.stage.say(f"the running enclave takes no more prompts, {time.monotonic() - before:.1f} s later")


def _raised(svn: str) -> str:
    """Raise the first component of a TDX SVN (32 hex digits) by one."""
    return f"{int(svn[:2], 16) + 1:02x}{svn[2:]}"
