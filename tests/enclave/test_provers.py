"""One question to two real enclaves on different kinds of simulated hardware, with a real model in each."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import safetensors.torch

from builder.model import MadeModel
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.cli import main
from quotary.client.joint import Agreement, JointFile, Proven, agree, verify_joint
from quotary.client.policy import Policy
from quotary.client.provers import Diverged, JointAnswer, Provers
from quotary.client.verdict import Trail
from quotary.errors import Malformed, Refused, Rejected
from tests.fakes import authority
from tests.fakes.provers import Pair, Prover

ASK = "What is a log?"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "joint.md"
CLOSE = 2_000_000


def loaded(
    model: MadeModel, edit: Callable[[dict[str, bytes]], None] = lambda files: None
) -> TransformerModel:
    """One more copy of the model; ``edit`` changes what is computed, and not what it is called."""
    weights = read_weights(model.folder, model.digest)
    files = dict(weights.files)
    edit(files)
    return TransformerModel(replace(weights, files=files), threads=1)


def halve(files: dict[str, bytes]) -> None:
    files["config.json"] = files["config.json"].replace(b'"float32"', b'"bfloat16"')


def shake(files: dict[str, bytes]) -> None:
    """Arithmetic that is off: what the layers add counts eight times, and not what a token is, which a
    model that has hardly learnt repeats however its weights are changed.
    """
    for name in [name for name in files if name.endswith(".safetensors")]:
        tensors = safetensors.torch.load(files[name])
        shaken = {key: value * (8 if "proj" in key else 1) for key, value in tensors.items()}
        files[name] = safetensors.torch.save(shaken)


@pytest.fixture(scope="module")
def models(model: MadeModel) -> tuple[TransformerModel, TransformerModel]:
    return loaded(model), loaded(model)


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the simulated vendors' keys are kept, because making them takes long."""
    return tmp_path_factory.mktemp("vendors")


@pytest.fixture(scope="module")
def pair(model: MadeModel, vendors: Path) -> Pair:
    return Pair.made(vendors, [model.digest] * 2)


@pytest.fixture(scope="module")
def both(pair: Pair, models: tuple[TransformerModel, ...]) -> Iterator[tuple[Prover, Prover]]:
    """Two enclaves that compute alike."""
    with pair.running(models) as made:
        yield made


@pytest.fixture(scope="module")
def apart(
    pair: Pair, model: MadeModel, models: tuple[TransformerModel, ...]
) -> Iterator[tuple[Prover, Prover]]:
    """Two enclaves of which the second computes something else than it should."""
    with pair.running([loaded(model), loaded(model, shake)]) as made:
        yield made


@pytest.fixture(scope="module")
def answer(pair: Pair, both: tuple[Prover, Prover]) -> JointAnswer:
    return provers(pair, both).chat(ASK, max_tokens=12)


@pytest.fixture(scope="module")
def followed(pair: Pair, apart: tuple[Prover, Prover]) -> JointAnswer:
    return provers(pair, apart, CLOSE).chat(ASK, max_tokens=24, seed=1)


def provers(pair: Pair, both: tuple[Prover, Prover], gap_ppm: int | None = None) -> Provers:
    return Provers(pair.client(both[0]), pair.client(both[1]), gap_ppm)


def verified(pair: Pair, data: bytes, gap_ppm: int | None = None) -> tuple[Agreement, Trail]:
    joint = Trail()
    policy = Policy.parse(pair.policy)
    return verify_joint(JointFile.parse(data), policy, gap_ppm, (Trail(), Trail()), joint), joint


def test_equal_answers_give_one_receipt_of_two(pair: Pair, answer: JointAnswer) -> None:
    statement = answer.agreement.statement()
    assert statement["agreement"] == "exact"
    assert [each["platform"] for each in statement["provers"]] == ["sim-tdx", "sim-snp"]  # type: ignore[attr-defined, index]  # a list of objects
    found, joint = verified(pair, answer.file.encode())
    assert found.statement() == statement
    assert [check.name for check in joint.checks] == [
        "provers", "platforms", "model", "request", "parameters", "tokens",
    ]  # fmt: skip
    assert found.first.receipt.commitments.output_ids == found.second.receipt.commitments.output_ids
    assert found.first.receipt.signatures != found.second.receipt.signatures


