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

from harness.redaction import (
    HOST,
    MASK,
    USER,
    _maskable,
    _redact_json,
    _redactor_for,
    protect_output,
    redact,
    redact_json,
)

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
    "pypi": "py" + "pi-" + _random(120, 17),
    "slack app": "xa" + "pp-1-" + _random(30, 18),
    "telegram bot": "1234567890" + ":AA" + _random(33, 19),
    "discord bot": "MT" + _random(24, 20) + "." + _random(6, 21) + "." + _random(38, 22),
    "docker": "dckr" + "_pat_" + _random(27, 23),
    "google client": "GOC" + "SPX-" + _random(28, 24),
    "stripe webhook": "wh" + "sec_" + _random(32, 25),
    "gitlab runner": "gl" + "rt-" + _random(20, 26),
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
    ("postgres://alice:p@ss@db/x", "p@ss"),
    ("https://api.telegram.org/bot" + TOKENS["telegram bot"] + "/getMe", TOKENS["telegram bot"][11:]),
    ("https://discord.com/api/webhooks/123/abcDEF-_x", "abcDEF"),
    ("Cookie: session=0123456789abcdef; theme=dark", "0123456789abcdef"),
    ("Set-Cookie: sid=abcdef123456; Path=/; HttpOnly", "abcdef123456"),
    ('{"cookie": "sid=abcdef123456"}', "abcdef123456"),
    ("MYSQL_PWD=swordfish7 DB_PASS=tr0ub4dor", "swordfish7"),
    ("MYSQL_PWD=swordfish7 DB_PASS=tr0ub4dor", "tr0ub4dor"),
    ("export REGISTRY_PASS='tr0ub4dor'", "tr0ub4dor"),
    ("REGISTRY_PASS=tr0ub4dor", "tr0ub4dor"),
    ("Server=db;UID=ada;PWD=swordfish7", "swordfish7"),
    ("Cookie: a=b; session=0123456789abcdef", "0123456789abcdef"),
    ("PRIVATE-TOKEN: abc123def456", "abc123def456"),
    ("NPM_TOKEN=abc123def456", "abc123def456"),
    ("authorization: 0123456789abcdef", "0123456789abcdef"),
    ("machine git.example.org login ada password swordfish7", "swordfish7"),
    ("password=" + "hf" + "_" + "a1" * 12 + "-and-more", "and-more"),
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
    "cookie: a recipe = flour; cookies = []; Cookie = SimpleCookie(); cookie=3",
    "cookie: a=b; login with a password; authorization: ask for it at the desk; authorization: required-by-law",
    "PWD=/work/models OLDPWD=/work, pass_at_1: 0.25, pass=True, first_pass=second",
    "doc 12345678:0a1b2c at 17000000001:AA, 2026-11-30T09:28:06, MODEL.layers.0",
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
    monkeypatch.setenv("EOS_TOKEN", "<|endoftext|>")
    monkeypatch.setenv("MAX_TRAIN_TOKENS", "300000000000")
    monkeypatch.setenv("SSH_KEY", "/somewhere/else/id_rsa")
    monkeypatch.setenv("DB_PASSWORD", 'pa"ss\\word\n1')
    assert redact("said correct horse/battery twice") == f"said {MASK} twice"
    assert redact("https://x/?q=correct%20horse%2Fbattery") == f"https://x/?q={MASK}"
    assert "ss\\\\word" not in redact(json.dumps({"a": 'pa"ss\\word\n1'}))
    assert redact("xxxxxxx false-ish-value /somewhere/else/id_rsa") == "xxxxxxx false-ish-value /somewhere/else/id_rsa"
    assert redact("<|endoftext|> 300000000000") == "<|endoftext|> 300000000000"
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


