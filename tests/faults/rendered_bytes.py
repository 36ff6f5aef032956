"""Append a few records, render them, and print a digest of every byte: the same in every language and time zone."""

from __future__ import annotations

import hashlib
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from made_records import made

from harness.cli import main
from harness.records import ledger

TIMES = ("2026-03-29T01:59:59Z", "2026-03-29T02:30:00Z", "1970-01-01T00:00:00Z", "2100-12-31T23:59:59Z")
# Each changes what Python takes as the language, the encoding of files, or the local time.
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "C, no UTF-8 mode": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8"},
    "German": {"LC_ALL": "de_DE.UTF-8"},
    "POSIX, no UTF-8 mode": {"PYTHONUTF8": "0", "LC_ALL": "POSIX"},
    "Kiritimati": {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8"},
    "Kathmandu": {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8"},
}


def make_languages(folder: Path) -> None:
    """Put Turkish and German below ``folder``, where the system has what they are made from."""
    for name in ("tr_TR", "de_DE") if shutil.which("localedef") else ():
        words = ["localedef", "-i", name, "-f", "UTF-8", "--no-archive", str(folder / f"{name}.UTF-8")]
        subprocess.run(words, capture_output=True, check=False)


def digests(languages: Path) -> dict[str, str]:
    """Return what this script prints last in each of ``ENVIRONMENTS``; ``languages``: made by ``make_languages``."""
    removed = ("LC_", "LANG", "TZ", "PYTHONUTF8")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(removed)}
    plain |= {"LOCPATH": str(languages)} if any(languages.iterdir()) else {}
    return {name: _printed(plain | variables) for name, variables in ENVIRONMENTS.items()}


def _printed(environment: dict[str, str]) -> str:
    words = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    return done.stdout.split()[-1] if done.returncode == 0 else done.stderr


def digest(folder: Path) -> str:
    """Return the SHA-256 of a ledger and of the pages rendered from it."""
    path, pages = folder / "x.jsonl", [folder / "page.md", folder / "page.html"]
    for number, time in enumerate(TIMES):
        task = {"name": f"İstanbul ıI {number % 2}", "version": "1"}
        metric = {"name": "word_perplexity", "higher_is_better": False}  # which has no bound
        ledger.append(path, [made(number, created=time, value=1234.5 + number, task=task, metric=metric)])
    code = main(["leaderboard", str(path), *(word for page in pages for word in ("--output", str(page)))])
    assert code == 0, code
    return hashlib.sha256(b"".join(file.read_bytes() for file in (path, *pages))).hexdigest()


if __name__ == "__main__":
    with suppress(locale.Error):  # where the language is not installed only the variable is set
        locale.setlocale(locale.LC_ALL, "")
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # so that no page can show a path that differs
        found = digest(Path())
    print(found)
