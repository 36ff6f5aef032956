"""Secrets go, everything else stays: words, numbers, digests, identifiers, code."""

from __future__ import annotations

import json
import logging
import random
import string
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.redaction import MASK, protect_output, redact, redact_json

_LETTERS = string.ascii_letters + string.digits


def _random(count: int, seed: int, letters: str = _LETTERS) -> str:
    rng = random.Random(seed)
    return "a1" + "".join(rng.choice(letters) for _ in range(count - 2))


# Made up here, never whole in this file, so that no scanner takes them for real.
TOKENS = {
    "hugging face": "hf" + "_" + _random(34, 1),
    "openai": "sk" + "-" + _random(48, 2),
    "openai project": "sk" + "-proj-" + _random(60, 3),
    "anthropic": "sk" + "-ant-api03-" + _random(80, 4),
    "github": "gh" + "p_" + _random(36, 5),
    "github fine": "github" + "_pat_" + _random(22, 6) + "_" + _random(59, 7),
    "gitlab": "glpat" + "-" + _random(20, 8),
    "aws": "AK" + "IA" + _random(18, 9, string.ascii_uppercase)[2:],
    "slack": "xox" + "b-" + "123456789012-" + _random(24, 10),
    "google": "AI" + "za" + _random(35, 11),
    "jwt": "ey" + "J" + _random(30, 12) + ".ey" + "J" + _random(40, 13) + "." + _random(43, 14),
    "stripe": "sk" + "_live_" + _random(24, 15),
    "npm": "np" + "m_" + _random(36, 16),
}
PLACES = [
    "{}",
    "the token is {}.",
    "pretrained=x,token={},dtype=float32",
    '{{"a": "{}", "b": 1}}',
    "https://huggingface.co/x?token={}&y=1",
    "Bearer {}",
    "('{}',)",
    "line\n{}\nline",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_of_known_shape_goes_wherever_it_stands(kind: str, place: str) -> None:
    found = redact(place.format(TOKENS[kind]))
    assert TOKENS[kind][6:] not in found
    assert MASK in found


NAMED = [
    ("password=hunter2", "hunter2"),
    ("password=swordfish,dtype=float32", "swordfish"),
    ("PGPASSWORD=swordfish harness eval", "swordfish"),
    ("api_key=abcdefgh", "abcdefgh"),
    ("--api-key abc123def", "abc123def"),
    ("--token abc123def", "abc123def"),
    ("--hf_token=abc123def", "abc123def"),
    ("token=s3cretvalue", "s3cretvalue"),
    ('{"token": "s3cretvalue"}', "s3cretvalue"),
    ('{"password": "two words"}', "two words"),
    ('{"arguments": "{\\"password\\": \\"swordfish\\"}"}', "swordfish"),
    ("client_secret: q8Zq8Zq8Z", "q8Zq8Zq8Z"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY", "wJalrXUtnFEMI"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("Authorization: Bearer 0123456789abcdef", "0123456789abcdef"),
    ("git remote https://alice:pa55@git.example.org/x.git", "pa55"),
    ("postgres://alice:pa55@db/x", "alice:pa55"),
    ("https://0123456789abcdef0123@git.example.org/x.git", "0123456789abcdef0123"),
    ("https://hooks.slack.com/services/T000/B000/XXXX", "T000"),
    ("https://blob.example.org/x?sv=1&sig=abcdefghijkl%3D", "abcdefghijkl"),
    ("wandb: logged in with 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef0123"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----", "MIIEabc"),
    ('{"k": "-----BEGIN PRIVATE KEY-----\\nMIIEabc\\n-----END PRIVATE KEY-----\\n"}', "MIIEabc"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz", "b3BlbnNz"),
]


@pytest.mark.parametrize(("text", "secret"), NAMED)
def test_what_its_name_calls_secret_goes(text: str, secret: str) -> None:
    found = redact(text)
    assert secret not in found
    assert MASK in found
    assert redact(found) == found, "twice is as good as once"
    if text.startswith("{"):
        json.loads(found)


ORDINARY = [
    "The token is a subword; tokens are counted. A secret garden, a key, a password.",
    "token: strawberry",
    "the token = clockmaker",
    "Password: required. Passwords: none.",
    "password = input('name')",
    "password=getpass()",
    "pad_token=<|endoftext|>,add_bos_token=True,prefix_token_id=1,max_tokens=100,tokens=12345678",
    '{"key": "0270ee2a699874f8", "digest": "' + "0a" * 32 + '", "chain": "' + "f1" * 32 + '"}',
    "task-robustness-of-tokenization-under-a-risk-free-assumption-in-desk-research-papers",
    "hf_transformers_are_here hf_quantizer hf-internal-testing/tiny-random-LlamaForCausalLM",
    "https://huggingface.co/datasets/gsm8k and ssh://git@github.com/x/y and mailto:a@b.org",
    "ratio 3:4@noon, at 10:30@home",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "harness eval --plugin stochastok --method_args steps=200,train_file=my.txt --seed 1,1,1,1",
    "a basic authorization; bearer of good news; Bearer instruments are negotiable",
    "api_key=None, token=False, password=***, hf_token=$HF_TOKEN",
    "an sk-learn-based-feature-selection-pipeline, sk-style",
    "SGD.step; eyJ is how base64 JSON begins; AKIA; xoxo",
    "sk-learn sklearn scikit-learn==1.5.0 sk-SK.UTF-8",
    "-0.123456789012345678 1e-300 123456789012345678901234567890",
    "öäü 漢字 🍓 \u202e \x1b[31m",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text
    assert redact_json({"text": [text, 1, 2.5, None, True]}) == {"text": [text, 1, 2.5, None, True]}


def test_the_committed_records_stay_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "leaderboards/records/stochastok.jsonl").read_text(encoding="utf-8")
    assert redact(text) == text


def test_values_under_secret_names_go_from_json_whatever_they_look_like() -> None:
    value = {
        "model_args": {"password": "plain", "api_key": 123456, "token": "abc-defg-hij", "use_token": True},
        "method": {"options": {"token": "strawberry", "secret": None, "pass_key": "x"}},
        "seeds": [1, 2],
    }
    found = redact_json(value)
    assert found["model_args"] == {"password": MASK, "api_key": MASK, "token": MASK, "use_token": True}
    assert found["method"]["options"]["token"] == "strawberry"  # an option of that name is a token of text here
    assert found["method"]["options"]["secret"] is None
    assert found["seeds"] == [1, 2]


def test_values_of_secret_variables_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "correct horse/battery")
    monkeypatch.setenv("SOME_KEY", "x" * 7)  # too short to be told from ordinary text
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-ish-value")
    monkeypatch.setenv("SSH_KEY", "/somewhere/else/id_rsa")
    monkeypatch.setenv("DB_PASSWORD", 'pa"ss\\word\n1')
    assert redact("said correct horse/battery twice") == f"said {MASK} twice"
    assert redact("https://x/?q=correct%20horse%2Fbattery") == f"https://x/?q={MASK}"
    assert "ss\\\\word" not in redact(json.dumps({"a": 'pa"ss\\word\n1'}))
    assert redact("xxxxxxx false-ish-value /somewhere/else/id_rsa") == "xxxxxxx false-ish-value /somewhere/else/id_rsa"
    monkeypatch.delenv("MY_API_TOKEN")
    assert redact("said correct horse/battery twice") == "said correct horse/battery twice"


def test_home_user_and_host_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada.l")
    monkeypatch.setattr("harness.redaction._user", lambda: "adalovelace")
    monkeypatch.setattr("harness.redaction._host", lambda: "node-17.example")
    assert redact("pretrained=/home/ada.l/models/x") == "pretrained=~/models/x"
    assert redact("'/home/ada.l' /home/ada.lx /data/home/ada.l") == "'~' /home/ada.lx /data/home/ada.l"
    assert redact("/scratch/adalovelace/x adalovelace wrote") == "/scratch/[user]/x adalovelace wrote"
    assert redact("/tmp/pytest-of-adalovelace/1, adalovelace@lab") == "/tmp/pytest-of-[user]/1, [user]@lab"
    assert redact("on node-17.example: ok") == "on [host]: ok"


def test_common_account_names_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr("harness.redaction._user", lambda: "root")
    monkeypatch.setattr("harness.redaction._host", lambda: "localhost")
    assert redact("/root/x on localhost, root@localhost") == "/root/x on localhost, root@localhost"


def test_logs_lose_secrets_of_message_arguments_and_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    plain_records = logging.getLogRecordFactory()
    protect_output()
    logger = logging.getLogger("test.redaction")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.propagate = False
    secret = TOKENS["hugging face"]
    try:
        logger.error("got %s for %d", secret, 3)
        try:
            raise ValueError(f"refused {secret}")
        except ValueError:
            logger.exception("failed")
        logger.error({"not": "text", "but": secret})
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(plain_records)
    shown = capsys.readouterr().err
    assert secret not in shown
    assert f"got {MASK} for 3" in shown
    assert f"ValueError: refused {MASK}" in shown


PIECES = st.sampled_from(
    [*TOKENS.values(), *(text for text, _ in NAMED), *ORDINARY, "token=", "password=", '"', "\\", "'", "=", ": ", "{", "}", "\n",
     "api_key", "-----BEGIN PRIVATE KEY-----", "Bearer ", "://", "@", "--token "]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=6).map("".join)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_json_stays_json_and_twice_is_as_good_as_once(text: str) -> None:
    value = {"text": text, "list": [text, {"inner": text}], "number": 12345.678}
    line = redact(json.dumps(value, ensure_ascii=False))
    found = json.loads(line)
    assert list(found) == list(value) and found["number"] == value["number"]
    assert redact(line) == line
    clean = redact_json(value)
    assert redact_json(clean) == clean
    assert json.loads(redact(json.dumps(clean, ensure_ascii=False))) == clean, "what is clean as JSON is clean as text"