def test_neither_prompt_nor_answer_is_in_a_joint_receipt(answer: JointAnswer) -> None:
    file = answer.file
    kept = file.encode() + file.first + file.second + file.statement
    assert ASK.encode() not in kept
    assert answer.text.encode() not in kept


def test_the_first_token_at_which_two_answers_part_is_named(pair: Pair, apart: tuple[Prover, Prover]) -> None:
    with pytest.raises(Diverged) as caught:
        provers(pair, apart).chat(ASK, max_tokens=24, seed=1)
    first, second = caught.value.tokens
    assert first is not None
    assert second is not None
    assert first.id != second.id
    words = f"token {caught.value.position}: {first} of sim-tdx and {second} of sim-snp"
    assert caught.value.found == words
    assert json.dumps(first.text) in words


def test_an_answer_that_another_prover_would_have_given_but_for_a_little_is_tolerated(
    pair: Pair, followed: JointAnswer
) -> None:
    statement = followed.agreement.statement()
    assert statement["agreement"] == "tolerant"
    assert statement["diverged"]
    gap = statement["gap_ppm"]
    assert isinstance(gap, int)
    data = followed.file.encode()
    assert verified(pair, data, gap)[0].statement() == statement
    for allowed in (gap - 1, None):
        with pytest.raises(Refused) as caught:
            verified(pair, data, allowed)
        assert caught.value.check == "gap"


def test_what_is_further_apart_than_allowed_is_refused(pair: Pair, apart: tuple[Prover, Prover]) -> None:
    with pytest.raises(Refused) as caught:
        provers(pair, apart, 1).chat(ASK, max_tokens=24, seed=1)
    assert caught.value.check == "gap"


def test_another_number_format_is_tolerated_and_never_exact(
    pair: Pair, model: MadeModel, models: tuple[TransformerModel, ...]
) -> None:
    with pair.running([loaded(model), loaded(model, halve)]) as both:
        found = provers(pair, both, CLOSE).chat(ASK, max_tokens=8, seed=0)
        assert found.agreement.statement()["agreement"] == "tolerant"
        with pytest.raises(Refused) as caught:
            verified(pair, found.file.encode())
    assert (caught.value.check, caught.value.found) == ("parameters", "dtype float32 and bfloat16")


def test_one_enclave_twice_is_refused_before_it_is_asked(pair: Pair, both: tuple[Prover, Prover]) -> None:
    asked = both[0].prompts
    with pytest.raises(Refused) as caught:
        provers(pair, (both[0], both[0])).chat(ASK)
    assert caught.value.check == "provers"
    assert both[0].prompts == asked


def test_one_kind_of_hardware_twice_is_refused_before_it_is_asked(
    pair: Pair, both: tuple[Prover, Prover], model: MadeModel
) -> None:
    with replace(pair, worlds=(pair.worlds[0], pair.worlds[0])).running([loaded(model)] * 2) as same:
        with pytest.raises(Refused) as caught:
            provers(pair, (both[0], same[1])).chat(ASK)
        assert same[1].prompts == 0
    assert (caught.value.check, caught.value.found) == ("platforms", "sim-tdx twice")


def test_two_models_are_refused_before_they_are_asked(
    model: MadeModel, models: tuple[TransformerModel, ...], vendors: Path
) -> None:
    other = Pair.made(vendors, [model.digest, b"\x09" * 32])
    with other.running(models) as made:
        with pytest.raises(Refused) as caught:
            provers(other, made).chat(ASK)
        assert made[0].prompts == made[1].prompts == 0
    assert caught.value.check == "model"


