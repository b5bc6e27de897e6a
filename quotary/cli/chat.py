"""``quotary chat``: verify a machine, then talk to it through the sealed channel."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from quotary.cli.files import read_bytes
from quotary.cli.options import memory, policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option, summary, table
from quotary.cli.provers import Question, ask_two
from quotary.cli.roster import pick_instance
from quotary.cli.verify import refuse
from quotary.client.provers import Provers
from quotary.client.session import Client, TokenSource
from quotary.client.verdict import Check, Trail, documents
from quotary.client.ways import the_service
from quotary.errors import QuotaryError, Usage


@click.command(
    epilog="\b\nExample:\n  quotary chat https://chat.example.org --policy policy.json --prompt 'Hello'\n\n"
    "Exit codes: 0, 2, 10, 11, 12, 20, 30, 40."
)
@click.argument("url", required=False)
@policy_option
@simulation_option
@click.option("--service", help="Whose machine it must be, if the policy names several.")
@click.option("--log", "log_url", help="Address of the log, if not the one in the policy.")
@click.option("--with", "other_url", help="Ask this machine of another kind, too; both have to agree.")
@click.option("--tolerate", type=click.IntRange(0), help="How far apart the two may be, in millionths.")
@click.option("--ratls", is_flag=True, help="URL is the enclave's second door: TLS that ends inside it.")
@click.option("--relay", help="Address of this machine at a relay: nothing goes to URL itself.")
@click.option("--pick", is_flag=True, help="Choose an instance out of the log; --relay names the relay only.")
@click.option("--least", type=click.IntRange(1), default=2, show_default=True, help="Instances to pick from.")
@click.option("--issuer", help="Address of the issuer of the token that an answer costs.")
@click.option("--account", type=click.Path(path_type=Path), help="File with the account's secret there.")
@click.option("--tier", default="standard", show_default=True, help="Of the tokens.")
@click.option("--prompt", help="What to ask; read from stdin if not given.")
@click.option("--model", help="Model to ask; the service itself if not given.")
@click.option("--max-tokens", type=click.IntRange(1))
@click.option("--keep", type=click.Path(path_type=Path), help="New file for the evidence of the answer.")
@json_option
def chat(
    url: str | None,
    policy_file: Path,
    simulation: bool,
    service: str | None,
    log_url: str | None,
    other_url: str | None,
    tolerate: int | None,
    ratls: bool,
    relay: str | None,
    pick: bool,
    least: int,
    issuer: str | None,
    account: Path | None,
    tier: str,
    prompt: str | None,
    model: str | None,
    max_tokens: int | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Verify the machine at URL, ask it one question, verify its receipt, print the answer.

    With --with, two machines of different kinds, and their receipts together.
    """
    policy = read_policy(policy_file, simulation=simulation)
    if keep is not None and keep.exists():
        raise Usage(f"{keep} exists")
    asked = prompt if prompt is not None else sys.stdin.read()
    if not asked.strip():
        raise Usage("there is nothing to ask", next_command="add --prompt TEXT")
    source = _source(issuer, account, tier)
    picked = None
    if pick:
        if url is not None or relay is None or other_url is not None:
            raise Usage("--pick chooses a machine at the relay that --relay names, without URL and --with")
        picked = pick_instance(policy, the_service(policy, service), log_url, least)
        url, relay = f"instance:{picked.name}", f"{relay.rstrip('/')}/{picked.name}"
    if url is None:
        raise Usage("no machine is named", next_command="add URL, or --relay and --pick")
    if other_url is None and tolerate is not None:
        raise Usage("--tolerate is about two machines", next_command="add --with URL")
    if other_url is not None and relay is not None:
        raise Usage("--relay is one machine's address there, --with asks two")
    known = memory()
    clients = [
        Client(
            address,
            policy,
            service=service,
            log_url=log_url,
            memory=known,
            relay=relay,
            issuer=source,
            picked=picked,
            ratls=ratls,
        )
        for address in (url, *(() if other_url is None else (other_url,)))
    ]
    for each in clients:
        _verified(each, policy.simulation, as_json)
    if other_url is not None:
        ask_two(Provers(clients[0], clients[1], tolerate), Question(asked, model, max_tokens), keep, as_json)
        return
    _ask_one(clients[0], Question(asked, model, max_tokens), keep, as_json)


def _ask_one(client: Client, question: Question, keep: Path | None, as_json: bool) -> None:
    answer = client.chat(question.text, model=question.model, max_tokens=question.max_tokens)
    if keep is not None:
        answer.save(keep)
    document = {
        "schema": "quotary/chat/v1",
        "text": answer.text,
        "receipt_id": answer.receipt.served.receipt_id,
        "headline": answer.verdict.headline,
        "simulated": answer.verdict.simulated,
        "checks": documents(answer.verdict.checks),
    }
    emit(document, answer.text, as_json=as_json)
    click.echo(f"receipt {answer.receipt.served.receipt_id} verified; {answer.verdict.headline}", err=True)


def _verified(client: Client, simulated: bool, as_json: bool) -> None:
    """Judge a machine before it is asked, and show by what."""
    trail = Trail()
    try:
        client.verify(trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    _tell(trail.checks, simulated)


def _tell(checks: Sequence[Check], simulated: bool) -> None:
    """Show what was verified before anything was sent."""
    main = [check for check in checks if ":" not in check.name]
    click.echo(f"{table(main)}\n{summary(main)}{'; SIMULATED' if simulated else ''}", err=True)


def _source(issuer: str | None, account: Path | None, tier: str) -> TokenSource | None:
    if (issuer is None) != (account is None):
        raise Usage("--issuer and --account belong together")
    if issuer is None or account is None:
        return None
    return TokenSource(issuer, read_bytes(account, 256).decode("ascii", "replace").strip(), tier)
