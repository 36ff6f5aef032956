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
from harness.models.due import Due
from harness.names import printable
from harness.progress import say
from harness.removal import ANSWERS, UNFINISHED, refuse_links, remove, remove_empty
from harness.requests import as_json, from_json, is_drawn
from harness.run.shard import Shard

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
    return frozenset(key for path in _files_in(folder) for key, _ in pairs_of(path))


def count_kept(kept: Set[str], kind: str, requests: Sequence[Instance]) -> int:
    """Return how many of a task's requests have an answer among those that were kept."""
    return sum(key in kept for key in _keys(kind, requests)) if kept else 0


class Journal:
    """Answers by request, for one process of one run.

    ``identity`` is everything that decides an answer besides the request: it names the folder, so another model, method,
    option or version of the software never finds these answers. (lm-eval's ``use_cache`` asks for none of that.)
    ``reused`` counts the answers that were not asked for again, ``given`` those that were asked for. A disk that refuses ends
    the journal, not the run, and a line that is not as it was written costs the answer in it.

    With a ``shard``, only its own requests are asked, and the answer to any other is None where it is not there already.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, rank: int = 0, shard: Shard | None = None) -> None:
        """Read what processes of an earlier command, or of other shards, left for ``identity`` below ``output``."""
        self.folder = folder_of(output, identity)
        refuse_links(self.folder.parent, self.folder)
        whose = rank if shard is None else f"shard{shard.number}of{shard.count}"
        self.file, self.shard = self.folder / f"answers-{whose}.jsonl", shard
        self.reused = self.given = 0
        self._answers: dict[str, Any] = {}
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self._is_on = True
        self._is_asking = False
        # Of each task, what each file says: processes of one run go on at the same time, shards one for itself.
        self._seconds: dict[str, dict[str, float]] = {}
        self._task, self._started, self._before = "", time.monotonic(), 0.0
        self._asked, self._begun = hashlib.sha256(), 0
        self._read()
        _forget_old(output / FOLDER)

    @contextmanager
    def answering(self, lm: Any, task: str = "") -> Iterator[None]:
        """Within the block ``lm`` is asked only what has no answer yet, and what it answers is kept, with the time."""
        self._task, self._started, self._asked = task, time.monotonic(), hashlib.sha256()
        self._begun += 1
        of_files = self._seconds.get(task, {})
        self._before = of_files.get(self.file.name, 0.0) if self.shard else _of_processes(of_files)
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
        waiting.append(line_of(SECONDS + self._task, spent))
        try:
            append_lines(self.file, lambda _: waiting)
        except OSError as error:
            self._is_on = False
            say(
                f"answers cannot be kept for a later start ({printable(error.strerror or error)}): should this run be "
                "stopped, it begins again"
            )

    def earlier_seconds(self, task: str) -> float:
        """Return what an interrupted run had spent on ``task`` when it last wrote, and all shards together."""
        of_files = self._seconds.get(task, {})
        return _of_processes(of_files) + sum(value for name, value in of_files.items() if _is_of_shard(name))

    @property
    def asked(self) -> str:
        """The digest of all requests that came since the last ``answering`` began."""
        return self._asked.hexdigest()[:16]

    def remove(self, tasks: Set[str] | None = None) -> None:
        """Forget the answers: the run has ended, and its records are on disk.

        Args:
            tasks: those it asked; a shard's answers to others, which may be on their way, stay. None: there are no others.
        """
        of_others = {
            name for task, of_files in self._seconds.items() if tasks is not None and task not in tasks
            for name in of_files if _is_of_shard(name)
        }  # fmt: skip
        _forget(self.folder, but={*of_others, *({MARKS} if of_others else ())})
        remove_empty(self.folder.parent, below=self.folder.parent.parent)

    def _asked_once(self, kind: str, ask: Callable[..., list[Any]], lm: Any) -> Callable[..., list[Any]]:
        is_told, leaves_out = lm.tells(kind), lm.leaves_out(kind)  # before the new function stands on the object

        def answer(requests: list[Instance], *args: Any, **kwargs: Any) -> list[Any]:
            if self._is_asking:  # a method asks on its way to an answer, of whatever state its model is in then
                return ask(requests, *args, **kwargs)
            self._is_asking = True
            try:
                whole = lambda rest: ask(rest, *args, **kwargs)  # noqa: E731
                return self._answered(kind, requests, whole, lm, is_told=is_told, leaves_out=leaves_out)
            finally:
                self._is_asking = False

        return answer

    def _answered(
        self,
        kind: str,
        requests: list[Instance],
        ask: Callable[[list[Instance]], list[Any]],
        lm: Any,
        *,
        is_told: bool,
        leaves_out: bool,
    ) -> list[Any]:
        """Return the answers in order: those that are kept, and of the others what ``ask`` gives, which is kept as it comes."""
        keys = _keys(kind, requests)
        self._asked.update("".join(f"{key} " for key in keys).encode())
        found = {number: self._answers[key] for number, key in enumerate(keys) if key in self._answers}
        rest = [number for number in range(len(requests)) if number not in found]
        self.reused += len(found)
        if is_told:
            waiting = _by_arguments(requests, keys, rest)

            def take(told: str, arguments: Any, answer: Any) -> None:
                if told == kind:
                    self._take(waiting.get(_text(arguments), ()), kind, answer)

            lm.on_answer = take
        if rest and leaves_out:
            given = self._in_batches_of_all(requests, rest, ask, lm)
        else:
            if found:
                lm.count_truncated(kind, [requests[number] for number in found])
            mine = rest if self.shard is None else sorted({*rest} & {*self.shard.owned(requests)})
            given = dict(zip(mine, ask([requests[number] for number in mine]), strict=True)) if mine else {}
        for number, one in given.items():
            self._take([keys[number]], kind, one)
        self.given += len(given)
        found |= given
        return [_restored(kind, found.get(number)) for number in range(len(requests))]

    def _in_batches_of_all(
        self, requests: list[Instance], rest: Sequence[int], ask: Callable[[list[Instance]], list[Any]], lm: Any
    ) -> dict[int, Any]:
        """Return answers to those of ``rest`` that are this shard's, each made in the batch that all requests would make."""
        if len(rest) == len(requests) and self.shard is None:
            return dict(enumerate(ask(requests)))
        lm.due = Due({*rest})
        if self.shard is not None:
            part, parts, owned = self.shard.number, self.shard.count, self.shard.owned(requests)
            lm.due = Due({*rest}, part=part, parts=parts, first=self._begun - 1, owned=owned)
        try:
            answers = ask(requests)
        finally:
            lm.due = None
        given = {number: answers[number] for number in rest if answers[number] is not None}
        left = [number for number in rest if number not in given] if self.shard is None else []
        # Where batches came out otherwise, as after memory ran out.
        return given | (dict(zip(left, ask([requests[number] for number in left]), strict=True)) if left else {})

    def _take(self, keys: Sequence[str | None], kind: str, answer: Any) -> None:
        for key in keys:
            if key is None or key in self._answers:
                continue
            try:
                line = line_of(key, as_json(answer))
            except (TypeError, ValueError):
                continue  # an answer that JSON cannot hold is asked for again
            if _is_same(_restored(kind, from_json(json.loads(line)[1])), answer):
                self._answers[key] = answer
                self._waiting.append(line)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def _read(self) -> None:
        for path in _files_in(self.folder):
            for key, value in pairs_of(path):
                if key.startswith(SECONDS):
                    of_files = self._seconds.setdefault(key.removeprefix(SECONDS), {})
                    if type(value) in (int, float) and 0 <= value <= MOST_SECONDS:
                        of_files[path.name] = max(of_files.get(path.name, 0.0), value)
                elif not key.startswith(SHARD):
                    self._answers[key] = from_json(value)


