"""One question to two enclaves on two kinds of hardware: equal answers, or the token at which they part.

    provers = Provers(Client("https://a.example.org", policy), Client("https://b.example.org", policy))
    provers.chat("What is in the log?").save("answer.joint.json")

Both get the same body, with a seed in it, and the same salt for their receipts, and answer at the same time.
Where they may differ by a little, the second one is asked again: it is told the first one's answer and says
at which of its tokens it would have gone on otherwise, and how close that was (docs/formats/joint.md).
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import b64
from quotary.client.answers import CHAT, error_text, parse_answer, text_of
from quotary.client.disk import write_new
from quotary.client.files import EvidenceFile
from quotary.client.joint import Agreement, JointFile, Proven, agree, check_distinct
from quotary.client.receipt import SALT_HEADER, SALT_LENGTH, Receipt, commitment, token_bytes
from quotary.client.session import Client
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, Malformed, Refused, Rejected

_SEED_BITS = 53
_DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer, as its machine wrote it."""

    id: int
    text: str

    def __str__(self) -> str:
        return f"{self.id} ({json.dumps(self.text)})"


class Diverged(Refused):
    """Two machines gave two answers. position: of the first token that differs, from 0; a token is absent
    where that answer had ended.
    """

    def __init__(
        self, position: int, tokens: tuple[Token | None, Token | None], names: tuple[str, str]
    ) -> None:
        said = [f"{token or 'the end'} of {name}" for token, name in zip(tokens, names, strict=True)]
        super().__init__("tokens", f"token {position}: {' and '.join(said)}", "the same tokens")
        self.position, self.tokens = position, tokens


@dataclass(frozen=True, slots=True)
class JointAnswer:
    """An answer that two verified machines agree on. trail: the checks of both together."""

    text: str
    agreement: Agreement
    file: JointFile
    trail: Trail

    def save(self, path: str | Path) -> None:
        """Keep both receipts and their evidence in a new file; ``quotary receipt verify`` judges it."""
        write_new(Path(path), self.file.encode())


@dataclass(frozen=True, slots=True)
class _Answered:
    """One machine's answer, opened: ``tokens`` are the very ones that its receipt commits to."""

    text: str
    tokens: tuple[Token, ...]
    proven: Proven
    file: EvidenceFile


class Provers:
    """Two verifying clients of two enclaves.

    gap_ppm: how far apart their choices of a token may be, in millionths; None demands equal answers
    """

    def __init__(self, first: Client, second: Client, gap_ppm: int | None = None) -> None:
        self.clients = (first, second)
        self._gap_ppm = gap_ppm

    def chat(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> JointAnswer:
        """Ask both and return what they agree on, or raise ``Diverged``."""
        trail, salt = Trail(), os.urandom(SALT_LENGTH)
        verdicts = [client.attested().verdict for client in self.clients]
        # Before a prompt leaves. Keys may change until it is answered, so it is decided again from receipts.
        check_distinct(verdicts[0], verdicts[1], Trail())
        request: dict[str, object] = {
            "model": model or verdicts[0].service,
            "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt),
            "max_tokens": max_tokens or _DEFAULT_TOKENS,
            "seed": secrets.randbits(_SEED_BITS) if seed is None else seed,
            "return_token_ids": True,
        }
        if temperature is not None:
            request["temperature"] = temperature
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda client: _ask(client, request, salt, follows=False), self.clients)
        if first.tokens != second.tokens and self._gap_ppm is not None:
            told = request | {"follow_token_ids": [token.id for token in first.tokens]}
            second = _ask(self.clients[1], told, salt, follows=True)
        check_same(first, second)
        agreement = agree(first.proven, second.proven, self._gap_ppm, trail)
        return JointAnswer(first.text, agreement, JointFile.of(agreement, first.file, second.file), trail)


def check_same(first: _Answered, second: _Answered) -> None:
    """Name the first token at which two answers part."""
    one, other = first.tokens, second.tokens
    if [token.id for token in one] == [token.id for token in other]:
        return
    pairs = enumerate(zip(one, other, strict=False))
    position = next((at for at, (a, b) in pairs if a.id != b.id), min(len(one), len(other)))
    parted = tuple(tokens[position] if position < len(tokens) else None for tokens in (one, other))
    raise Diverged(position, (parted[0], parted[1]), (first.proven.platform, second.proven.platform))


def _ask(client: Client, request: Mapping[str, object], salt: bytes, *, follows: bool) -> _Answered:
    body = json.dumps(request).encode()
    with client.open("POST", CHAT, body, {SALT_HEADER: b64(salt)}, follows=follows) as reply:
        data = b"".join(reply.chunks)
    if reply.status != 200 or reply.receipt is None or reply.file is None:
        raise CannotTell(f"{client.url} answered {reply.status}: {error_text(data)}")
    answer = parse_answer(data)
    if reply.receipt.salt != salt:
        raise Rejected("receipt salt", "another", "the one that both provers were given")
    tokens = _tokens(answer, reply.receipt)
    return _Answered(text_of(answer), tokens, Proven(reply.verdict, reply.receipt), reply.file)


def _tokens(answer: Mapping[str, object], receipt: Receipt) -> tuple[Token, ...]:
    """Read the answer's tokens and hold them against the receipt's commitment."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    ids, texts = (choice.get(name) if isinstance(choice, dict) else None for name in _MEMBERS)
    if not isinstance(ids, list) or not isinstance(texts, list) or len(ids) != len(texts):
        raise Malformed("the answer does not name its tokens")
    if not all(type(each) is int and 0 <= each < 1 << 32 for each in ids):
        raise Malformed("the answer names a token that is no number")
    assert receipt.salt is not None  # it is the salt that both were given
    if commitment("output_ids", receipt.salt, token_bytes(ids)) != receipt.commitments.output_ids:
        raise Rejected("receipt tokens", "others than the answer names", "the ones that it names")
    return tuple(Token(each, str(text)) for each, text in zip(ids, texts, strict=True))


_MEMBERS = ("token_ids", "token_texts")
