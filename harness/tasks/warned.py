"""What lm-eval warns of, in sentences of ours: each said once, and kept where it says something of a number."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from harness.names import printable
from harness.redaction import redact

# Tasks of lm-eval use the second name, too.
LOGGERS = ("lm_eval", "lm-eval")
NO_SYSTEM = "the chat template refused the system message of some prompts, which went without it"
MOST_UNKNOWN, MOST_CHARACTERS = 20, 300


class _Known(NamedTuple):
    """A warning of lm-eval 0.4.13, and what we make of it: a note on the task's numbers, or nothing where ``note`` is None."""

    pattern: str
    note: Callable[[re.Match[str], int], str] | None = None


def _limits(match: re.Match[str], _: int) -> str:
    names = re.findall(r"'(\w+)': ([^,}]+)", match[1])
    given = ", ".join(f"{name} {value}" for name, value in names)
    return f"more than one limit on the length of an answer was given ({given}): {names[0][0] if names else 'the first'} decided"


def _labels(_: re.Match[str], count: int) -> str:
    documents = "1 document" if count == 1 else f"{count:,} documents"
    return f"the right answer of {documents} is none of the choices: wrong, whatever the model answers"


KNOWN = (
    # Said and noted here.
    _Known(r"Multiple max token args provided: (\{.*\})", _limits),
    _Known(
        r"do_sample=False`? but temperature=([0-9.e+-]+)",
        lambda match, _: (
            f"texts are greedy, do_sample being false: the temperature of {float(match[1]):g} decides nothing"
        ),
    ),
    _Known(
        r"do_sample=True`? but temperature=0",
        lambda *_: "do_sample is true at a temperature of 0, which draws nothing",
    ),
    _Known(
        r"`max_length` in generation kwargs",
        lambda *_: (
            "max_length among the generation settings bounds prompt and answer together; max_gen_toks bounds the answer"
        ),
    ),
    _Known(r"Label index was not in within range of available choices", _labels),
    _Known(r"Applied prompt returns empty string", lambda *_: "the prompt of some documents is empty"),
    _Known(
        r"Failed to apply chat template",
        lambda *_: NO_SYSTEM,
    ),
    _Known(
        r"using test_docs as fewshot_docs",
        lambda *_: "the shots come from the documents that are asked",
    ),
    _Known(
        r"Both split and samples are configured",
        lambda *_: "fewshot_config gives split and samples: the shots come from the split",
    ),
    # Found out by ourselves, exactly: harness.run.metrics, harness.run.groups.
    _Known(r"No aggregation function defined for metric"),
    _Known(r"Metrics were not scored on the same number of"),
    _Known(r"Group '.*': (metric '.*' is missing in|no values found for)"),
    _Known(r"Higher_is_better values for metric .* are not consistent"),
    _Known(r"not a registered aggregation metric|Could not find registered metric|not found in the evaluate library"),
    # A record says it: gen_kwargs, num_fewshot, truncated_requests, metric.aggregation, the requests in the samples.
    _Known(r"generation_kwargs: .* specified through cli"),
    _Known(r"Overwriting default num_fewshot of"),
    _Known(r"Left truncation applied|Combined length of context"),
    _Known(r"is defined, but (aggregation|higher_is_better) is not"),
    _Known(r"No `until` specified|No `generation_kwargs` specified"),
    _Known(r"num_fewshot > 0 but fewshot_split is None"),
    # Refused before, or of no effect: a template that is not there; a template named default, which is taken; names that
    # were looked up; settings of texts where none is generated; how data functions take arguments; objects for models.
    _Known(r"No chat template is set for this tokenizer|Chat template name provided, but the tokenizer's"),
    _Known(r"Duplicate task name|overrides existing task from"),
    _Known(r"passed `generation_kwargs`, but not using"),
    _Known(r"Custom kwargs can be passed to"),
    _Known(
        r"already-initialized model|`pretrained` model kwarg is not of type|neither marked as CausalLM or Seq2SeqLM"
    ),
    # A matter of choice: the record says whether prompts went through the template.
    _Known(r"appears to be an instruct or chat variant but chat template is not applied"),
)


class Heard(logging.Handler):
    """Takes the warnings of lm-eval while a task is asked."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._known: dict[_Known, tuple[re.Match[str], set[int]]] = {}
        self._unknown: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take one warning."""
        with suppress(Exception):  # a message that cannot be formatted is no reason to lose a run
            text = " ".join(record.getMessage().split())
            for known in KNOWN:
                match = re.search(known.pattern, text)
                if match:
                    self._known.setdefault(known, (match, set()))[1].add(hash(text))
                    return
            if len(self._unknown) < MOST_UNKNOWN:
                self._unknown[printable(redact(text))[:MOST_CHARACTERS]] = None

    @property
    def notes(self) -> list[str]:
        """A sentence for each warning that says something of the numbers, the same in every run."""
        found = self._known.items()
        return [printable(redact(known.note(match, len(texts)))) for known, (match, texts) in found if known.note]

    @property
    def others(self) -> list[str]:
        """The warnings that nobody here knows, as they are."""
        return list(self._unknown)


@contextmanager
def heard() -> Iterator[Heard]:
    """Take all warnings of lm-eval within the block; nothing of them is printed."""
    from lm_eval.utils import info_once, warning_once

    for once in (warning_once, info_once):
        once.cache_clear()  # what is said once a process is said once a task
    handler, loggers = Heard(), [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    try:
        yield handler
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