# What lines hold that are no answers: the time that a task took, and that a shard has asked all of its own.
SECONDS, SHARD = "seconds of ", "shard "
# One file for all shards: who has added a line sees those of all that came before, on a disk that machines share as well.
MARKS = "answers-shards.jsonl"
FORGET_SECONDS = 30 * 24 * 3600.0
MOST_SECONDS = 1e10


def line_of(key: str, value: Any) -> str:
    """Return the line that keeps ``value``: JSON, with a digest, so that no changed byte makes another answer of it.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    text = json.dumps([key, value], allow_nan=False)
    return f'{text[:-1]}, "{_check(text)}"]'


def pairs_of(path: Path) -> list[tuple[str, Any]]:
    """Return keys and values of what a run kept in a file; one that cannot be read costs what is in it."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return [pair for line in file if (pair := _pair(line)) is not None]
    return []


def _files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("answers-*.jsonl"))


def _is_of_shard(name: str) -> bool:
    return name.startswith("answers-shard")


def _of_processes(of_files: Mapping[str, float]) -> float:
    """Return the seconds of processes that worked on a task at the same time, the whole of it."""
    return max((value for name, value in of_files.items() if not _is_of_shard(name)), default=0.0)


def _pair(line: bytes) -> tuple[str, Any] | None:
    """Return the key and the value of a line that ``line_of`` made, None of any other: torn by a kill, edited, damaged."""
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


def _forget(folder: Path, *, but: Set[str] = frozenset()) -> None:
    """Remove the answers in the folder of one run, and the folder if nothing else is in it.

    Args:
        but: the names of files that stay.
    """
    output = folder.parent.parent
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name not in but:
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
