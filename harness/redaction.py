"""Take secrets, the home folder, and the names of host and user out of text before it is written or shown."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from harness import secret_shapes
from harness.names import safe_name
from harness.secret_shapes import NO_WORD, SECRET_NAME

MASK = "[redacted]"
HOST, USER, HOME = "[host]", "[user]", "~"
# What stands for something that was taken out. It is never looked into, whatever a secret, a host or a user is called.
_MASKS = re.compile(rf"({'|'.join(map(re.escape, (MASK, HOST, USER)))})")
_SECRET_VARIABLE = (
    r"(?:^|_)(?:API|SSH|PG)?(?:TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASSCODE|PASS|CREDENTIALS?|CREDS|PAT|COOKIES?|"
    r"JWT|BEARER|AUTH|DSN|WEBHOOK)(?:_|$)|_PWD(?:_|$)|APIKEY|PASSWORD|PASSWD"
)
# Tokens of text and numbers of them, which scripts that train keep in variables, too.
_TOKEN_OF_TEXT = (
    r"(?:^|_)(?:PAD|EOS|BOS|UNK|SEP|CLS|MASK|STOP|START|BEGIN|END|PREFIX|IMAGE|SPECIAL|"
    r"MAX|MIN|NUM|NEW|TOTAL|TRAIN|N)_TOKENS?(?:_IDS?)?$"
)
_SHORTEST = 8
# Names of fields and short values come again in every row; what was made of them is kept for as many as this.
_KEPT, _KEPT_CHARACTERS = 4096, 100
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
    identifiers and ordinary words stay as they are. Twice is as good as once, and what stands for something is not read
    again, so this ends whatever the environment holds. JSON goes through ``redact_json`` before it is text: in text its
    ``\\n`` would be a letter before what follows.
    """
    return redactor()(text)


def file_name(name: str) -> str:
    """Return ``safe_name`` of a name without its secrets; names that differ in these alone stay apart."""
    cleaner = redact(name)
    if cleaner == name:
        return safe_name(name)
    return safe_name(f"{cleaner}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}")


def redactor() -> Callable[[str], str]:
    """Return ``redact`` for the environment as it is now: for many texts, which then do not look at it each time."""
    values = {part for name, value in os.environ.items() if _is_secret_variable(name) for part in _maskable(value)}
    return _redactor_for(frozenset(values), os.path.expanduser("~"), _user(), _host())


def redact_json(value: Any) -> Any:
    """Return ``value`` (of JSON: dicts, lists, text, numbers) with ``redact`` applied to every text, keys included.

    What stands under a name like ``password`` or ``api_key`` is taken out whatever it looks like.
    """
    return _redact_json(value, redactor())


def protect_output() -> None:
    """Redact what any logger of this process says from here on, its warnings, and the tracebacks of what ends it or a thread."""
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
    threading.excepthook = lambda said: _print_redacted(said.exc_type, said.exc_value, said.exc_traceback)
    sys.unraisablehook = lambda said: _print_redacted(said.exc_type, said.exc_value, said.exc_traceback)
    formatted = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: redact(formatted(*args, **kwargs))