CASES = [
    ({"DEPLOY_TOKEN": "redacted"}, "the value is redacted here", "value is redacted"),
    ({"DEPLOY_TOKEN": "redacted"}, f"a token {TOKENS['hugging face']} in it", TOKENS["hugging face"]),
    ({"DEPLOY_TOKEN": MASK}, f"a {MASK} of {MASK}", "\0"),
    ({"MYSQL_PWD": "corr3ct-horse-battery"}, "leak corr3ct-horse-battery end", "corr3ct"),
    ({"DB_PASS": "corr3ct-horse-battery"}, "leak corr3ct-horse-battery end", "corr3ct"),
    ({"SESSION_COOKIE": "corr3ct-horse-battery"}, "leak corr3ct-horse-battery end", "corr3ct"),
    ({"MYAPIKEY": "corr3ct-horse-battery"}, "leak corr3ct-horse-battery end", "corr3ct"),
    ({"AWS_CREDENTIALS": "corr3ct-horse-battery"}, "leak corr3ct-horse-battery end", "corr3ct"),
    ({"AWS_SECRET_ACCESS_KEY": "/FAKEfakeFAKEfake/FAKEfake12345678"}, "leak /FAKEfakeFAKEfake/FAKEfake12345678 end", "fake12"),
    ({"A_SECRET": "/zzyyxxwwvvuuttss"}, "leak /zzyyxxwwvvuuttss end", "zzyyxx"),
    ({"HF_TOKEN": "weird-opaque-value-123\n"}, "leak weird-opaque-value-123 end", "opaque"),
    ({"SSH_PRIVATE_KEY": "first line of it\nsecond line, too\n"}, "leak second line, too\nend", "second line"),
    ({"A_SECRET": "it's \\ pürée"}, json.dumps({"a": "it's \\ pürée"}), "it's"),
    ({"A_SECRET": "it's \\ pürée"}, json.dumps({"a": "it's \\ pürée"}, ensure_ascii=False), "it's"),
    ({"A_SECRET": "a/whole secret/hf_1"}, "leak a/whole secret/hf_1", "whole"),
    ({}, "Cookie: session=0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    ({}, "git clone postgres://alice:pa55@token: s3cretvalue", "pa55"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "text", "gone"), CASES)
def test_values_of_any_variable_go_and_masks_are_never_read_again(
    environment: dict[str, str], text: str, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case redaction: it ends, twice is as good as once, and what has to be gone is gone."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = redact(text)
    assert gone not in found
    assert redact(found) == found


@pytest.mark.parametrize(
    ("user", "host", "home"), [("redacted", "host", "/home/redacted"), ("host", "redacted", "////"), ("user]", "[user", "/~/~")]
)  # fmt: skip
def test_hosts_users_and_homes_called_like_masks_end(
    user: str, host: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.redaction._user", lambda: user)
    monkeypatch.setattr("harness.redaction._host", lambda: host)
    monkeypatch.setenv("HOME", home)
    text = f"/{user}/x {user}@{host} {home}/x {MASK} /{host}/ /~/~/~/~ [user] [host] password=swordfish"
    found = redact(text)
    assert "swordfish" not in found and redact(found) == found


def test_paths_in_secret_variables_and_the_working_folder_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = str(tmp_path / "aB3dE5gH7jK9")
    Path(folder).mkdir()
    for name in ("KEYS_FOLDER_KEY", "PWD", "OLDPWD", "INIT_PWD", "SSH_ASKPASS", "GIT_ASKPASS"):
        monkeypatch.setenv(name, folder)
    monkeypatch.setenv("SSH_KEY", "/nowhere/keys/id_rsa")
    monkeypatch.setenv("GIT_ASKPASS", "git-gui--askpass")
    text = f"in {folder}/x with /nowhere/keys/id_rsa by git-gui--askpass"
    assert redact(text) == text


def test_many_secrets_take_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "redacted")
    line = f"{TOKENS['github']} password=swordfish redacted {MASK} [host] word\n"
    found = redact(line * 1_000)
    assert found == redact(line) * 1_000


PIECES = st.sampled_from(
    [*TOKENS.values(), *(text for text, _ in NAMED), *ORDINARY, "token=", "password=", '"', "\\", "'", "=", ": ", "{", "}", "\n",
     "api_key", "-----BEGIN PRIVATE KEY-----", "Bearer ", "://", "@", "--token "]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=6).map("".join)


ODD = [
    "redacted",
    MASK,
    "[host]",
    "host",
    "user",
    "token",
    "[",
    "]",
    "~",
    "/",
    "-",
    "\n",
    '"',
    "\\",
    "é",
    "12345678",
    "a=b; c",
]
VALUES = st.lists(st.one_of(st.sampled_from([*ODD, *TOKENS.values()]), st.text(max_size=6)), max_size=4).map("".join)
NAMES = st.sampled_from(["DEPLOY_TOKEN", "MYSQL_PWD", "DB_PASS", "X_COOKIE", "SSH_PRIVATE_KEY", "NO_NAME"])


@settings(max_examples=100, deadline=None)
@given(
    environment=st.dictionaries(NAMES, VALUES, max_size=3),
    places=st.tuples(VALUES, VALUES, VALUES),
    pieces=st.lists(st.one_of(PIECES, VALUES), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_whatever_the_environment_twice_is_as_good_as_once(
    environment: dict[str, str], places: tuple[str, str, str], pieces: list[str], order: random.Random
) -> None:
    """It ends, and no secret that is looked for is left in what is not a mask."""
    values = frozenset(part for name, value in environment.items() if name != "NO_NAME" for part in _maskable(value))
    clean = _redactor_for(values, *places)
    words = [*pieces, *environment.values(), *places]
    order.shuffle(words)
    text = "".join(words)
    found = clean(text)
    assert clean(found) == found
    left = found.replace(MASK, "\0")
    assert [
        value
        for value in values
        if not value.isalnum() and not any(mask in value for mask in (MASK, HOST, USER)) and value in left
    ] == []
    value = _redact_json({"text": text, "list": [text, {"password": [text, 1, None]}]}, clean)
    assert _redact_json(value, clean) == value and json.loads(json.dumps(value)) == value
    assert value["list"][1]["password"] in ([MASK, MASK, None], ["", MASK, None])


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