Change = Callable[[Proven], Proven]


def commitments(**changes: object) -> Change:
    return lambda made: replace(
        made, receipt=replace(made.receipt, commitments=replace(made.receipt.commitments, **changes))
    )


def parameters(**changes: int | str) -> Change:
    return lambda made: replace(
        made, receipt=replace(made.receipt, parameters={**made.receipt.parameters, **changes})
    )


def served(**changes: object) -> Change:
    return lambda made: replace(
        made, receipt=replace(made.receipt, served=replace(made.receipt.served, **changes))
    )


@pytest.mark.parametrize(
    ("first", "second", "check"),
    [
        (None, commitments(prompt_ids=bytes(32)), "request"),
        (None, commitments(request=bytes(32)), "request"),
        (None, parameters(seed=7), "parameters"),
        (None, parameters(kernel="eager"), "parameters"),
        (None, parameters(device="cuda", gpu="H100"), "parameters"),
        (None, commitments(output_ids=bytes(32)), "tokens"),
        (served(complete=False, finish_reason="cancelled"), None, "tokens"),
        (None, served(complete=False, finish_reason="error"), "tokens"),
    ],
)
def test_two_receipts_about_two_things_are_refused(
    answer: JointAnswer, first: Change | None, second: Change | None, check: str
) -> None:
    one, other = answer.agreement.first, answer.agreement.second
    agree(one, other, None, Trail())
    with pytest.raises(Refused) as caught:
        agree(first(one) if first else one, second(other) if second else other, None, Trail())
    assert caught.value.check == check


def test_the_number_of_rows_makes_no_difference(answer: JointAnswer) -> None:
    other = parameters(batching="rows-4-8")(answer.agreement.second)
    assert agree(answer.agreement.first, other, None, Trail()).exact


@pytest.mark.parametrize("name", ["follow_count", "diverged_count", "gap_ppm"])
def test_what_followed_says_how_far_and_how_closely(followed: JointAnswer, name: str) -> None:
    one, other = followed.agreement.first, followed.agreement.second
    with pytest.raises(Malformed, match=name):
        agree(one, parameters(**{name: "many"})(other), CLOSE, Trail())
    with pytest.raises(Refused, match="3 of 24 tokens followed"):
        agree(one, parameters(follow_count=3)(other), CLOSE, Trail())


def test_a_statement_of_its_own_is_refused(pair: Pair, answer: JointAnswer) -> None:
    said = answer.file.statement.replace(b'"tokens":12', b'"tokens":13')
    assert said != answer.file.statement
    with pytest.raises(Rejected) as caught:
        verified(pair, replace(answer.file, statement=said).encode())
    assert caught.value.check == "joint statement"


def test_parts_of_two_joint_receipts_are_none(
    pair: Pair, both: tuple[Prover, Prover], answer: JointAnswer
) -> None:
    other = provers(pair, both).chat(ASK, max_tokens=12)
    with pytest.raises(Refused) as caught:
        verified(pair, replace(answer.file, second=other.file.second).encode())
    assert caught.value.check == "request"
    with pytest.raises(Refused) as caught:
        verified(pair, replace(answer.file, second=answer.file.first).encode())
    assert caught.value.check == "provers"


def test_what_was_dictated_is_no_answer(pair: Pair, both: tuple[Prover, Prover]) -> None:
    client = pair.client(both[1])
    body = {
        "model": authority.SERVICE,
        "messages": [{"role": "user", "content": ASK}],
        "follow_token_ids": [5, 6],
    }
    asked = json.dumps(body | {"max_tokens": 2}).encode()
    with pytest.raises(Refused) as caught, client.open("POST", "/v1/chat/completions", asked) as reply:
        list(reply.chunks)
    assert "receipt complete: false (followed)" in caught.value.found
    with client.open("POST", "/v1/chat/completions", asked, follows=True) as reply:
        document = json.loads(b"".join(reply.chunks))
    assert document["choices"][0]["finish_reason"] == "followed"
    assert reply.receipt is not None
    assert (reply.receipt.served.complete, reply.receipt.parameters["follow_count"]) == (False, 2)


