"""The answers of a run that has not ended, kept on disk, so that the same command goes on where a killed one stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folders import append_lines
from harness.names import printable
from harness.progress import say
from harness.removal import ANSWERS, UNFINISHED, refuse_links, remove, remove_empty
from harness.requests import as_json, from_json, is_drawn

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

FOLDER = ".unfinished"
# What a kill may cost, at most: the answers of so many seconds. Each writing waits for the disk, some milliseconds.
FLUSH_SECONDS = 2.0


def folder_of(output: Path, identity: Mapping[str, Any]) -> Path:
    """Return where the answers of one run are kept below the output folder."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return output / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_in(folder: Path) -> frozenset[str]:
    """Return what names the answers in the folder of an interrupted run, which is only looked at."""
    return frozenset(key for key, _ in _pairs_in(folder))


def count_kept(kept: Set[str], kind: str, requests: Sequence[Instance]) -> int:
    """Return how many of a task's requests have an answer among those that were kept."""
    return sum(key in kept for key in _keys(kind, requests)) if kept else 0


class Journal:
    """Answers by request, for one process of one run.

    ``identity`` is everything that decides an answer besides the request: it names the folder, so another model, method,
    option or version of the software never finds these answers. (lm-eval's ``use_cache`` asks for none of that.)
    ``reused`` counts the answers that were not asked for again. A disk that refuses ends the journal, not the run, and a line
    that is not as it was written costs the answer in it.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, rank: int = 0) -> None:
        """Read what processes of an earlier, interrupted command left for ``identity`` below ``output``."""
        self.folder = folder_of(output, identity)
        refuse_links(self.folder.parent, self.folder)
        self.file = self.folder / f"answers-{rank}.jsonl"
        self.reused = 0
        self._answers: dict[str, Any] = {}
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self._is_on = True
        self._is_asking = False
        self._seconds: dict[str, float] = {}
        self._task, self._started, self._before = "", time.monotonic(), 0.0
        self._read()
        _forget_old(output / FOLDER)

    @contextmanager
    def answering(self, lm: Any, task: str = "") -> Iterator[None]:
        """Within the block ``lm`` is asked only what has no answer yet, and what it answers is kept, with the time."""
        self._task, self._started = task, time.monotonic()
        self._before = self._seconds.get(task, 0.0)
        kinds = [kind for kind in lm.answers if hasattr(lm, kind)]
        own = {name: vars(lm)[name] for name in [*kinds, "on_answer"] if name in vars(lm)}
        wrapped = {kind: self._asked_once(kind, getattr(lm, kind), lm) for kind in kinds}
        # On the object, not by a wrapper class: lm-eval asks many more things of an LM than these.
        vars(lm).update(wrapped)
        try:
            yield
        finally:
            for name in [*kinds, "on_answer"]:
                vars(lm).pop(name, None)
            vars(lm).update(own)
            self.flush()

    def flush(self) -> None:
        """Put the answers that are not on disk yet there."""
        waiting, self._waiting = self._waiting, []
        self._written = time.monotonic()
        if not waiting or not self._is_on:
            return
        spent = self._before + time.monotonic() - self._started
        waiting.append(_line(SECONDS + self._task, spent))
        try:
            append_lines(self.file, lambda _: waiting)
        except OSError as error:
            self._is_on = False
            say(
                f"answers cannot be kept for a later start ({printable(error.strerror or error)}): should this run be "
                "stopped, it begins again"
            )

    def earlier_seconds(self, task: str) -> float:
        """Return what an interrupted run had spent on ``task`` when it last wrote."""
        return self._seconds.get(task, 0.0)

    def remove(self) -> None:
        """Forget the answers: the run has ended, and its records are on disk."""
        _forget(self.folder)
        remove_empty(self.folder.parent, below=self.folder.parent.parent)

    def _asked_once(self, kind: str, ask: Callable[..., list[Any]], lm: Any) -> Callable[..., list[Any]]:
        is_told = lm.tells(kind)  # as it is before the new function stands on the object

        def answer(requests: list[Instance], *args: Any, **kwargs: Any) -> list[Any]:
            if self._is_asking:  # a method asks on its way to an answer, of whatever state its model is in then
                return ask(requests, *args, **kwargs)
            self._is_asking = True
            try:
                return self._answered(kind, requests, lambda rest: ask(rest, *args, **kwargs), lm, is_told=is_told)
            finally:
                self._is_asking = False

        return answer

    def _answered(
        self, kind: str, requests: list[Instance], ask: Callable[[list[Instance]], list[Any]], lm: Any, *, is_told: bool
    ) -> list[Any]:
        """Return the answers in order: those that are kept, and of the others what ``ask`` gives, which is kept as it comes."""
        keys = _keys(kind, requests)
        found = {number: self._answers[key] for number, key in enumerate(keys) if key in self._answers}
        self.reused += len(found)
        if found:
            lm.count_truncated(kind, [requests[number] for number in found])
        rest = [number for number in range(len(requests)) if number not in found]
        if rest:
            if is_told:
                waiting = _by_arguments(requests, keys, rest)

                def take(told: str, arguments: Any, answer: Any) -> None:
                    if told == kind:
                        self._take(waiting.get(_text(arguments), ()), kind, answer)

                lm.on_answer = take
            for number, one in zip(rest, ask([requests[number] for number in rest]), strict=True):
                self._take([keys[number]], kind, one)
                found[number] = one
        return [_restored(kind, found[number]) for number in range(len(requests))]

    def _take(self, keys: Sequence[str | None], kind: str, answer: Any) -> None:
        for key in keys:
            if key is None or key in self._answers:
                continue
            try:
                line = _line(key, as_json(answer))
            except (TypeError, ValueError):
                continue  # an answer that JSON cannot hold is asked for again
            if _is_same(_restored(kind, from_json(json.loads(line)[1])), answer):
                self._answers[key] = answer
                self._waiting.append(line)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def _read(self) -> None:
        for key, value in _pairs_in(self.folder):
            if key.startswith(SECONDS):
                task = key.removeprefix(SECONDS)
                if type(value) in (int, float) and 0 <= value <= MOST_SECONDS:
                    self._seconds[task] = max(self._seconds.get(task, 0.0), value)
            else:
                self._answers[key] = from_json(value)


SECONDS = "seconds of "
FORGET_SECONDS = 30 * 24 * 3600.0
MOST_SECONDS = 1e10


def _line(key: str, value: Any) -> str:
    """Return the line that keeps ``value``: JSON, with a digest, so that no changed byte makes another answer of it.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    text = json.dumps([key, value], allow_nan=False)
    return f'{text[:-1]}, "{_check(text)}"]'


