"""The ``quotary`` command: what it can do, and how a failure reaches the shell.

Answers go to stdout, everything else to stderr. Each failure that is not our mistake is a ``QuotaryError``
with an exit code (design section 9) and, where there is one, the next command; nobody ever sees a traceback.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from quotary import __version__
from quotary.cli.lazy import Lazy, LazyGroup
from quotary.cli.output import visible
from quotary.errors import OurBug, as_ours

INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
   0  proven or done (simulated evidence only with --simulation)
   1  our bug
   2  usage
  10  rejected: cryptography or a measurement contradicts the claim
  11  refused by policy: revoked, suspended, TCB, quorum, stale
  12  not in the log, by a verified absence proof
  20  unsupported here
  30  malformed input
  40  could not find out
  41  not authorised"""

_READ, _BUILD, _RUN, _SERVE = "Verify and use", "Build and sign", "Run an enclave", "Operate a log"
_AUDIT, _PRIVATE = "Audit a log", "Part who asks from what is asked"

COMMANDS = {
    "demo": Lazy("quotary.cli.demo:demo", "The whole story on this machine.", "Start", "registry,enclave"),
    "verify": Lazy("quotary.cli.verify:verify", "Judge a file: statement, bundle, proof, evidence.", _READ),
    "get": Lazy("quotary.cli.read:get", "Fetch one entry of a log.", _READ),
    "search": Lazy("quotary.cli.read:search", "List what a log says of a service (a hint).", _READ),
    "proof": Lazy("quotary.cli.read:proof", "Fetch and check an entry's inclusion proof.", _READ),
    "cose": Lazy("quotary.cli.cose:cose", "Fetch and check proofs as COSE receipts.", _READ),
    "bundle": Lazy("quotary.cli.read:bundle", "Fetch and check the bundle of a measurement.", _READ),
    "quote": Lazy("quotary.cli:evidence", "Look at or verify hardware evidence.", _READ),
    "receipt": Lazy("quotary.cli.receipt:receipt", "Check what an enclave signed about an answer.", _READ),
    "chat": Lazy("quotary.cli.chat:chat", "Verify a machine, then talk to it.", _READ),
    "roster": Lazy("quotary.cli.roster:roster", "Log and list a service's instances.", _PRIVATE),
    "proxy": Lazy("quotary.cli.proxy:proxy", "Verify for any OpenAI client on this machine.", _READ),
    "policy": Lazy("quotary.cli.policy:policy", "Write, check and explain what is demanded.", _READ),
    "trust": Lazy("quotary.cli.trust:trust", "Show what this machine has accepted.", _READ),
    "audit": Lazy("quotary.cli.audit:audit", "Check everything that a log ever said.", _AUDIT, "audit"),
    "monitor": Lazy("quotary.cli.monitor:monitor", "Tell when something happens in a log.", _AUDIT),
    "mirror": Lazy("quotary.cli.mirror:mirror", "Keep a verified, byte-exact copy of a log.", _AUDIT),
    "keys": Lazy("quotary.cli.keys:keys", "Make and show signing keys.", _BUILD),
    "build": Lazy("builder.cli:build", "Build images with Nix.", _BUILD, "builder"),
    "measure": Lazy("quotary.cli:measure", "Predict what hardware will measure.", _BUILD, "builder"),
    "release": Lazy("builder.cli:release", "Describe and compare releases.", _BUILD, "builder"),
    "sign": Lazy("builder.cli:sign", "Sign a statement.", _BUILD, "builder"),
    "submit": Lazy("builder.cli:submit", "Send signed statements to a log.", _BUILD, "builder"),
    "rebuild": Lazy("builder.cli:rebuild", "Repeat a build and say what came out.", _BUILD, "builder"),
    "revoke": Lazy("builder.cli:revoke", "Revoke or suspend a release.", _BUILD, "builder"),
    "delegate": Lazy("quotary.cli.delegate:delegate", "Say which keys may speak for a service.", _BUILD),
    "floor": Lazy("quotary.cli.floor:floor", "Set the oldest firmware that is accepted.", _BUILD),
    "location": Lazy("quotary.cli.location:location", "Say where machines stand.", _BUILD),
    "enclave": Lazy("quotary.cli:enclave", "Check, serve or simulate an enclave.", _RUN, "enclave"),
    "verifier": Lazy("quotary.cli:verifier", "Judge evidence for others, or check such a result.", _SERVE),
    "registry": Lazy("registry.cli:registry", "Run the log.", _SERVE, "registry"),
    "issuer": Lazy("private.cli:issuer", "Issue anonymous tokens.", _PRIVATE, "private"),
    "kms": Lazy("private.kms.cli:kms", "Keep keys for enclaves in shares.", _PRIVATE, "private"),
    "relay": Lazy(
        "private.cli:relay", "Pass sealed requests on: who asks, and not what.", _PRIVATE, "private"
    ),
}

