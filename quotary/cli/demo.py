"""``quotary demo``: the whole story on this machine, told by running our own commands."""

import json
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.cli.stage import Stage, answers, free_ports
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Request
from quotary.tlog.merkle import leaf_hash

ORIGIN = "demo.quotary.dev/simulation"
SERVICE = "demo/chat"
PORT = 8470
POLL_SECONDS = 2
MAX_AGE_SECONDS = 600
QUESTION = "What does the log say?"


@click.command(
    epilog="\b\nExample:\n  quotary demo --exit\n\nExit codes: 0 the story went as told, 1 it did not, "
    "40 something is missing on this machine."
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("var/demo"), show_default=True,
    help="Where the run's files go; emptied at the start.",
)  # fmt: skip
@click.option(
    "--port", default=PORT, show_default=True, help="First of four ports on 127.0.0.1; 0 takes any."
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
        story.farewell()
        if not leave:
            click.pause("", err=True)
            stage.running["registry"].wait()


class Story:
    """The chapters, in order; each stands on what the ones before it left in the folder."""

    def __init__(self, stage: Stage, folder: Path, ports: list[int]) -> None:
        self.stage = stage
        self.here = stage.folder
        self.kept = folder
        self.ports = dict(zip(("registry", "witness", "enclave", "vm"), ports, strict=True))
        self.url = f"http://127.0.0.1:{self.ports['registry']}"
        self.enclave = f"http://127.0.0.1:{self.ports['enclave']}"
        self.measurement = ""
        self.release_id = ""
        self.floor: Mapping[str, object] = {}

    def chapters(self, vm: bool) -> list:  # type: ignore[type-arg]
        told = [
            self.opening, self.log, self.authority, self.policy, self.image, self.unlogged, self.logged,
            self.serves, self.changed_weights, self.changed_program, *([self.machine] if vm else []),
            self.raised_floor, self.revoked,
        ]  # fmt: skip
        return told

    # --- what stands before the first refusal ---

    def opening(self) -> None:
        self.stage.chapter("Quotary: which program may read your prompt, and who vouches for it")
        say = self.stage.say
        say("Mode: process/v1. The TEE is SIMULATED: same bytes as Intel TDX, keys of a vendor of our own.")
        say("It proves nothing about this machine; a production policy cannot even name it.")
        say(
            f"Intervals are shortened in the measured policy: the enclave looks at the log every {POLL_SECONDS} s."
        )
        model = self.kept / "model"
        if not (model / "MANIFEST").is_file():
            say("The model does not exist yet: a small one is trained on the project's own text, once.")
            self.stage.run("build", "model", "--out", model)
        shutil.copytree(model, self.here / "model")

    def log(self) -> None:
        self.stage.chapter("1. A log, and a witness that holds it to one history")
        run, here = self.stage.run, self.here
        witness = run(
            "registry",
            "witness",
            "init",
            "--dir",
            here / "witness",
            "--name",
            "witness.demo.quotary.dev",
            quiet=True,
        )
        keys = run(
            "registry", "init", "--dir", here / "log", "--origin", ORIGIN, "--bind", _local(self.url), "--publish-interval",
            "0.3", "--refresh", "5", "--witness", f"http://127.0.0.1:{self.ports['witness']}", witness.split()[-1], quiet=True,
        )  # fmt: skip
        vkeys = keys.split()
        self.stage.say(f"log key (Ed25519):   {vkeys[0]}")
        self.stage.say(f"log key (ML-DSA-44): {vkeys[1][:60]}… ({len(vkeys[1])} characters)")
        self.stage.say(f"witness key:         {witness.split()[-1]}")
        follow = [word for vkey in vkeys[:2] for word in ("--log", vkey)]
        run("registry", "witness", "follow", "--dir", here / "witness", *follow, show=False, quiet=True)
        bind = f"127.0.0.1:{self.ports['witness']}"
        self.stage.start("witness", "registry", "witness", "serve", "--dir", here / "witness", "--bind", bind)
        self.stage.wait_for("witness", lambda: answers(self.ports["witness"]), "listening")
        self.stage.start("registry", "registry", "serve", "--dir", here / "log")
        self.stage.wait_for("registry", lambda: answers(self.ports["registry"]), "listening")

    def authority(self) -> None:
        self.stage.chapter("2. Who may say what: keys of an owner, a builder, a rebuilder")
        run, here = self.stage.run, self.here
        for name in ("owner", "builder"):
            run("keys", "new", here / f"{name}.key", "--public", here / f"{name}.pub", show=False, quiet=True)
        keys = here / "log" / "keys"
        for role in ("rebuilder", "tcb"):
            self._public(keys / f"{role}.pem", here / f"{role}.pub")
        expires = f"{datetime.now(UTC) + timedelta(days=365):%Y-%m-%d}"
        common = (
            "--origin",
            ORIGIN,
            "--service",
            SERVICE,
            "--expires",
            expires,
            "--url",
            self.url,
            "--submit",
        )
        owner = ("--role", f"owner={here / 'owner.pub'}")
        first = self.stage.ask("delegate", *common, *owner, "--sequence", "1", "--key", keys / "root.pem")
        self.stage.say(f"the log's root allocates {SERVICE} to the owner")
        run(
            "delegate", *common, *owner, "--role", f"builder={here / 'builder.pub'}", "--sequence", "2", "--previous",
            str(first["statement_id"]), "--key", here / "owner.key",
        )  # fmt: skip
        vendor = self.stage.ask("enclave", "simulate-init", "--directory", here / "vendor")
        self.vendor = vendor
        self._set_floor(dict(vendor["minimum"]))  # type: ignore[call-overload]

    def policy(self) -> None:
        self.stage.chapter("3. What client and enclave demand: one policy, measured with the program")
        self.stage.run(
            "policy", "new", "--from-log", self.url, "--service", SERVICE, "--owner", self.here / "owner.pub", "--platform",
            "sim-tdx", "--floors", "log", "--simulator-root", str(self.vendor["root_sha256"]), "--map-auditor", "none",
            "--rebuilders", self.here / "rebuilder.pub", "--max-age", str(MAX_AGE_SECONDS), "--poll", str(POLL_SECONDS),
            "--out", self.here / "policy.json",
        )  # fmt: skip

    def image(self) -> None:
        self.stage.chapter(
            "4. An image, built by Nix from a lock, and the numbers a machine would show for it"
        )
        run, here = self.stage.run, self.here
        run(
            "build", "run", "--profile", "ci", "--policy", here / "policy.json", "--model", here / "model", "--set",
            f"service={SERVICE}", "--fresh-lock", "--out", here / "image",
        )  # fmt: skip
        run("measure", "run", here / "image", "--platform", "sim-tdx", "--out", here / "image-rows.json")
        run("measure", "run", here / "image", "--platform", "snp", expect=20)
        self.stage.say("And the program that this demo starts as a measured process:")
        found = run("measure", "process", *self._program(), "--json", quiet=True)
        (here / "process-rows.json").write_text(found)
        self.measurement = str(json.loads(found)["measurement"])
        self.stage.say(f"measurement id {self.measurement}")

    # --- refused, logged, served ---

    def unlogged(self) -> None:
        self.stage.chapter("5. Refused: the program is not in the log (12)")
        self.stage.say(
            "It starts, asks its (simulated) TEE for a quote, asks the log for its own measurement, and stops:"
        )
        self.stage.run("enclave", "simulate", *self._program(), *self._vendor(), expect=12)
        absence = self.here / "absence.json"
        self.stage.run(
            "bundle",
            SERVICE,
            self.measurement,
            *self._policy(),
            "--url",
            self.url,
            "--out",
            absence,
            expect=12,
        )
        self.stage.repeat("absence", "verify", absence, *self._policy(), "--offline", exit_code=12)

    def logged(self) -> None:
        self.stage.chapter("6. Logged, and built a second time")
        run, here = self.stage.run, self.here
        common = ("--origin", ORIGIN, "--service", SERVICE, "--url", self.url)
        run(
            "release", "new", here / "image", "--rows", here / "image-rows.json", "--rows", here / "process-rows.json",
            *common, "--source-uri", "https://quotary.dev/source", "--out", here / "release.json",
        )  # fmt: skip
        self._log("release", here / "builder.key")
        self.stage.say(
            "The log has it, but nobody has repeated the build, and the policy demands one rebuilder:"
        )
        run(
            "bundle",
            SERVICE,
            self.measurement,
            *self._policy(),
            "--url",
            self.url,
            "--out",
            here / "too-early.json",
            expect=11,
        )
        again = run("measure", "process", *self._program(), "--json", show=False, quiet=True)
        (here / "rebuilt-rows.json").write_text(again)
        run(
            "rebuild", "run", here / "release.entry", "--organisation", "A second builder", "--model", here / "model",
            "--measured", here / "rebuilt-rows.json", "--url", self.url, "--out", here / "rebuild.json",
        )  # fmt: skip
        self._log("rebuild", here / "log" / "keys" / "rebuilder.pem")
        bundle = here / "bundle.json"
        run("bundle", SERVICE, self.measurement, *self._policy(), "--url", self.url, "--out", bundle)
        self.stage.repeat("bundle", "verify", bundle, *self._policy(), "--offline")

    def serves(self) -> None:
        self.stage.chapter("7. The enclave serves, a question is answered, its receipt verified")
        self._start_enclave("enclave")
        self._ask("answer")

    def changed_weights(self) -> None:
        self.stage.chapter("8. Refused: changed weights under the logged command line (10)")
        weights = self.here / "model" / "model.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.stage.say(
            f"one bit of {weights} is flipped; the manifest, and so the measurement, stays as it is"
        )
        try:
            self.stage.run("enclave", "simulate", *self._program(), *self._vendor(), expect=10)
        finally:
            weights.write_bytes(good)

    def changed_program(self) -> None:
        self.stage.chapter("9. Refused: a changed program (12)")
        code = self.here / "changed"
        root = Path(__file__).resolve().parents[2]
        for package in ("quotary", "enclave"):
            shutil.copytree(root / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        with open(code / "enclave" / "__init__.py", "a") as file:
            file.write("# one line more\n")
        self.stage.say(f"one comment is added to {code / 'enclave' / '__init__.py'}")
        self.stage.run("enclave", "simulate", *self._program(), *self._vendor(), "--code", code, expect=12)

    def machine(self) -> None:
        self.stage.chapter("10. The built image boots in QEMU, checks itself, and serves")
        raise NotImplementedError

    def raised_floor(self) -> None:
        self.stage.chapter("11. Refused: the firmware floor is raised above this machine (11)")
        minimum = dict(self.vendor["minimum"])  # type: ignore[call-overload]
        raised = _raised(str(minimum["tee_tcb_svn"]))
        self._set_floor({**minimum, "tee_tcb_svn": raised})
        self._wait_refusing("tcb")
        self.stage.stop("enclave")
        self.stage.say("A new start is refused as well:")
        self.stage.run("enclave", "simulate", *self._program(), *self._vendor(), expect=11)
        self.stage.say(
            "After the firmware update (the simulated platform starts with the newer level) it serves again:"
        )
        self._start_enclave("enclave", "--tcb-svn", raised)
        self._ask("patched")

    def revoked(self) -> None:
        self.stage.chapter("12. The release is revoked while the enclave serves")
        here = self.here
        self.stage.run(
            "revoke", "--release", self.release_id, "--service", SERVICE, "--reason", "the demo ends here", "--origin",
            ORIGIN, "--url", self.url, "--out", here / "revocation.json",
        )  # fmt: skip
        self._log("revocation", here / "builder.key")
        self._wait_refusing("status")
        self.stage.say("The client refuses by its own look at the log, whatever the enclave says:")
        bundle = here / "revoked.json"
        self.stage.run(
            "bundle",
            SERVICE,
            self.measurement,
            *self._policy(),
            "--url",
            self.url,
            "--out",
            bundle,
            expect=11,
        )
        self.stage.repeat("revoked", "verify", bundle, *self._policy(), "--offline", exit_code=11)
        self.stage.stop("enclave")

    def farewell(self) -> None:
        self.stage.chapter("What is left")
        say = self.stage.say
        say(
            f"pages:      {self.url}/  (entry, measurement and search pages; your browser recomputes what they claim)"
        )
        say(f"log's keys: {self.here / 'log' / 'policy.tlog'}")
        say(
            f"files:      {self.here}; the commands to repeat every verdict are in {self.here / 'repeat.json'}"
        )
        say("stop:       Ctrl-C; everything that was started ends with it")

    # --- the parts that several chapters share ---

    def _public(self, secret: Path, public: Path) -> None:
        found = self.stage.ask("keys", "show", secret)
        public.write_text(f"-----BEGIN PUBLIC KEY-----\n{found['spki']}\n-----END PUBLIC KEY-----\n")

    def _set_floor(self, minimum: dict[str, object]) -> None:
        floor = {
            "minimum": minimum,
            "evaluation_number": self.vendor["evaluation_number"],
            "accepted_status": ["UpToDate"],
            "grace_seconds": 0,
            "denied_advisories": [],
            "denied_families": [],
            "denied_chips": [],
        }
        (self.here / "floor.json").write_text(json.dumps(floor))
        expires = f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}"
        self.stage.run(
            "floor", "--platform", "sim-tdx", "--product", str(self.vendor["product"]), "--floor", self.here / "floor.json",
            "--origin", ORIGIN, "--expires", expires, "--key", self.here / "log" / "keys" / "tcb.pem", "--url", self.url,
            "--submit",
        )  # fmt: skip

    def _program(self) -> tuple[str | Path, ...]:
        return (
            "--policy", self.here / "policy.json", "--model", self.here / "model", "--registry", self.url, "--service",
            SERVICE, "--listen", _local(self.enclave),
        )  # fmt: skip

    def _policy(self) -> tuple[str | Path, ...]:
        return ("--policy", self.here / "policy.json", "--simulation")

    def _vendor(self) -> tuple[str | Path, ...]:
        return ("--directory", self.here / "vendor")

    def _log(self, name: str, key: Path) -> None:
        """Sign and submit NAME.json; keep its entry and its proof, and say how to check them offline."""
        entry, proof = self.here / f"{name}.entry", self.here / f"{name}.tlog-proof"
        signed = self.stage.ask("sign", self.here / f"{name}.json", "--key", key, "--out", entry)
        if name == "release":
            self.release_id = str(signed["statement_id"])
        self.stage.run("submit", entry, "--url", self.url, "--wait")
        index = leaf_hash(entry.read_bytes()).hex()
        self.stage.run("proof", index, *self._policy(), "--url", self.url, "--out", proof)
        self.stage.repeat(
            f"{name} in the log", "verify", proof, "--entry", entry, *self._policy(), "--offline"
        )

    def _start_enclave(self, name: str, *words: str) -> None:
        self.stage.start(name, "enclave", "simulate", *self._program(), *self._vendor(), *words)
        self.stage.wait_for(name, lambda: self._phase() == "ready", "ready")
        self.stage.show_log(name)

    def _ask(self, name: str) -> None:
        evidence = self.here / f"{name}.evidence.json"
        self.stage.run(
            "chat", self.enclave, *self._policy(), "--log", self.url, "--prompt", QUESTION, "--max-tokens", "40", "--keep",
            evidence,
        )  # fmt: skip
        self.stage.repeat(f"{name} and its receipt", "verify", evidence, *self._policy(), "--offline")

    def _phase(self) -> str:
        try:
            reply = HTTP().send(Request(f"{self.enclave}/v1/state"))
            return str(json.loads(reply.body)["phase"])
        except (CannotTell, ValueError, KeyError, TypeError):
            return "unreachable"

    def _wait_refusing(self, check: str) -> None:
        before = time.monotonic()
        self.stage.wait_for("enclave", lambda: self._phase() == "refusing", f"refusing ({check})")
        self.stage.say(f"the running enclave refuses, {time.monotonic() - before:.1f} s later")


def _raised(svn: str) -> str:
    """Raise the first component of a TDX SVN (32 hex digits) by one."""
    return f"{int(svn[:2], 16) + 1:02x}{svn[2:]}"


def _local(url: str) -> str:
    return url.removeprefix("http://")
