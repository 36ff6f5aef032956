"""The finished parts of a measurement, kept on disk, so that it goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.folders import append_lines


class Parts:
    """Results of parts by name, of one section in one amount, measured with one code.

    Attributes:
        reused: how many were there already.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        """Read what was finished before.

        Args:
            path: JSON lines of all sections; None keeps nothing.
            identity: what decides a result besides the name of the part.
        """
        self.path, self.identity, self.reused = path, identity, 0
        self._known: dict[str, Any] = {}
        for line in path.read_bytes().splitlines() if path is not None and path.is_file() else ():
            try:
                whose, name, result = json.loads(line)
            except (ValueError, TypeError):  # the end of it, torn by a kill
                continue
            if whose == identity:
                self._known[name] = result

    def each(self, names: Iterable[str], do: Callable[[str], Any]) -> list[Any]:
        """Return the result of each part in order, as JSON values; ``do`` makes those that are not there."""
        found = []
        for name in names:
            self.reused += name in self._known
            found.append(self.once(name, lambda name=name: do(name)))  # type: ignore[misc]
        return found

    def once(self, name: str, do: Callable[[], Any]) -> Any:
        """Return the result of a part, which ``do`` makes if it is not there."""
        if name not in self._known:
            self._known[name] = json.loads(json.dumps(do()))
            if self.path is not None:
                line = json.dumps([self.identity, name, self._known[name]])
                append_lines(self.path, lambda _: [line])
        return self._known[name]


def code_digest(root: Path) -> str:
    """Return the start of a digest over the code that is measured, and over that which measures it."""
    total = hashlib.sha256()
    for pattern in (
        "harness/**/*.py",
        "plugins/harness_stochastok/**/*.py",
        "tests/*.py",
        "tests/faults/**/*",
        "benchmarks/durability*.py",
    ):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def forget(path: Path | None) -> None:
    """Drop what was kept, when all figures are written."""
    if path is not None:
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