def _redact_log(record: logging.LogRecord) -> None:
    try:
        record.msg, record.args = redact(record.getMessage()), None
    except Exception:  # arguments that do not fit their text are told by whoever handles the record
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        record.msg, record.args = redact(str(record.msg)), tuple(redact(str(one)) for one in given)
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        record.exc_text, record.exc_info = redact(record.exc_text), None
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _print_redacted(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    import traceback

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _redact_json(value: Any, clean: Callable[[str], str], *, is_secret: bool = False) -> Any:
    if isinstance(value, str):
        return MASK if is_secret and value else clean(value)
    if isinstance(value, Mapping):
        return {
            clean(name) if isinstance(name, str) else name: _redact_json(
                inner, clean, is_secret=is_secret or _is_secret(name, inner, clean)
            )
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact_json(inner, clean, is_secret=is_secret) for inner in value]
    return MASK if is_secret and isinstance(value, int) and not isinstance(value, bool) else value


def _is_secret(name: object, value: object, clean: Callable[[str], str]) -> bool:
    """Return whether a value, and all in it, is a secret by the name it stands under, as it is or without its own secrets."""
    if not isinstance(name, str):
        return False
    if _is_secret_name(name) or _is_secret_name(clean(name)):
        return True
    return name.lower() == "token" and isinstance(value, str) and bool(re.fullmatch(NO_WORD, value))


@functools.lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return re.fullmatch(SECRET_NAME, name) is not None


@functools.lru_cache(maxsize=4096)
def _is_secret_variable(name: str) -> bool:
    is_secret = re.search(_SECRET_VARIABLE, name, re.IGNORECASE) is not None
    return is_secret and not re.search(_TOKEN_OF_TEXT, name, re.IGNORECASE)


@functools.lru_cache(maxsize=16)
def _redactor_for(values: frozenset[str], home: str, user: str, host: str) -> Callable[[str], str]:
    literals = _alternation(values)
    places = _places(home, user, host)

    def clean(text: str) -> str:
        waiting, done = _MASKS.split(text)[::-1], []
        while waiting:
            part = waiting.pop()
            # What was taken out may have hidden the beginning of the next; each turn leaves less to look at.
            cleaner = part if _MASKS.fullmatch(part) else once(part)
            if cleaner == part:
                done.append(part)
            else:
                waiting += _MASKS.split(cleaner)[::-1]
        return "".join(done)

    def once(text: str) -> str:
        found = list(secret_shapes.spans(text))
        if literals is not None:
            found += [match.span() for match in literals.finditer(text)]
        if found:
            return _masked(text, found)
        for mark, pattern, replacement in places:
            if mark in text:
                text = pattern.sub(replacement, text)
        return text

    kept = functools.lru_cache(maxsize=_KEPT)(clean)
    return lambda text: kept(text) if len(text) <= _KEPT_CHARACTERS else clean(text)


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return ``text`` with one mask for each stretch that ``spans``, which may overlap, cover."""
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _alternation(values: Iterable[str]) -> re.Pattern[str] | None:
    """Return one pattern for the secret values themselves, as typed and as JSON, URLs and shells spell them."""
    forms = {form for value in values for form in _spellings(value)}
    parts = [_bounded(form) for form in sorted(forms, key=lambda form: (-len(form), form))]
    return re.compile("|".join(parts)) if parts else None


def _spellings(value: str) -> Iterator[str]:
    yield value
    for only_ascii in (True, False):
        yield json.dumps(value, ensure_ascii=only_ascii)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value.encode("utf-8", "surrogateescape"), safe="")
    yield value.replace("'", "'\"'\"'")


def _bounded(form: str) -> str:
    """Return a pattern of a spelling; a word or number is not looked for inside longer ones."""
    return rf"(?<![\w.]){form}(?![\w.])" if form.isdecimal() else rf"\b{form}\b" if form.isalpha() else re.escape(form)


def _places(home: str, user: str, host: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Return what to look for, and what to write instead, of home folder, user and host."""
    found = []
    folder = home.rstrip("/\\")
    for form in {folder, json.dumps(folder)[1:-1]} if len(folder) >= 3 else ():
        found.append((form, re.compile(rf"(?<![\w.~-]){re.escape(form)}(?![\w.-])"), HOME))
    if _is_own_name(host):
        found.append((host, re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])"), HOST))
    if _is_own_name(user):
        # A name may be a word, too; as a part of a path or before an @ it is a name.
        found.append((user, re.compile(rf"(?<=[/\\]){re.escape(user)}(?=[/\\\s\"']|$)"), USER))
        found.append((user, re.compile(rf"(?<![\w.-]){re.escape(user)}(?=@)|(?<=-of-){re.escape(user)}\b"), USER))
    return found


@functools.lru_cache(maxsize=256)
def _maskable(value: str) -> frozenset[str]:
    """Return what of a secret variable's value to look for: all of it, and each of several lines.

    Left out is what is too short to be told from ordinary text, and the path of a file that holds the secret.
    """
    parts = {value.strip(), *(line.strip() for line in value.splitlines())}
    return frozenset(part for part in parts if len(part) >= _SHORTEST and not _is_path(part))


def _is_path(value: str) -> bool:
    """Return whether a value is a path here, or reads like one; what is drawn at random may begin with a slash, too."""
    if not value.startswith(("/", "~/")) and not Path(value).is_absolute():
        return False
    try:
        if os.path.lexists(os.path.expanduser(value)):
            return True
    except ValueError:  # no file system takes it
        return False
    parts = [part for part in value.split("/") if part]
    return len(parts) > 1 and not re.search(r"[+=\s]", value) and not any(map(_is_drawn, parts))


def _is_drawn(part: str) -> bool:
    """Return whether a part of a path looks as if it were drawn at random: no words, but letters and digits mixed."""
    kinds = (r"[a-z]", r"[A-Z]", r"[0-9]")
    return len(part) >= _SHORTEST and all(re.search(kind, part) for kind in kinds)


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
