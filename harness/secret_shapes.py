"""How secrets look: tokens that their first letters give away, and what stands under a name like ``password``."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple


class _Shape(NamedTuple):
    """How one kind of secret looks.

    Searching many long texts for rare things has to be cheap: ``pattern`` is tried only on a text that, in lower case,
    holds one of ``marks`` and something of the shape of ``gate``. Where the pattern has a group ``s``, that is the secret.
    """

    marks: tuple[str, ...]
    pattern: str
    gate: str = ""


# Tokens that their first letters give away. What follows is long enough that no word, digest or identifier is meant.
_PREFIXED = {
    ("hf_",): r"hf_(?:oauth_|jwt_)?[A-Za-z0-9]{20,}",
    ("api_org_",): r"api_org_[A-Za-z0-9]{20,}",
    ("sk-",): r"sk-(?:[a-z0-9]{2,8}-){0,3}(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{20,}",
    ("k_live_", "k_test_", "whsec_"): r"(?:[rsp]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}",
    ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"): r"gh[pousr]_[A-Za-z0-9]{20,}",
    ("github_pat_",): r"github_pat_[A-Za-z0-9_]{20,}",
    ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"): r"gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_.-]{20,}",
    ("akia", "asia"): r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    ("xox", "xapp-"): r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9.-]{10,}",
    ("aiza",): r"AIza[0-9A-Za-z_-]{35}",
    ("ya29.", "gocspx-"): r"(?:ya29\.|GOCSPX-)[0-9A-Za-z_-]{20,}",
    ("npm_", "gsk_", "r8_"): r"(?:npm|gsk|r8)_[A-Za-z0-9]{30,}",
    ("pypi-",): r"pypi-[A-Za-z0-9_-]{40,}",
    ("sg.",): r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    ("eyj",): r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ("dop_v1_", "doo_v1_", "dckr_pat_"): r"(?:do[opr]_v1|dckr_pat)_[A-Za-z0-9_-]{24,}",
    ("wandb_v1_",): r"wandb_v1_[A-Za-z0-9_]{20,}",
    ("nvapi-", "pplx-", "xai-", "dapi", "hvs.", "lsv2_", "pcsk_"):
        r"(?:nvapi-|pplx-|xai-|hvs\.|lsv2_[a-z]{2}_|pcsk_)[A-Za-z0-9_-]{24,}|dapi[0-9a-f]{32}(?![0-9A-Za-z])",
    ("shpat_", "shpca_", "shppa_", "shpss_"): r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
}  # fmt: skip
# Of bots: a number, a colon and 35 letters; and three parts of base64, the first of them a number, too.
_BOTS = (
    _Shape((":aa",), r"(?:(?<![A-Za-z0-9])|(?<=bot))[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    _Shape(
        (".",),
        r"(?<![A-Za-z0-9_-])[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,40}(?![A-Za-z0-9_-])",
        r"\.[a-z0-9_-]{6,7}\.[a-z0-9_-]{27}",
    ),
)


def _after(word: str, *before: str) -> str:
    """Return a pattern of ``word`` where one of ``before`` stands ahead of it; the word first, since that scans fast."""
    ahead = "|".join(f"(?<={name}{word})|(?<={name}[_-]{word})" for name in before)
    return f"{word}(?:{ahead})"


_CAPITAL_PASS = r"(?-i:(?<=[A-Z0-9]_)PASS(?![A-Z0-9]))"
# Names whose value is a secret whatever it looks like; ``token`` alone, the subject of this project, is not one.
_STRONG = "|".join(
    [
        r"pass(?:word|wd|phrase|code)s?",
        r"(?<=[_;])pwd(?![a-z0-9])",
        # In small letters a pass is a walk through something, unless it is somebody's.
        _CAPITAL_PASS,
        _after("pass", "db", "user", "smtp", "ssh", "mysql", "admin"),
        r"secrets?",
        r"credentials?",
        _after("key", "api", "secret", "private", "access", "account", "subscription", "encryption") + "(?:[_-]?id)?",
        _after("token", "hf", "hub", "git", "gitlab", "auth", "access", "api", "refresh", "session", "security", "bearer", "csrf",
               "wandb", "slack", "bot", "id", "private", "deploy", "job", "npm", "oauth", "discord", "telegram"),
    ]
)  # fmt: skip
_NAMES = ("pass", "pwd", "key", "secret", "credential", "token")
_NOT_AFTER_WORD = r"(?<![A-Za-z0-9])"
# A gate sees a text in small letters.
_NAMED = rf"(?:{_STRONG.replace(_CAPITAL_PASS, '_pass(?![a-z0-9])')})(?:\\?[\"'])?\s{{0,4}}[:=]"
_VALUE = r"[^\s\"'\\,;&|<>(){}\[\]`]"
_TRIVIAL = r"(?!(?:true|false|none|null|yes|no|empty|\$\w+|\*+)(?![\w-]))"
NO_WORD = r"(?=[A-Za-z]{0,40}[^\sA-Za-z\"'\\]|[A-Za-z]{20})[A-Za-z0-9_.~+/=-]{8,}"
SECRET_NAME = rf"(?i)(?:.*[._-])?(?:{_STRONG}|(?:proxy-)?authorization|(?:set-)?cookies?)"
_PAIR = r"[\w.!#$%&*+^|~-]{1,80}="
_SHAPES = (
    *(_Shape(marks, _NOT_AFTER_WORD + f"(?:{pattern})") for marks, pattern in _PREFIXED.items()),
    *_BOTS,
    _Shape(
        ("private key",),
        # Without its end, as far as it can be one.
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[A-Za-z0-9+/=:,.()\s-]|\\{1,4}[nrt])*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:[A-Za-z0-9+/=\s]|\\{1,4}[nrt])*)",
    ),
    _Shape(("bearer",), r"(?i)(?<!\w)bearer\s+(?=\S*[0-9])(?P<s>[A-Za-z0-9._~+/=-]{12,})"),
    _Shape(
        ("authorization",),
        r"(?i)authorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?"
        r"(?:(?:basic|token|digest)\s+(?=\S{6})|(?=[A-Za-z_.-]*[0-9])(?=\S{16}))(?P<s>[A-Za-z0-9._~+/=-]{6,})",
    ),
    _Shape(("login",), r"(?i)\blogin\s+\S+\s+password\s+(?P<s>[^\s\"'\\]{4,})"),
    # Names and values as a browser sends them; of what a server sets, the attributes, too.
    _Shape(
        ("cookie",),
        rf"(?i)(?<![A-Za-z0-9])cookie(?:\\?[\"'])?\s{{0,2}}[:=]\s{{0,2}}(?:\\?[\"'])?"
        rf"(?P<s>{_PAIR}(?:[^\s\"'\\;,]{{4,}}|[^\s\"'\\;,]{{0,3}}(?=;[ ]{{0,2}}{_PAIR}))(?:;[ ]{{0,2}}[^\s\"'\\;]+)*)",
    ),
    _Shape(("://",), r"://(?P<s>[^\s/:@\"'<>\\]*:[^\s/\"'<>\\]+)@"),
    _Shape(("://",), r"://(?P<s>[^\s/:@\"'<>\\]{16,})@"),
    _Shape(("hooks.slack.com/",), r"hooks\.slack\.com/(?:services|workflows)/(?P<s>[\w/-]+)"),
    _Shape(("/api/webhooks/",), r"discord(?:app)?\.com/api/webhooks/(?P<s>[\w/-]+)"),
    _Shape(("sig",), r"(?i)[?&](?:sig|signature|x-amz-(?:signature|credential))=(?P<s>[^\s&\"'<>\\]{8,})"),
    _Shape(("wandb",), r"(?i)wandb[^\n]{0,40}?[^0-9a-f](?P<s>[0-9a-f]{40})(?![0-9A-Za-z])"),
    # name="value", also as JSON inside JSON; the quotes bound the value, and are not those that end a text.
    _Shape(
        _NAMES,
        rf"(?i)(?:{_STRONG})(?:\\?[\"'])?\s{{0,4}}[:=]\s{{0,4}}(?P<q>\\?[\"']){_TRIVIAL}(?![\s,:}}\]])(?P<s>[^\"'\\\n]{{4,}})(?=(?P=q))",
        _NAMED,
    ),
    # name=value. What follows a colon may be prose, so there it must not be a plain word.
    _Shape(_NAMES, rf"(?i)(?:{_STRONG})(?:\\?[\"'])?={_TRIVIAL}(?P<s>{_VALUE}{{4,}})(?![\w(])", _NAMED),
    _Shape(
        _NAMES,
        rf"(?i)(?:{_STRONG})(?:\s?[:=]\s|:){_TRIVIAL}(?=[a-z.!?-]*[^\sa-z.!?-])(?P<s>{_VALUE}{{6,}})(?![\w(])",
        _NAMED,
    ),
    _Shape(
        ("--",),
        rf"(?i)(?<!\S)--[a-z_-]{{0,40}}(?:{_STRONG}|token)[ =](?:\\?[\"'])?{_TRIVIAL}(?!--)(?P<s>{_VALUE}{{6,}})",
    ),
    _Shape(
        ("token",),
        rf"(?i)(?<![\w-])token(?:\\?[\"'])?\s{{0,2}}[:=]\s{{0,2}}(?:\\?[\"'])?{_TRIVIAL}(?P<s>{NO_WORD})(?![\w(])",
        r"token(?:\\?[\"'])?\s{0,2}[:=]",
    ),
)  # fmt: skip


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where secrets of known shape stand in a text, in no order; they may overlap."""
    lowered = text.lower()
    for marks, gate, patterns in _compiled():
        if _holds(lowered, marks) and gate.search(lowered):
            for pattern in patterns:
                group = "s" if "s" in pattern.groupindex else 0
                yield from (found.span(group) for found in pattern.finditer(text))


@functools.cache
def _compiled() -> list[tuple[tuple[str, ...], re.Pattern[str], list[re.Pattern[str]]]]:
    """Return the shapes by marks and gate, so that shapes that share them ask once."""
    return [
        (marks, re.compile(gate), [re.compile(shape.pattern) for shape in shapes])
        for (marks, gate), shapes in itertools.groupby(_SHAPES, key=lambda shape: (shape.marks, shape.gate))
    ]


def _holds(text: str, marks: tuple[str, ...]) -> bool:
    for mark in marks:  # noqa: SIM110 - a generator costs more than the search
        if mark in text:
            return True
    return False