def _pairs_in(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of what a run kept in its folder; a file that cannot be read costs what is in it."""
    for path in sorted(folder.glob("answers-*.jsonl")):
        with suppress(OSError):
            if path.is_file():
                with path.open("rb") as file:
                    yield from [pair for line in file if (pair := _pair(line)) is not None]


def _pair(line: bytes) -> tuple[str, Any] | None:
    """Return the key and the value of a line that ``_line`` made, None of any other: torn by a kill, edited, damaged."""
    try:
        key, value, check = json.loads(line)
        is_ours = isinstance(key, str) and check == _check(json.dumps([key, value], allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        return None
    return (key, value) if is_ours else None


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _keys(kind: str, requests: Sequence[Instance]) -> list[str | None]:
    """Return what names each request within a run; None where the answer is drawn at random and has to be drawn again.

    A request that is asked several times has several names: an LM may answer it differently.
    """
    keys: list[str | None] = []
    times: Counter[str] = Counter()
    for request in requests:
        if kind == "generate_until" and len(request.args) > 1 and is_drawn(request.args[1]):
            keys.append(None)
            continue
        text = json.dumps(
            [kind, request.task_name, request.doc_id, request.idx, request.args, _document(request)],
            sort_keys=True,
            default=str,
        )
        times[text] += 1
        keys.append(hashlib.sha256(f"{text} {times[text]}".encode()).hexdigest()[:32])
    return keys


def _document(request: Instance) -> str:
    """Return the document as text, which may tell an LM more than the arguments do; empty where JSON cannot hold it."""
    try:
        return json.dumps(request.doc, sort_keys=True)
    except (TypeError, ValueError):
        return ""


def _forget_old(folder: Path) -> None:
    """Remove what runs left that nobody took up again."""
    for path in folder.glob("*"):
        with suppress(OSError):
            if UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime > FORGET_SECONDS:
                _forget(path)


def _forget(folder: Path) -> None:
    """Remove the answers in the folder of one run, and the folder if nothing else is in it."""
    output = folder.parent.parent
    with suppress(OSError):
        for path in folder.iterdir():
            remove(path, below=output, named=ANSWERS)
    remove_empty(folder, below=output)


def _by_arguments(
    requests: Sequence[Instance], keys: Sequence[str | None], numbers: Sequence[int]
) -> dict[str, list[Any]]:
    """Return the keys of those requests by their arguments, which is all that the hook is told."""
    waiting: dict[str, list[Any]] = {}
    for number in numbers:
        waiting.setdefault(_text(requests[number].args), []).append(keys[number])
    return waiting


def _text(arguments: Any) -> str:
    return json.dumps(list(arguments), sort_keys=True, default=str)


def _is_same(restored: Any, answer: Any) -> bool:
    is_vector = hasattr(answer, "tobytes")
    return bool(restored.tobytes() == answer.tobytes() if is_vector else restored == answer)


def _restored(kind: str, answer: Any) -> Any:
    return tuple(answer) if kind == "loglikelihood" and isinstance(answer, list) else answer
