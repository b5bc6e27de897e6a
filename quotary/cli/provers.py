"""What ``quotary chat --with`` and ``quotary receipt verify`` say of two machines that gave one answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from quotary.cli.output import emit, summary, table
from quotary.cli.verify import refuse
from quotary.client.joint import TYPE, Agreement, JointFile, verify_joint
from quotary.client.policy import Policy
from quotary.client.provers import Provers
from quotary.client.verdict import Trail, documents
from quotary.errors import QuotaryError


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. model: None for the service itself."""

    text: str
    model: str | None
    max_tokens: int | None


def ask_two(provers: Provers, question: Question, keep: Path | None, as_json: bool) -> None:
    """Ask two verified machines, print what they agree on."""
    answer = provers.chat(question.text, model=question.model, max_tokens=question.max_tokens)
    if keep is not None:
        answer.save(keep)
    document = {
        "schema": "quotary/joint-chat/v1",
        "text": answer.text,
        **_members(answer.agreement),
        "checks": documents(answer.trail.checks),
    }
    emit(document, answer.text, as_json=as_json)
    click.echo(f"{table(answer.trail.checks)}\n{_headline(answer.agreement)}", err=True)


def is_joint(data: bytes) -> bool:
    """Tell a joint receipt by its type; its parser decides."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("type") == TYPE


def show_joint(data: bytes, policy: Policy, gap_ppm: int | None, as_json: bool) -> None:
    """Judge a joint receipt and say what was checked of each machine, and of both."""
    trails, joint = (Trail(), Trail()), Trail()
    try:
        found = verify_joint(JointFile.parse(data), policy, gap_ppm, trails, joint)
    except QuotaryError as error:
        refuse(error, [check for trail in (*trails, joint) for check in trail.checks], as_json)
    document = {
        "schema": "quotary/joint-verdict/v1",
        "outcome": "proven",
        **_members(found),
        "provers": [documents(trail.checks) for trail in trails],
        "checks": documents(joint.checks),
    }
    parts = [f"{table(trail.checks)}\n{summary(trail.checks)}" for trail in (*trails, joint)]
    emit(document, "\n\n".join([*parts, _headline(found)]), as_json=as_json)


def _members(found: Agreement) -> Mapping[str, object]:
    return {
        "simulated": any(each.verdict.simulated for each in (found.first, found.second)),
        "statement": found.statement(),
    }


def _headline(found: Agreement) -> str:
    tokens = found.first.receipt.commitments.tokens_out
    words = [f"{found.first.platform} and {found.second.platform} gave the same {tokens} tokens"]
    if found.diverged:
        words = [
            f"{found.second.platform} followed the {tokens} tokens of {found.first.platform}",
            f"would have gone on otherwise at {found.diverged}, by {found.gap_ppm} ppm at most",
        ]
    elif not found.exact:
        words.append("computed in different ways")
    if _members(found)["simulated"]:
        words.append("SIMULATED evidence, proves nothing about hardware")
    return "; ".join(words)
