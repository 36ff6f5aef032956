"""What installed packages announce under a name, read from their files: to import importlib.metadata takes longer."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_HEADER = re.compile(r"(?P<name>[A-Za-z0-9-]+):[ \t]*(?P<value>.*)")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# A module that is larger is not read for its first line.
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Announced:
    """A line of a package's entry points, and what its package says of itself; ``None`` where it does not."""

    name: str
    value: str
    distribution: str | None
    version: str | None
    summary: str | None

    def load(self) -> Any:
        """Import what the line names, and return it. Raises whatever that raises."""
        if _MODULE.fullmatch(self.value):
            from importlib import import_module

            return import_module(self.value)
        from importlib.metadata import EntryPoint

        return EntryPoint(self.name, self.value, "").load()

    def first_line(self) -> str:
        """Return the first line of the module's docstring, read from its file and not imported; empty where there is none."""
        import ast

        with suppress(Exception):  # whatever a foreign file holds, a list of plugins is no place to tell it
            path = self._file()
            if not path or os.path.getsize(path) > MOST_BYTES:
                return ""
            with open(path, "rb") as file:
                said = ast.get_docstring(ast.parse(file.read())) or ""
            return said.strip().partition("\n")[0]
        return ""

    def beside(self, name: str) -> str:
        """Return the text of a file beside the module, which is not imported; empty where there is none that can be read."""
        with suppress(Exception):
            path = os.path.join(os.path.dirname(self._file()), name)
            if os.path.isfile(path) and os.path.getsize(path) <= MOST_BYTES:
                with open(path, encoding="utf-8") as file:
                    return file.read()
        return ""

    def _file(self) -> str:
        """Return the file of the module, empty where it has none. Raises whatever a foreign name makes the finder raise."""
        from importlib.machinery import PathFinder

        top, *below = self.value.partition(":")[0].strip().split(".")
        spec = PathFinder.find_spec(top)
        if spec is None or not spec.origin:
            return ""
        folder = os.path.dirname(spec.origin)
        names = [os.path.join(folder, *below) + ".py", os.path.join(folder, *below, "__init__.py")]
        return spec.origin if not below else next(name for name in names if os.path.isfile(name))


class _OutOfTheOrdinary(Exception):
    """There is something that only importlib.metadata knows how to read."""


def announced(group: str) -> list[Announced]:
    """Return every entry point of ``group``, as importlib.metadata finds them; of packages of one name the first counts.

    A package whose files are broken is left out where they name no entry point, and unknown where they describe it.
    """
    try:
        return list(_of_files(group))
    except _OutOfTheOrdinary:
        return _of_library(group)


def _of_files(group: str) -> Iterator[Announced]:
    if any(
        hasattr(finder, "find_distributions") and finder.__module__ != "_frozen_importlib_external"
        for finder in _finders()
    ):
        raise _OutOfTheOrdinary
    seen: set[str] = set()
    for place in sys.path:
        for name in _info_folders(place):
            stem = re.sub(r"[-_.]+", "-", name.rpartition(".")[0].partition("-")[0]).lower()
            if not stem:  # what an interrupted pip left, "-ame-1.0.dist-info"
                raise _OutOfTheOrdinary
            if stem in seen:
                continue
            seen.add(stem)
            folder = os.path.join(place, name)
            lines = _lines(os.path.join(folder, "entry_points.txt"))
            if f"[{group}]" in lines:
                described = _described(folder)
                for key, value in _of_group(group, lines):
                    yield Announced(key, value, *described)


def _finders() -> list[Any]:
    return [finder if isinstance(finder, type) else type(finder) for finder in sys.meta_path]


def _info_folders(place: object) -> list[str]:
    """Return the names of what describes packages in a place where modules are looked for, as importlib.metadata orders them."""
    if not isinstance(place, str) or place.lower().rstrip("/").endswith(".egg"):
        raise _OutOfTheOrdinary
    try:
        names = os.listdir(place or ".")
    except NotADirectoryError:  # an archive, maybe
        raise _OutOfTheOrdinary from None
    except OSError:
        return []
    if any(name.lower() == "egg-info" for name in names):
        raise _OutOfTheOrdinary
    return [name for name in names if name.lower().endswith((".dist-info", ".egg-info"))]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file.read().splitlines()]
    except (FileNotFoundError, NotADirectoryError):  # most packages announce nothing
        return []
    except (OSError, UnicodeDecodeError):
        raise _OutOfTheOrdinary from None


def _of_group(group: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    section = None
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line
            continue
        key, equals, value = map(str.strip, line.partition("="))
        if section is None or not (key and equals and value):
            raise _OutOfTheOrdinary
        if section == f"[{group}]":
            yield key, value


def _described(folder: str) -> tuple[str | None, str | None, str | None]:
    """Return name, version and summary, as the first lines of the metadata have them."""
    lines = _metadata(os.path.join(folder, "METADATA" if folder.endswith(".dist-info") else "PKG-INFO"))
    found: dict[str, str] = {}
    last = ""
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is not None:
            last = header["name"].lower()
            found.setdefault(last, header["value"])
        elif not line.startswith((" ", "\t")) or last in {"", "name", "version", "summary"}:
            raise _OutOfTheOrdinary
    if any(name not in found for name in ("name", "version")):
        raise _OutOfTheOrdinary
    return found["name"], found["version"], found.get("summary")


def _metadata(path: str) -> Iterator[str]:
    """Yield the lines before the first that is empty: what comes after is prose."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line == "\n":
                    return
                yield line.rstrip("\n")
    except (OSError, UnicodeDecodeError):
        raise _OutOfTheOrdinary from None


def _of_library(group: str) -> list[Announced]:
    from importlib.metadata import distributions, entry_points

    try:
        found = list(entry_points(group=group))
    except Exception:  # one package's metadata is broken: ask each package by itself
        by_name: dict[str, list[Any]] = {}
        for distribution in distributions():
            with suppress(Exception):
                by_name.setdefault(distribution.name.lower(), list(distribution.entry_points.select(group=group)))
        found = [entry_point for part in by_name.values() for entry_point in part]
    return [Announced(one.name, one.value, *_told_by_library(one)) for one in found]


def _told_by_library(entry_point: Any) -> tuple[str | None, str | None, str | None]:
    try:
        metadata: Any = entry_point.dist.metadata if entry_point.dist is not None else {}
    except UnicodeDecodeError:
        metadata = {}
    return metadata.get("Name"), metadata.get("Version"), metadata.get("Summary")
