"""The answers of a run that has not ended, kept on disk, so that the same command goes on where a killed one stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folders import append_lines

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

FOLDER = ".unfinished"
# What a kill may cost, at most: the answers of so many seconds. Each writing waits for the disk, some milliseconds.
FLUSH_SECONDS = 2.0


class Journal:
    """Answers by request, for one process of one run.

    ``identity`` is everything that decides an answer besides the request: it names the folder, so another model, method,
    option or version of the software never finds these answers. (lm-eval's ``use_cache`` asks for none of that.)
    ``reused`` counts the answers that were not asked for again.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, rank: int = 0) -> None:
        """Read what processes of an earlier, interrupted command left for ``identity`` below ``output``."""
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = output / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.file = self.folder / f"answers-{rank}.jsonl"
        self.reused = 0
        self._answers: dict[str, Any] = {}
        self._waiting: list[str] = []
        self._written = time.monotonic()
        for path in sorted(self.folder.glob("answers-*.jsonl")):
            self._read(path)

    @contextmanager
    def answering(self, lm: Any) -> Iterator[None]:
        """Within the block ``lm`` is asked only what has no answer yet, and what it answers is kept."""
        kinds = [kind for kind in getattr(lm, "answers", LM_EVAL_KINDS) if hasattr(lm, kind)]
        own = {name: vars(lm)[name] for name in [*kinds, "cache_hook"] if name in vars(lm)}
        for kind in kinds:
            # On the object, not by a wrapper class: lm-eval asks many more things of an LM than these.
            setattr(lm, kind, self._asked_once(kind, getattr(lm, kind), lm))
        try:
            yield
        finally:
            for name in [*kinds, "cache_hook"]:
                vars(lm).pop(name, None)
            vars(lm).update(own)
            self.flush()

    def flush(self) -> None:
        """Put the answers that are not on disk yet there. Raises ``OSError`` when the disk refuses."""
        waiting, self._waiting = self._waiting, []
        self._written = time.monotonic()
        if waiting:
            append_lines(self.file, lambda _: waiting)

    def remove(self) -> None:
        """Forget the answers: the run has ended, and its records are on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _asked_once(self, kind: str, ask: Callable[..., list[Any]], lm: Any) -> Callable[..., list[Any]]:
        def answer(requests: list[Instance], *args: Any, **kwargs: Any) -> list[Any]:
            keys = [_key(kind, request) for request in requests]
            found = {number: self._answers[key] for number, key in enumerate(keys) if key in self._answers}
            self.reused += len(found)
            if found and hasattr(lm, "count_truncated"):
                lm.count_truncated(kind, [requests[number] for number in found])
            rest = [number for number in range(len(requests)) if number not in found]
            if rest:
                waiting = _by_arguments(requests, keys, rest)
                lm.cache_hook = _Hook(lambda req, answer: self._take(waiting.get(_text(req), ()), kind, answer))
                answers = ask([requests[number] for number in rest], *args, **kwargs)
                for number, one in zip(rest, answers, strict=True):
                    self._take([keys[number]], kind, one)
                    found[number] = one
            return [_restored(kind, found[number]) for number in range(len(requests))]

        return answer

    def _take(self, keys: Sequence[str | None], kind: str, answer: Any) -> None:
        for key in keys:
            if key is None or key in self._answers:
                continue
            try:
                line = json.dumps([key, answer], allow_nan=False)
            except (TypeError, ValueError):
                continue  # an answer that JSON cannot hold is asked for again
            if _restored(kind, json.loads(line)[1]) == answer:
                self._answers[key] = answer
                self._waiting.append(line)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().split(b"\n"):
            try:
                key, answer = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # the end of it, torn by the kill
            self._answers[str(key)] = answer


LM_EVAL_KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class _Hook:
    """What an LM tells of each answer as soon as it has it: lm-eval's own seam for a cache."""

    def __init__(self, take: Callable[[Any, Any], None]) -> None:
        self.take = take

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.take(req, res)


def _key(kind: str, request: Instance) -> str | None:
    """Return what names a request within a run; None when its answer is drawn at random and has to be drawn again."""
    if _is_drawn(kind, request):
        return None
    named = [kind, request.task_name, request.doc_id, request.idx, request.args]
    return hashlib.sha256(json.dumps(named, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _is_drawn(kind: str, request: Instance) -> bool:
    if kind != "generate_until":
        return False
    wish = request.args[1] if len(request.args) > 1 else {}
    return bool(wish.get("do_sample") or wish.get("temperature"))


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


def _restored(kind: str, answer: Any) -> Any:
    return tuple(answer) if kind == "loglikelihood" and isinstance(answer, list) else answer
