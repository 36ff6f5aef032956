"""Long work in parts: each is on disk when it is done, so that the same command goes on where a killed one stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.folders import append_lines, write_atomic
from harness.json_lines import Row, json_line
from harness.names import printable
from harness.progress import say
from harness.removal import UNFINISHED, refuse_links, remove, remove_empty

FOLDER, FILE = ".unfinished", "parts.jsonl"


class Parts:
    """The parts of a method's work, in order, each made once: what an interrupted run made is found and not made again.

    They stand beside the work folder, which is emptied of what a killed run left, and go when the harness has noted that the
    method is done. A line that is not as it was written ends what is found. A disk that refuses costs the going on, not the
    run. ``done`` are the parts so far, as JSON has them.
    """

    def __init__(self, workdir: Path, identity: Mapping[str, Any]) -> None:
        """Find what an interrupted run left for a work folder.

        Args:
            workdir: of the method.
            identity: all that decides a part, by name. Parts of another identity are not found, and are forgotten.

        Raises:
            HarnessError: a link is where the parts should be.
        """
        self._workdir, self._file = workdir, _folder(workdir) / FILE
        self._head = json_line({"identity": _digest(json.dumps(identity, sort_keys=True, default=str))})
        self._is_on = True
        refuse_links(self._file.parent.parent, self._file.parent, self._file)
        self.done: list[Row] = []
        with suppress(OSError):
            self._read()
        if self.done:
            say(f"an interrupted run had done {len(self.done)} parts of this work; it goes on from there")

    def part(self, number: int, make: Callable[[], Mapping[str, Any]]) -> Row:
        """Return a part: the one that was made before, or what ``make`` returns, which is on disk then.

        Args:
            number: of the part, from 0; parts are asked for in order.
            make: returns an object that JSON can hold.

        Raises:
            TypeError, ValueError: it is none.
        """
        if number < len(self.done):
            return self.done[number]
        if number > len(self.done):
            raise ValueError(f"part {number} is asked for before part {len(self.done)}")
        line = _line(make())
        if self._is_on:
            self._keep(line)
        self.done.append(json.loads(line)["part"])
        return self.done[-1]

    def forget(self) -> None:
        """Remove the parts: what was made of all of them is on disk."""
        forget(self._workdir)

    def _keep(self, line: str) -> None:
        try:
            append_lines(self._file, lambda last: [line[:-1]] if last else [self._head[:-1], line[:-1]])
        except OSError as error:
            self._is_on = False
            say(
                f"what is done cannot be kept for a later start ({printable(error.strerror or error)}): should this run be "
                "stopped, it begins again"
            )

    def _read(self) -> None:
        """Find the parts of this identity; whatever else stands in the file goes, so that parts can be added."""
        if not self._file.is_file():
            return
        with self._file.open("rb") as file:
            is_same = file.readline() == self._head.encode()
            self.done = list(_whole(file)) if is_same else []
            kept = [self._head, *map(_line, self.done)]
            is_whole = file.tell() == sum(len(line.encode()) for line in kept) and not file.read(1)
        if not is_same:
            self.forget()
        elif not is_whole:
            write_atomic(self._file, kept)


def are_kept(workdir: Path) -> bool:
    """Return whether an interrupted run left parts for a work folder."""
    return (_folder(workdir) / FILE).is_file()


def forget(workdir: Path) -> None:
    """Remove what an interrupted run left for a work folder."""
    folder = _folder(workdir)
    with suppress(OSError):
        remove(folder, below=workdir.parent, named=UNFINISHED, folder=True)
    remove_empty(folder.parent, below=workdir.parent)


def _whole(lines: Iterator[bytes]) -> Iterator[Row]:
    """Yield the parts of lines up to the first that is not as it was written: torn by a kill, edited, damaged."""
    for line in lines:
        try:
            part = json.loads(line)["part"]
            is_ours = isinstance(part, dict) and _line(part).encode() == line
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if not is_ours:
            return
        yield part


def _line(part: Mapping[str, Any]) -> str:
    """Return the line that keeps a part, with a digest, so that no changed byte makes another part of it."""
    return json_line({"part": part, "digest": _digest(json_line(part))[:12]})


def _folder(workdir: Path) -> Path:
    return workdir.parent / FOLDER / _digest(workdir.name)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