quotary = LazyGroup(
    "quotary",
    COMMANDS,
    summary="A transparency log and measurement registry for confidential AI inference.",
    epilog=f"\b\nExample:\n  quotary verify evidence.json --policy policy.json\n\n{EXIT_CODES}",
)
click.version_option(__version__, prog_name="quotary", message="%(prog)s %(version)s")(quotary)

measure = LazyGroup(
    "measure",
    {
        "process": Lazy(
            "simulator.cli:measure_process", "Registers of a process under the simulator.", "Simulation"
        )
    },
    summary="Predict what hardware will measure.",
    epilog="\b\nExample:\n  quotary measure run ./result --platform tdx",
    base=Lazy("builder.cli:measure", "", extra="builder"),
)

# Not called quote: that is a module of this package.
evidence = LazyGroup(
    "quote",
    {"detect": Lazy("enclave.detect:detect", "Which hardware here could give evidence.", "This machine")},
    summary="Look at or verify hardware evidence; what it means is decided by a policy.",
    epilog="\b\nExample:\n  quotary quote inspect quote.bin",
    base=Lazy("quotary.cli.quote:quote", ""),
)

enclave = LazyGroup(
    "enclave",
    {
        "check": Lazy("enclave.cli:check", "The boot check alone, with its reasons.", "Enclave", "enclave"),
        "serve": Lazy("enclave.cli:serve", "Check itself, then answer prompts.", "Enclave", "enclave"),
        "forward": Lazy("quotary.cli.forward:forward", "Carry to and from one without network.", "Enclave"),
        "simulate-init": Lazy("simulator.cli:simulate_init", "Make the simulated vendor.", "Simulation"),
        "simulate": Lazy("simulator.cli:simulate", "Start a measured process (software only).", "Simulation"),
        "simulate-vm": Lazy("simulator.cli:simulate_vm", "Start the built image in QEMU.", "Simulation"),
    },
    summary="Check, serve or simulate an enclave.",
    epilog="\b\nExample:\n  quotary enclave simulate-init --json",
)

verifier = LazyGroup(
    "verifier",
    {
        "init": Lazy("verifier.cli:init", "Make a verifier's key.", "Verifier", "verifier"),
        "serve": Lazy("verifier.cli:serve", "Judge evidence that is sent.", "Verifier", "verifier"),
        "check": Lazy("quotary.cli.results:check", "Believe a result, offline.", "Result"),
    },
    summary="Judge hardware evidence for others, or check what a verifier said.",
    epilog="\b\nExample:\n  quotary verifier check result.jwt --keys jwks.json",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave with the exit code of design section 9."""
    try:
        code = quotary.main(args=arguments, prog_name="quotary", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        _fail(error.ctx.get_help() if error.ctx else "", 2, None, prefix="")
    except click.ClickException as error:
        usage = isinstance(error, click.UsageError) and error.ctx is not None
        _fail(error.format_message(), 2, f"{error.ctx.command_path} --help" if usage else None)  # type: ignore[attr-defined]  # usage errors have ctx
    except click.Abort:
        _fail("interrupted", INTERRUPTED, None)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(OurBug.exit_code)
    except Exception as error:  # noqa: BLE001  # the last line of defence: no traceback for users
        known = as_ours(error)
        _fail(str(known), known.exit_code, known.next_command)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int, next_command: str | None, prefix: str = "error: ") -> NoReturn:
    click.echo(f"{prefix}{visible(message)}", err=True)
    if next_command:
        click.echo(f"next: {next_command}", err=True)
    sys.exit(code)
