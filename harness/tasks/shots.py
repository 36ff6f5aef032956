"""Few-shot examples: as many as are asked for, and never the question that is asked."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.names import cause_of, printable

Doc = Mapping[str, Any]
# Of more documents than this, only those that are drawn are compared with the one that is asked.
MOST_COMPARED = 50_000


def keep_own_out(task: Any, shots: int, docs: Mapping[int, Doc], *, seed: int | None) -> list[str]:
    """Have ``task`` draw shots that are other questions than the one they stand before, and return what is to be told.

    lm-eval leaves out the document that is asked only where ``fewshot_split`` names ``test_split``, and only a row that is
    equal in every column. Shots that are other questions anyway stay as lm-eval draws them.

    Args:
        shots: how many each document gets.
        docs: the documents that will be asked, by their number.
        seed: of the draws.

    Raises:
        HarnessError: a document has too few others, or a sampler of the task's own gives a document its own question.
    """
    if not shots:
        return []
    if not hasattr(task, "sampler") or not hasattr(task, "fewshot_cfg"):
        _check_plain(task, shots)
        return []
    drawing = _Drawing(task, task.sampler, shots, docs)
    notes = drawing.check_number()
    if task.fewshot_cfg.fewshot_indices:
        notes.append("lm-eval reads no fewshot_config.fewshot_indices: the shots are drawn from all few-shot documents")
    notes += [] if drawing.is_known else _try_out(drawing, task, seed)
    _use(drawing, task)
    return notes


def _check_plain(task: Any, shots: int) -> None:
    """Check the number for a task written in Python, which draws its shots itself."""
    try:
        there = len(list(task.fewshot_docs()))
    except Exception:  # a task without few-shot documents says so in its own way
        there = 0
    if there < shots:
        raise HarnessError(f"--num_fewshot asks for {shots} shots, but task '{printable(task.task_name)}' has {there}")


def _use(drawing: _Drawing, task: Any) -> None:
    """Have ``task`` say for which document it draws: lm-eval's samplers are mostly not told."""
    original: Callable[..., Any] = task.fewshot_context

    def telling_which(doc: Doc, *args: Any, **kwargs: Any) -> Any:
        drawing.doc = doc
        return original(doc, *args, **kwargs)

    task.fewshot_context, drawing.sampler.sample = telling_which, drawing.sample


def _try_out(drawing: _Drawing, task: Any, seed: int | None) -> list[str]:
    """Draw the shots of every document with a copy of a sampler of the task's own, which may do anything."""
    try:
        sampler = copy.deepcopy(drawing.sampler, {id(drawing.pool): drawing.pool})
        sampler.set_rnd(seed)
    except Exception:  # what cannot be copied is tried by the run itself
        return []
    trial, fewer = _Drawing(task, sampler, drawing.shots, drawing.docs), 0
    for number, doc in drawing.docs.items():
        trial.doc = doc
        try:
            drawn = trial.sample(drawing.shots, eval_doc=doc if drawing.is_told else None)
        except HarnessError:
            raise
        except Exception as error:
            raise HarnessError(
                f"task '{printable(task.task_name)}': its few-shot sampler fails for document {number}: {cause_of(error)}"
            ) from error
        fewer += len(drawn) < drawing.shots
    if not fewer:
        return []
    return [
        f"{fewer:,} of {len(drawing.docs):,} documents have fewer shots than the {drawing.shots} asked for: the task's own "
        "sampler gives no more"
    ]


