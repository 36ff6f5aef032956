"""Take secrets, the home folder, and the names of host and user out of text before it is written or shown."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

MASK = "[redacted]"


class _Shape(NamedTuple):
    """How one kind of secret looks, and what stays of it.

    Searching many long texts for rare things has to be cheap: ``pattern`` is tried only on a text that, in lower case,
    holds one of ``marks`` and something of the shape of ``gate``.
    """

    marks: tuple[str, ...]
    pattern: str
    replacement: str = MASK
    gate: str = ""


# Tokens that their first letters give away. What follows is long enough that no word, digest or identifier is meant.
_PREFIXED = {
    ("hf_",): r"hf_(?:oauth_|jwt_)?[A-Za-z0-9]{20,}",
    ("api_org_",): r"api_org_[A-Za-z0-9]{20,}",
    ("sk-",): r"sk-(?:[a-z0-9]{2,8}-){0,3}(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{20,}",
    ("k_live_", "k_test_"): r"[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}",
    ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"): r"gh[pousr]_[A-Za-z0-9]{20,}",
    ("github_pat_",): r"github_pat_[A-Za-z0-9_]{20,}",
    ("glpat-",): r"glpat-[A-Za-z0-9_.-]{20,}",
    ("akia", "asia"): r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    ("xox", "xapp-"): r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}",
    ("aiza",): r"AIza[0-9A-Za-z_-]{35}",
    ("ya29.",): r"ya29\.[0-9A-Za-z_-]{20,}",
    ("npm_", "gsk_", "r8_"): r"(?:npm|gsk|r8)_[A-Za-z0-9]{30,}",
    ("pypi-",): r"pypi-[A-Za-z0-9_-]{40,}",
    ("sg.",): r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    ("eyj",): r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ("dop_v1_",): r"dop_v1_[0-9a-f]{64}",
    ("wandb_v1_",): r"wandb_v1_[A-Za-z0-9_]{20,}",
}


def _after(word: str, *before: str) -> str:
    """Return a pattern of ``word`` where one of ``before`` stands ahead of it; the word first, since that scans fast."""
    ahead = "|".join(f"(?<={name}{word})|(?<={name}[_-]{word})" for name in before)
    return f"{word}(?:{ahead})"


# Names whose value is a secret whatever it looks like; ``token`` alone, the subject of this project, is not one.
_STRONG = "|".join(
    [
        r"pass(?:word|wd|phrase)s?",
        r"secret",
        r"credentials?",
        _after("key", "api", "secret", "private", "access", "account", "subscription", "encryption") + "(?:[_-]?id)?",
        _after("token", "hf", "hub", "git", "gitlab", "auth", "access", "api", "refresh", "session", "security", "bearer", "csrf",
               "wandb", "slack", "bot", "id"),
    ]
)  # fmt: skip
_NAMES = ("pass", "key", "secret", "credential", "token")
_NOT_AFTER_WORD = r"(?<![A-Za-z0-9])"
_NAMED = rf"(?:{_STRONG})(?:\\?[\"'])?\s{{0,4}}[:=]"
_VALUE = r"[^\s\"'\\,;&|<>(){}\[\]`]"
_TRIVIAL = r"(?!(?:true|false|none|null|yes|no|empty|\$\w+|\*+)(?![\w-]))"
_NO_WORD = r"(?=[A-Za-z]{0,40}[^\sA-Za-z\"'\\]|[A-Za-z]{20})[A-Za-z0-9_.~+/=-]{8,}"
_SHAPES = (
    *(_Shape(marks, _NOT_AFTER_WORD + pattern) for marks, pattern in _PREFIXED.items()),
    _Shape(
        ("private key",),
        # Without its end, as far as it can be one.
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[A-Za-z0-9+/=:,.()\s-]|\\{1,4}[nrt])*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:[A-Za-z0-9+/=\s]|\\{1,4}[nrt])*)",
    ),
    _Shape(("bearer",), r"(?i)(?<!\w)(bearer\s+)(?=\S*[0-9])[A-Za-z0-9._~+/=-]{12,}", rf"\g<1>{MASK}"),
    _Shape(
        ("authorization",),
        r"(?i)(authorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?(?:basic|token|digest)\s+)[A-Za-z0-9._~+/=-]{6,}",
        rf"\g<1>{MASK}",
    ),
    _Shape(("://",), r"(://)[^\s/:@\"'<>\\]*:[^\s/@\"'<>\\]+@", rf"\g<1>{MASK}@"),
    _Shape(("://",), r"(://)[^\s/:@\"'<>\\]{16,}@", rf"\g<1>{MASK}@"),
    _Shape(("hooks.slack.com/",), r"(hooks\.slack\.com/(?:services|workflows)/)[\w/-]+", rf"\g<1>{MASK}"),
    _Shape(
        ("sig",), r"(?i)([?&](?:sig|signature|x-amz-(?:signature|credential))=)[^\s&\"'<>\\]{8,}", rf"\g<1>{MASK}"
    ),
    _Shape(("wandb",), r"(?i)(wandb[^\n]{0,40}?[^0-9a-f])[0-9a-f]{40}(?![0-9A-Za-z])", rf"\g<1>{MASK}"),
    # name="value", also as JSON inside JSON; the quotes bound the value, and are not those that end a text.
    _Shape(
        _NAMES,
        rf"(?i)((?:{_STRONG})(?:\\?[\"'])?\s{{0,4}}[:=]\s{{0,4}}(\\?[\"'])){_TRIVIAL}(?![\s,:}}\]])[^\"'\\\n]{{4,}}(?=\2)",
        rf"\g<1>{MASK}",
        _NAMED,
    ),
    # name=value. What follows a colon may be prose, so there it must not be a plain word.
    _Shape(_NAMES, rf"(?i)((?:{_STRONG})(?:\\?[\"'])?=){_TRIVIAL}{_VALUE}{{4,}}(?![\w(])", rf"\g<1>{MASK}", _NAMED),
    _Shape(
        _NAMES,
        rf"(?i)((?:{_STRONG})(?:\s?[:=]\s|:)){_TRIVIAL}(?=[a-z.!?-]*[^\sa-z.!?-]){_VALUE}{{6,}}(?![\w(])",
        rf"\g<1>{MASK}",
        _NAMED,
    ),
    _Shape(
        ("--",),
        rf"(?i)(?<!\S)(--[a-z_-]{{0,40}}(?:{_STRONG}|token)[ =](?:\\?[\"'])?){_TRIVIAL}(?!--){_VALUE}{{6,}}",
        rf"\g<1>{MASK}",
    ),
    _Shape(
        ("token",),
        rf"(?i)((?<![\w-])token(?:\\?[\"'])?\s{{0,2}}[:=]\s{{0,2}}(?:\\?[\"'])?){_TRIVIAL}{_NO_WORD}(?![\w(])",
        rf"\g<1>{MASK}",
        r"token(?:\\?[\"'])?\s{0,2}[:=]",
    ),
)  # fmt: skip
_SECRET_VARIABLE = (
    r"(?:^|_)(?:API)?(?:TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)(?:_|$)|APIKEY|PASSWORD"
)
_SECRET_NAME = rf"(?i)(?:.*[._-])?(?:{_STRONG}|authorization)"
_SHORTEST = 8
# Account and host names that are words of their own: taking them out would take words out.
_COMMON_NAMES = frozenset({
    "admin", "administrator", "agent", "build", "builder", "ci", "data", "default", "docker", "guest",
    "home", "jovyan", "localhost", "local", "main", "model", "models", "node", "nobody", "root",
    "runner", "server", "service", "shared", "staff", "student", "system", "test", "tests", "tmp",
    "train", "ubuntu", "user", "users", "vagrant", "work", "worker",
})  # fmt: skip


def redact(text: str) -> str:
    """Return ``text`` without secrets, and without what names this machine and its user.

    Tokens of known shape, credentials in URLs and headers, ``password=``-like pairs, and the values of environment
    variables that are named like secrets become ``[redacted]``; the home folder becomes ``~``. Numbers, digests,
    identifiers and ordinary words stay as they are. Twice is as good as once. JSON goes through ``redact_json`` before it
    is text: in text its ``\\n`` would be a letter before what follows.
    """
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """Return ``redact`` for the environment as it is now: for many texts, which then do not look at it each time."""
    values = {value for name, value in os.environ.items() if _is_secret_variable(name) and _is_maskable(value)}
    return _redactor_for(frozenset(values), os.path.expanduser("~"), _user(), _host())


def redact_json(value: Any) -> Any:
    """Return ``value`` (of JSON: dicts, lists, text, numbers) with ``redact`` applied to every text, keys included.

    What stands under a name like ``password`` or ``api_key`` is taken out whatever it looks like.
    """
    return _redact_json(value, redactor())


def protect_output() -> None:
    """Redact what any logger of this process says from here on, and the traceback it may end with."""
    made = logging.getLogRecordFactory()
    if getattr(made, "is_redacting", False):
        return

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = made(*args, **kwargs)
        _redact_log(record)
        return record

    make.is_redacting = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make)
    sys.excepthook = _print_redacted


def _redact_log(record: logging.LogRecord) -> None:
    record.msg, record.args = redact(record.getMessage()), None
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        record.exc_text, record.exc_info = redact(record.exc_text), None
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _redact_json(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {
            clean(name) if isinstance(name, str) else name: (
                MASK if _is_secret(name, inner) else _redact_json(inner, clean)
            )
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact_json(inner, clean) for inner in value]
    return value


def _is_secret(name: object, value: object) -> bool:
    """Return whether a value is a secret by the name it stands under."""
    if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return False
    if _is_secret_name(name):
        return True
    return name.lower() == "token" and isinstance(value, str) and bool(re.fullmatch(_NO_WORD, value))


@functools.lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return re.fullmatch(_SECRET_NAME, name) is not None


@functools.cache
def _compiled() -> list[tuple[tuple[str, ...], re.Pattern[str], list[tuple[re.Pattern[str], str]]]]:
    """Return the shapes by marks and gate, so that shapes that share them ask once."""
    return [
        (marks, re.compile(gate), [(re.compile(shape.pattern), shape.replacement) for shape in shapes])
        for (marks, gate), shapes in itertools.groupby(_SHAPES, key=lambda shape: (shape.marks, shape.gate))
    ]


@functools.lru_cache(maxsize=4096)
def _is_secret_variable(name: str) -> bool:
    return re.search(_SECRET_VARIABLE, name, re.IGNORECASE) is not None


@functools.lru_cache(maxsize=16)
def _redactor_for(values: frozenset[str], home: str, user: str, host: str) -> Callable[[str], str]:
    literals = _alternation(values)
    places = _places(home, user, host)

    def clean(text: str) -> str:
        while (cleaner := once(text)) != text:  # what was taken out may have hidden the beginning of the next
            text = cleaner
        return text

    def once(text: str) -> str:
        lowered = text.lower()
        for mark, pattern, replacement in places:
            if mark in text:
                text = pattern.sub(replacement, text)
        if literals is not None:
            text = literals.sub(MASK, text)
        for marks, gate, shapes in _compiled():
            if _holds(lowered, marks) and gate.search(lowered):
                for pattern, replacement in shapes:
                    text = pattern.sub(replacement, text)
        return text

    return clean


def _holds(text: str, marks: Iterable[str]) -> bool:
    for mark in marks:  # noqa: SIM110 - a generator costs more than the search
        if mark in text:
            return True
    return False


def _alternation(values: Iterable[str]) -> re.Pattern[str] | None:
    """Return one pattern for the secret values themselves, as typed and as JSON and URLs spell them."""
    forms = {form for value in values for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    parts = [rf"\b{re.escape(f)}\b" if f.isalpha() else re.escape(f) for f in sorted(forms, key=lambda f: (-len(f), f))]
    return re.compile("|".join(parts)) if parts else None


def _places(home: str, user: str, host: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Return what to look for, and what to write instead, of home folder, user and host."""
    found = []
    for form in {home.rstrip("/\\"), json.dumps(home.rstrip("/\\"))[1:-1]} if len(home) > 3 else ():
        found.append((form, re.compile(rf"(?<![\w.~-]){re.escape(form)}(?![\w.-])"), "~"))
    if _is_own_name(host):
        found.append((host, re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])"), "[host]"))
    if _is_own_name(user):
        # A name may be a word, too; as a part of a path or before an @ it is a name.
        found.append((user, re.compile(rf"(?<=[/\\]){re.escape(user)}(?=[/\\\s\"']|$)"), "[user]"))
        found.append((user, re.compile(rf"(?<![\w.-]){re.escape(user)}(?=@)|(?<=-of-){re.escape(user)}\b"), "[user]"))
    return found


def _is_maskable(value: str) -> bool:
    """Return whether ``value`` is long enough, and not a path or a switch, so that masking it masks nothing else."""
    return len(value.strip()) >= _SHORTEST and not Path(value).is_absolute() and not value.isspace()


def _is_own_name(name: str) -> bool:
    return len(name) >= 4 and not name.isdigit() and name.lower() not in _COMMON_NAMES


@functools.cache
def _user() -> str:
    import getpass

    with suppress(Exception):  # no entry for this user, no variable: nothing to take out
        return getpass.getuser()
    return ""


@functools.cache
def _host() -> str:
    import socket

    with suppress(OSError):
        return socket.gethostname()
    return ""
