"""``quotary policy``: write down what is demanded, check it, say it in words, and try it on a bundle."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.canonical import b64, canonical, hexbytes, time_text
from quotary.cli.files import read_bytes, read_json, read_text
from quotary.cli.making import TIME
from quotary.cli.options import read_policy, simulation_option, url_option
from quotary.cli.output import emit, json_option, summary, table
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.client.keys import load_public
from quotary.client.log import LogClient
from quotary.client.policy import DOORS, MAX_POLICY, SIMULATION_SUFFIX, Policy
from quotary.client.policy_text import explain as sentences
from quotary.client.policy_text import weaknesses
from quotary.errors import Malformed, QuotaryError, Usage
from quotary.net.transport import HTTP

FILE = click.Path(path_type=Path)


@click.group(epilog="\b\nExample:\n  quotary policy lint policy.json && quotary policy explain policy.json")
def policy() -> None:
    """Write, check, explain and try out what is demanded of a machine."""


@policy.command(
    epilog="\b\nExample:\n"
    "  quotary policy new --tlog-policy log.policy --genesis 5f1c... --service example.org/chat \\\n"
    "    --owner owner1.pub --owner owner2.pub --owner-threshold 2 --platform tdx --floors log \\\n"
    "    --map-auditor none --rebuilders none --max-age 900 --out policy.json\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@click.option("--tlog-policy", "tlog_file", type=FILE, help="C2SP tlog-policy of the log.")
@click.option("--genesis", help="Leaf hash of the log's entry 0, in hex.")
@click.option("--from-log", metavar="URL", help="Take both from the log itself; compare them elsewhere.")
@click.option("--service", required=True, help="Whose machines may answer.")
@click.option("--owner", "owners", type=FILE, multiple=True, required=True, help="Public key of an owner.")
@click.option("--owner-threshold", type=click.IntRange(1), default=1, show_default=True)
@click.option("--platform", required=True, help="tdx, or sim-tdx for simulation.")
@click.option("--floors", required=True, help="`log`, or a JSON file: product -> floor.")
@click.option(
    "--require", "require_file", type=FILE, help="JSON file: what else evidence must, or need not, show."
)
@click.option("--simulator-root", help="File (DER) or SHA-256 in hex of the simulator's root.")
@click.option("--devices", "devices_file", type=FILE, help="JSON file: what GPUs must show (member devices).")
@click.option(
    "--map-auditor", "auditors", multiple=True, required=True, help="Name in the tlog policy, or `none`."
)
@click.option(
    "--rebuilders",
    "rebuilder_files",
    multiple=True,
    required=True,
    help="Public key, ORGANISATION=KEY, or `none`.",
)
@click.option("--rebuilders-needed", type=click.IntRange(1), default=1, show_default=True)
@click.option("--max-age", "max_age_seconds", type=click.IntRange(1), required=True, help="Seconds.")
@click.option("--minimum-size", type=click.IntRange(0), default=1, show_default=True)
@click.option("--minimum-time", type=TIME, help="UTC; now less --max-age if not said.")
@click.option(
    "--poll", "poll_seconds", type=click.IntRange(1), help="For enclaves: seconds between two looks."
)
@click.option("--plaintext", type=click.Choice(["refused", "allowed"]), default="refused", show_default=True)
@click.option(
    "--door", "doors", type=click.Choice(DOORS), multiple=True, help="For enclaves: whose clients are served."
)
@click.option(
    "--stream",
    nargs=2,
    type=int,
    metavar="MS FRAMES",
    help="For enclaves: a frame of a sealed stream every so many ms, and a multiple of so many.",
)
@click.option("--cache", "cache_mib", type=int, help="For enclaves: MiB for keys and values of all answers.")
@click.option("--oblivious", is_flag=True, help="For enclaves: take capsules that come through a relay.")
@click.option("--out", type=FILE, required=True, help="New file.")
@json_option
def new(
    tlog_file: Path | None,
    genesis: str | None,
    from_log: str | None,
    service: str,
    owners: tuple[Path, ...],
    owner_threshold: int,
    platform: str,
    floors: str,
    require_file: Path | None,
    simulator_root: str | None,
    devices_file: Path | None,
    auditors: tuple[str, ...],
    rebuilder_files: tuple[str, ...],
    rebuilders_needed: int,
    max_age_seconds: int,
    minimum_size: int,
    minimum_time: datetime | None,
    poll_seconds: int | None,
    plaintext: str,
    doors: tuple[str, ...],
    stream: tuple[int, int] | None,
    cache_mib: int | None,
    oblivious: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write a policy; whatever is not demanded has to be said with the word `none`."""
    tlog_text, genesis_text = _anchors(tlog_file, genesis, from_log)
    # A log that is idle shows a quorum's word of minutes ago, which the same policy's age admits.
    newest = SystemClock().now().replace(microsecond=0) - timedelta(seconds=max_age_seconds)
    at = minimum_time.replace(tzinfo=UTC) if minimum_time else newest
    rules: dict[str, object] = {
        "floors": "log" if floors == "log" else read_json(Path(floors)),
        "require": {"debug": "refused"} if require_file is None else read_json(require_file),
    }
    if simulator_root is not None:
        rules["simulator_root_sha256"] = _digest_of(simulator_root)
    document: dict[str, object] = {
        "v": 1,
        "environment": "simulation" if platform.startswith("sim-") else "production",
        "tlog_policy": tlog_text,
        "genesis": genesis_text,
        "services": {service: {"owner": {"keys": _keys(owners), "threshold": owner_threshold}}},
        "minimum": {"size": minimum_size, "time": time_text(at)},
        "max_age_seconds": max_age_seconds,
        "map_auditor": _or_none(auditors, sorted(set(auditors))),
        "rebuilders": _rebuilders(rebuilder_files, rebuilders_needed),
        "platforms": {platform: rules},
    }
    if devices_file is not None:
        document["devices"] = read_json(devices_file)
    if poll_seconds is not None:
        rules_of_enclave: dict[str, object] = {"poll_seconds": poll_seconds, "plaintext": plaintext}
        rules_of_enclave |= {"doors": sorted(set(doors))} if doors else {}
        rules_of_enclave |= {"stream": {"interval_ms": stream[0], "frames": stream[1]}} if stream else {}
        rules_of_enclave |= {} if cache_mib is None else {"cache_mib": cache_mib}
        document["enclave"] = rules_of_enclave | ({"oblivious": "offered"} if oblivious else {})
    data = canonical(document, multiline=True)
    found = Policy.parse(data)
    write_new(out, data)
    _report(found, out, as_json)


