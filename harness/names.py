"""Foreign names made safe: as paths, and as text on a terminal."""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 100
_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")
_DIGESTED = re.compile(r"-[0-9a-f]{10}$")
# Device names that Windows reserves, with any extension.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def safe_name(name: str) -> str:
    """Turn any string into one path component that no file system misreads.

    A name made only of lower-case ASCII letters, digits, ``.``, ``_`` and ``-`` stays as it is. Anything else has the
    rest replaced by ``_`` and gains a digest of the original, so that no two names share a path, not even where the file
    system ignores case, and not even when one is spelled like the result for another.

    Args:
        name: any string: a model, task or plugin name.

    Returns:
        1 to 100 ASCII characters, never ``.`` or ``..``, never with a leading dot or a trailing one.
    """
    cleaned = _ALLOWED.sub("_", unicodedata.normalize("NFC", name)).strip(".")
    if cleaned.split(".")[0].split("-")[0].lower() in _RESERVED:
        cleaned = f"_{cleaned}"
    is_plain = cleaned == name == name.lower() and len(name) <= MAX_BYTES and not _DIGESTED.search(name)
    if is_plain and cleaned:
        return cleaned
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{cleaned[: MAX_BYTES - 11].rstrip('.') or 'name'}-{digest}"


def printable(text: object) -> str:
    """Return ``text`` with everything that could steer a terminal or reverse its direction made visible.

    Control characters become their pictures (escape is ``␛``), bidirectional overrides and zero-width characters
    their code points. Newlines and tabs inside a name are controls too.
    """
    shown = str(text)
    return shown if shown.isprintable() else "".join(_visible(character) for character in shown)


def cause_of(error: BaseException) -> str:
    """Return what foreign code raised, as class and text; the text is foreign code, too, and may fail."""
    try:
        text = printable(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}".rstrip(": ")


def described(error: BaseException) -> str:
    """Return what foreign code raised, to end a sentence with."""
    return f"{cause_of(error)} (--debug shows where)"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"<U+{code:04X}>"
    return character


def suggestion(name: str, known: Iterable[str], *, most: int = 12) -> str:
    """Return the end of an error sentence: the nearest known names, or all of them when there are few.

    Args:
        name: what was asked for.
        known: what there is.
        most: list everything up to this many names when nothing is near.
    """
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(printable(n)) for n in near)}?"
    if not known:
        return "there is none"
    if len(known) > most:
        return f"none of the {len(known)} there are is spelled like it"
    return "there is " + ", ".join(printable(n) for n in known)