def test_an_answer_of_its_own_is_none_that_followed(pair: Pair, both: tuple[Prover, Prover]) -> None:
    body = {"model": authority.SERVICE, "messages": [{"role": "user", "content": ASK}], "max_tokens": 2}
    client = pair.client(both[1])
    asked = json.dumps(body).encode()
    with (
        pytest.raises(Refused) as caught,
        client.open("POST", "/v1/chat/completions", asked, follows=True) as reply,
    ):
        list(reply.chunks)
    assert "receipt finish reason" in caught.value.found


def test_a_model_has_the_tokens_that_it_has(pair: Pair, both: tuple[Prover, Prover]) -> None:
    body = {
        "model": authority.SERVICE,
        "messages": [{"role": "user", "content": ASK}],
        "follow_token_ids": [1 << 30],
    }
    with pair.client(both[1]).open("POST", "/v1/chat/completions", json.dumps(body).encode()) as reply:
        error = json.loads(b"".join(reply.chunks))["error"]
    assert (reply.status, error["param"]) == (400, "follow_token_ids")


@pytest.mark.parametrize("salt", ["", "AAAA", "not base64"])
def test_a_salt_that_is_none_is_refused(pair: Pair, both: tuple[Prover, Prover], salt: str) -> None:
    body = {"model": authority.SERVICE, "messages": [{"role": "user", "content": ASK}], "max_tokens": 1}
    headers = {"receipt-salt": salt}
    with pair.client(both[0]).open(
        "POST", "/v1/chat/completions", json.dumps(body).encode(), headers
    ) as reply:
        error = json.loads(b"".join(reply.chunks))["error"]
    assert (reply.status, error["param"]) == (400, "receipt-salt")


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_the_command_asks_two_keeps_one_file_and_verifies_it(
    model: MadeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTARY_TRUST", str(tmp_path / "trust"))
    now = datetime.now(UTC).replace(microsecond=0)
    pair = Pair.made(tmp_path, [model.digest] * 2, now)
    policy, kept = tmp_path / "policy.json", tmp_path / "joint.json"
    policy.write_bytes(pair.policy)
    judged = ("--policy", policy, "--simulation")
    with pair.running([loaded(model), loaded(model, shake)]) as both, ExitStack() as open_:
        urls = [open_.enter_context(prover.served()) for prover in both]
        asked = ("chat", urls[0], "--with", urls[1], *judged, "--prompt", ASK, "--max-tokens", 40)
        code, _, said = command(capsys, *asked)
        assert (code, "tokens: found token " in said) == (11, True), said
        code, out, said = command(capsys, *asked, "--tolerate", 10**9, "--keep", kept, "--json")
        assert code == 0, said
        assert json.loads(out)["statement"]["agreement"] == "tolerant"
        assert "SIMULATED" in said
        assert command(capsys, "chat", urls[0], "--with", urls[0], *judged, "--prompt", ASK)[0] == 11
        assert command(capsys, "chat", urls[0], "--tolerate", 1, *judged, "--prompt", ASK)[0] == 2
        assert command(capsys, *asked, "--relay", urls[1])[0] == 2
    code, out, _ = command(capsys, "receipt", "verify", kept, *judged, "--tolerate", 10**9, "--json")
    assert (code, json.loads(out)["outcome"], json.loads(out)["simulated"]) == (0, "proven", True)
    code, out, said = command(capsys, "receipt", "verify", kept, *judged)
    assert (code, "gap: found" in said) == (11, True)
    assert command(capsys, "receipt", "verify", kept, *judged, "--receipt", kept)[0] == 2


def test_the_page_shows_a_joint_receipt() -> None:
    text = PAGE.read_text().split("```json joint\n")[1].split("\n```")[0]
    assert JointFile.parse(text.encode()).encode().decode() == text