@policy.command(epilog="\b\nExample:\n  quotary policy lint policy.json\n\nExit codes: 0, 30, 40.")
@click.argument("file", type=FILE)
@json_option
def lint(file: Path, as_json: bool) -> None:
    """Check that FILE is a policy, and name where it demands less than it could."""
    _report(Policy.parse(read_bytes(file, MAX_POLICY)), file, as_json)


@policy.command(epilog="\b\nExample:\n  quotary policy explain policy.json\n\nExit codes: 0, 30, 40.")
@click.argument("file", type=FILE)
@json_option
def explain(file: Path, as_json: bool) -> None:
    """Say in sentences what FILE demands."""
    found = Policy.parse(read_bytes(file, MAX_POLICY))
    said = sentences(found)
    document = {"schema": "quotary/policy-explained/v1", "sha256": found.digest.hex(), "demands": list(said)}
    emit(document, "\n".join(f"- {sentence}" for sentence in said), as_json=as_json)


@policy.command(
    epilog="\b\nExample:\n  quotary policy simulate policy.json --bundle release.bundle\n"
    "  quotary policy simulate policy.json --measurement 4d4d... --service example.org/chat\n\n"
    "Exit codes: 0 it would boot as far as the log decides, 2, 10, 11, 12, 20, 30, 40."
)
@click.argument("file", type=FILE)
@simulation_option
@click.option("--bundle", "bundle_file", type=FILE, help="Kept bundle; else it is fetched from the log.")
@click.option("--measurement", help="Measurement id, 64 hex digits; without it, the bundle's own.")
@click.option("--service", help="Whose release it is, if the policy names several.")
@url_option
@click.option(
    "--at-its-time", is_flag=True, help="Judge at the witnesses' time: whether it would have booted."
)
@json_option
def simulate(
    file: Path,
    simulation: bool,
    bundle_file: Path | None,
    measurement: str | None,
    service: str | None,
    url: str | None,
    at_its_time: bool,
    as_json: bool,
) -> None:
    """Say whether an enclave under FILE would boot, as far as its log decides; no machine is looked at."""
    from quotary.cli.verify import Inputs, refuse
    from quotary.client.rehearsal import rehearse
    from quotary.client.verdict import Trail, documents
    from quotary.client.ways import the_service
    from quotary.statements.bundle import parse_bundle

    found, trail = read_policy(file, simulation=simulation), Trail()
    if bundle_file is None and measurement is None:
        raise Usage("nothing to simulate", next_command="add --bundle FILE or --measurement ID")
    inputs = Inputs(found, url, False, {"bundle": bundle_file}, None, measurement, at_its_time)
    wanted = inputs.measurement
    try:
        data = inputs.given("bundle", lambda: inputs.log().bundle(the_service(found, service), wanted or b""))
        known, clock = inputs.moment(parse_bundle(data).checkpoint)
        standing = rehearse(data, wanted, found, known, clock, trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    headline = inputs.dated(f"would boot, as far as the log decides: {standing.headline}", clock)
    document = {
        "schema": "quotary/policy-simulation/v1",
        "headline": headline,
        "simulated": found.simulation,
        "checks": documents(trail.checks),
    }
    emit(document, f"{table(trail.checks)}\n{headline}\n{summary(trail.checks)}", as_json=as_json)


def _report(found: Policy, file: Path, as_json: bool) -> None:
    weak = weaknesses(found)
    document = {
        "schema": "quotary/policy-lint/v1",
        "sha256": found.digest.hex(),
        "origin": found.origin,
        "environment": found.environment,
        "weaknesses": list(weak),
    }
    lines = [f"{file}: a policy for {found.environment} about {found.origin}", f"sha256 {found.digest.hex()}"]
    lines += [f"weak: {weakness}" for weakness in weak]
    emit(document, "\n".join(lines), as_json=as_json)


def _anchors(tlog_file: Path | None, genesis: str | None, url: str | None) -> tuple[str, str]:
    if url is None:
        if tlog_file is None or genesis is None:
            raise Usage("give --tlog-policy and --genesis, or --from-log")
        return read_text(tlog_file), genesis
    described = LogClient(HTTP(), url).description()
    text, found = described.get("tlog_policy"), described.get("genesis")
    if not isinstance(text, str) or not isinstance(found, str):
        raise Malformed(f"{url} does not describe itself")
    origin = described.get("origin")
    simulated = isinstance(origin, str) and origin.endswith(SIMULATION_SUFFIX)
    if not simulated:
        click.echo(
            "warning: these anchors are the log's own word; compare them with what you got elsewhere:\n"
            f"  genesis {found}\n  tlog policy sha256 {hashlib.sha256(text.encode()).hexdigest()}",
            err=True,
        )
    return read_text(tlog_file) if tlog_file else text, genesis or found


def _digest_of(text: str) -> str:
    path = Path(text)
    if not path.exists():
        return hexbytes(text, 32).hex()
    data = read_bytes(path, 1 << 16)
    if data.startswith(b"-----BEGIN"):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            data = x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
        except ValueError as error:
            raise Malformed(f"{path} is not a certificate") from error
    return hashlib.sha256(data).hexdigest()


def _keys(files: tuple[Path, ...]) -> dict[str, str]:
    return {key.keyid: b64(key.spki) for key in map(load_public, files)}


def _or_none(words: tuple[str, ...], value: object) -> object:
    if "none" not in words:
        return value
    if len(words) > 1:
        raise Usage("`none` stands alone")
    return "none"


def _rebuilders(files: tuple[str, ...], needed: int) -> object:
    if _or_none(files, "") == "none":
        return "none"
    named = [_owned(text) for text in files]
    document: dict[str, object] = {"keys": _keys(tuple(path for _, path in named)), "k": needed}
    if not any(owner for owner, _ in named):
        return document
    if not all(owner for owner, _ in named):
        raise Usage("name the organisation of every rebuilder, or of none")
    owners = {load_public(path).keyid: owner for owner, path in named}
    names = sorted(set(owners.values()))
    return document | {
        "organisations": {name: sorted(key for key in owners if owners[key] == name) for name in names}
    }


def _owned(text: str) -> tuple[str, Path]:
    owner, equals, path = text.partition("=")
    return (owner, Path(path)) if equals and not Path(text).exists() else ("", Path(text))