class _Drawing:
    """Draws shots with a sampler, for the document in ``doc``."""

    def __init__(self, task: Any, sampler: Any, shots: int, docs: Mapping[int, Doc]) -> None:
        from lm_eval.api.samplers import ContextSampler, FirstNSampler

        self.task, self.sampler, self.shots, self.docs = task, sampler, shots, docs
        self.doc: Doc = {}
        self.is_random = type(sampler) is ContextSampler
        self.is_known = self.is_random or type(sampler) is FirstNSampler
        self.split = _split_of_shots(task)
        # So does lm-eval compare, None with None too.
        self.is_told = task.fewshot_cfg.split == task.config.test_split
        self._draw: Callable[..., Sequence[Doc]] = sampler.sample
        self.pool: Sequence[Doc] = (sampler.fewshot_docs() if self.is_random else getattr(sampler, "df", None)) or []
        self._questions_of_row: dict[int, frozenset[Any]] = {}
        self._asks_alike = False
        self._asks_alike = not self._differ(itertools.chain(docs.values(), self.pool))

    def sample(self, n: int, eval_doc: Doc | None = None, **kwargs: Any) -> Sequence[Doc]:
        """Draw as lm-eval does; draw from the others where that gives the question that is asked."""
        if self.is_random and eval_doc and len(self.pool) <= n:
            return self._drawn_of(self._others(), n)  # lm-eval draws one more than it needs
        drawn = self._draw(n, eval_doc=eval_doc, **kwargs)
        if not self._has_own(drawn):
            return drawn
        if self.is_known:
            return self._drawn_of(self._others(), n)
        return self._asked_to_leave_out(n, **kwargs)

    def check_number(self) -> list[str]:
        """Raise where a document has fewer others than shots; return a note where the asked stand in another split."""
        pool = self.pool
        if len(pool) > MOST_COMPARED >= self.shots:
            return []
        self._questions_of_row = {id(row): self._questions(row) for row in pool}
        places: dict[Any, set[int]] = {}
        for row, keys in self._questions_of_row.items():
            for key in keys:
                places.setdefault(key, set()).add(row)
        own = {
            number: len(set().union(*(places.get(key, ()) for key in self._questions(doc))))
            for number, doc in self.docs.items()
        }
        number, most = max(own.items(), key=lambda pair: pair[1], default=(0, 0))
        if self.is_known and len(pool) - most < self.shots:
            alike = len(set(own.values())) == 1
            raise self._too_few(len(pool) - most, None if alike else number, own=bool(most))
        met = sum(times > 0 for times in own.values())
        if (
            not met
            or self._asks_alike
            or self.split == (self.task.config.test_split or self.task.config.validation_split)
        ):
            return []
        where = "the few-shot samples" if self.split is None else f"split '{printable(self.split)}'"
        return [
            f"{met:,} of {len(own):,} documents asked stand in {where} as well, where the shots are drawn: none is among its "
            "own shots, but the data are not apart"
        ]

    def _too_few(self, there: int, number: int | None, *, own: bool = False) -> HarnessError:
        others = "other document" if own else "document"
        found = f"{there} {others}{' is' if there == 1 else 's are'} there" if there else f"no {others} is there"
        whose = "" if number is None else f" for document {number}"
        where = "fewshot_config.samples" if self.split is None else f"split '{printable(self.split)}'"
        return HarnessError(
            f"task '{printable(self.task.task_name)}': {self.shots} shot{'s are' if self.shots != 1 else ' is'} asked for, "
            f"{found}{whose}, in {where}; ask for fewer with --num_fewshot, or name another split as fewshot_split"
        )

    def _drawn_of(self, others: Sequence[Doc], n: int) -> Sequence[Doc]:
        if len(others) < n:
            raise self._too_few(len(others), None, own=True)
        drawn: Sequence[Doc] = self.sampler.rnd.sample(others, n) if self.is_random else others[:n]
        return drawn

    def _asked_to_leave_out(self, n: int, **kwargs: Any) -> Sequence[Doc]:
        """Ask a sampler of the task's own in the two ways there are to leave a document out."""
        drawn = self._draw(n, eval_doc=self.doc, **kwargs)
        if not self._has_own(drawn):
            return drawn
        kept, self.sampler.df = self.sampler.df, self._others()
        try:
            drawn = self._draw(n, eval_doc=self.doc, **kwargs)
        finally:
            self.sampler.df = kept
        if self._has_own(drawn):
            raise HarnessError(
                f"task '{printable(self.task.task_name)}': its few-shot sampler gives a document its own question, answered, "
                "as a shot; have it leave out eval_doc, or name another split as fewshot_split"
            )
        return drawn

    def _others(self) -> list[Doc]:
        keys = self._questions(self.doc)
        return [row for row in self.pool if not self._is_own(row, keys)]

    def _has_own(self, drawn: Iterable[Doc]) -> bool:
        keys = self._questions(self.doc)
        return any(self._is_own(row, keys) for row in drawn)

    def _is_own(self, row: Doc, keys: frozenset[Any]) -> bool:
        return _is_equal(row, self.doc) or not keys.isdisjoint(self._questions(row))

    def _differ(self, docs: Iterable[Doc]) -> bool:
        """Return whether two of ``docs`` ask differently."""
        first: frozenset[Any] | None = None
        for doc in docs:
            keys = self._questions(doc)
            if first is not None and keys != first:
                return True
            first = keys
        return False

    def _questions(self, doc: Doc) -> frozenset[Any]:
        """Return the question of ``doc`` as it stands in the prompt, asked and as a shot: nothing where it asks with pictures."""
        known = self._questions_of_row.get(id(doc))
        if known is not None or getattr(self.task, "MULTIMODAL", False):
            return known or frozenset()
        cfg, config = self.task.fewshot_cfg, self.task.config
        texts = [(None, None, None), (cfg.doc_to_text, cfg.doc_to_choice, cfg.doc_to_target)]
        if texts[1] == (config.doc_to_text, config.doc_to_choice, config.doc_to_target):
            del texts[1]
        return frozenset(key for text in texts if (key := self._question(doc, *text)) is not None)

    def _question(self, doc: Doc, text: Any, choice: Any, target: Any) -> Any:
        """Return text and choices, and the answer where all documents ask alike; None for a row of another form."""
        try:
            asked = "" if self.task.multiple_input else " ".join(str(self.task.doc_to_text(doc, text)).split())
            has_choices = self.task.config.doc_to_choice is not None
            choices = tuple(sorted(map(str, self.task.doc_to_choice(doc, choice)))) if has_choices else ()
            answer = str(self.task.doc_to_target(doc, target)) if self._asks_alike else ""
        except Exception:
            return None
        return asked, choices, answer


def _split_of_shots(task: Any) -> str | None:
    """Return the split that lm-eval draws from; None for examples that the task file gives itself."""
    if task.fewshot_cfg.split is not None:
        return str(task.fewshot_cfg.split)
    if task.fewshot_cfg.samples is not None:
        return None
    config = task.config
    return str(config.training_split or config.validation_split or config.test_split)


def _is_equal(row: Doc, doc: Doc) -> bool:
    try:
        return bool(row == doc)
    except Exception:  # arrays have no one answer
        return False
