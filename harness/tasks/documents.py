"""What the documents of a task hold, looked at before weights are read: what cannot be asked, and what scores in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable

MOST_NAMED = 12


def check_documents(task: Any, docs: Mapping[int, Any]) -> list[str]:
    """Raise for the first document that cannot be asked or judged; return notes about others.

    In a task of lm-eval's own, which the user cannot mend, what is judged as wrong in silence is a note.

    Args:
        docs: those that will be asked, by their number.

    Raises:
        HarnessError: with task, file and document.
    """
    if not hasattr(task, "fewshot_cfg"):
        return []
    met: dict[str, list[int]] = {}
    for number, doc in docs.items():
        sentence = impossible(task, doc)
        doubt = None if sentence else doubtful(task, doc)
        if sentence or (doubt and not is_lm_evals(task)):
            raise HarnessError(
                f"task '{printable(task.task_name)}'{in_file(task)}: document {number} {sentence or doubt}"
            )
        # Of right answers that are none of the choices lm-eval warns itself.
        for note in [doubt] if doubt and " answer" not in doubt else _odd_targets(task, doc):
            met.setdefault(note, []).append(number)
    return [
        *_date_columns(task),
        *(
            f"document {numbers[0]} {note}" + (f", and so do {len(numbers) - 1:,} more" if len(numbers) > 1 else "")
            for note, numbers in met.items()
        ),
    ]


def in_file(task: Any) -> str:
    """Return where a task was read from, as part of a sentence."""
    source = (getattr(task.config, "metadata", None) or {}).get("config_source")
    return "" if source in (None, "inline") else f" in {printable(source)}"


def is_lm_evals(task: Any) -> bool:
    """Return whether the task's file comes with lm-eval."""
    import lm_eval.tasks

    source = (getattr(task.config, "metadata", None) or {}).get("config_source")
    return source is not None and Path(source).is_relative_to(Path(lm_eval.tasks.__file__).parent)


def impossible(task: Any, doc: Any) -> str | None:
    """Return why ``doc`` cannot be asked, as the end of a sentence."""
    kind = str(task.OUTPUT_TYPE)
    try:
        part = "doc_to_text"
        text = task.doc_to_text(doc)
        part = "doc_to_choice"
        choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
        part = "doc_to_target"
        target = task.doc_to_target(doc)
    except Exception as error:  # a task's own templates and functions
        if (
            part == "doc_to_choice"
            and isinstance(error, ValueError | SyntaxError)
            and isinstance(task.config.doc_to_choice, str)
        ):
            from lm_eval.utils import apply_template

            return f"has {apply_template(task.config.doc_to_choice, doc)[:80]} from doc_to_choice, where a list of texts is due"
        return f"fails in {part}: {_cause(error)}; {_columns(doc)}"
    if not isinstance(text, str) and not (isinstance(text, int) and choices is not None):
        return f"has {_shown(text)} from doc_to_text, where text is due"
    if kind == "multiple_choice":
        return _impossible_choices(choices)
    if kind != "generate_until" and not isinstance(target, str):
        return f"has {_shown(target)} from doc_to_target, where text is due"
    if kind == "generate_until" and choices is not None and not callable(task.config.process_results):
        is_index = isinstance(target, int) and -1 < target < len(choices)
        return (
            None if is_index else f"has the target {_shown(target)}, which is no number of its {len(choices)} choices"
        )
    return None


def _impossible_choices(choices: Any) -> str | None:
    if not isinstance(choices, list | tuple):
        return f"has {_shown(choices)} from doc_to_choice, where a list is due"
    if not choices:
        return "has no choices"
    for choice in choices:
        if not isinstance(choice, str):
            return f"has the choice {_shown(choice)}, which is no text; write choices as text"
    return None


def doubtful(task: Any, doc: Any) -> str | None:
    """Return what makes the score of ``doc`` another than it seems, as the end of a sentence; it can be asked."""
    if task.doc_to_text(doc) == "None" and isinstance(doc, Mapping) and "None" not in doc.values():
        return "has nothing where doc_to_text takes its text from: the prompt would be 'None'"
    if str(task.OUTPUT_TYPE) != "multiple_choice" or callable(task.config.process_results):
        return None
    choices = task.doc_to_choice(doc)
    if "" in choices and not task.multiple_input:
        return f"has an empty choice, number {list(choices).index('')}"
    if len(set(choices)) == 1:
        return "has only one choice, which is always right" if len(choices) == 1 else "has choices that are all equal"
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    for one in gold if isinstance(gold, list | tuple) else [gold]:
        if isinstance(one, int) and not isinstance(one, bool) and not -1 < one < len(choices):
            return f"has the answer {one}, but {len(choices)} choices, counted from 0"
        if isinstance(one, str) and one not in choices:
            return f"has the answer {_shown(one)}, which is none of its choices"
        if not isinstance(one, int | str):
            return f"has {_shown(one)} as its answer, where the number or the text of a choice is due"
    if isinstance(gold, list | tuple) != bool(task.multiple_target) and str(gold) not in choices:
        return "has answers of another form than the first document: a list in one, none in the other"
    return None


def _odd_targets(task: Any, doc: Any) -> list[str]:
    """Return what is odd about the target of a document whose answer is text."""
    if str(task.OUTPUT_TYPE) != "generate_until" or callable(task.config.process_results):
        return []
    if task.config.doc_to_choice is not None:
        return []
    target = task.doc_to_target(doc)
    if isinstance(target, list) and not target:
        return ["has an empty list as its target: no answer is right"]
    if isinstance(target, list) and not task.multiple_target:
        return ["has a list as its target, the first document has none: it is compared as one text"]
    parts = target if isinstance(target, list) else [target]
    if any(part is None or part == "None" for part in parts):
        return ["has no target: 'None' is the right answer"]
    if not all(isinstance(part, str | int | float) for part in parts):
        return [f"has a target that is neither text nor a number, but {type(parts[0]).__name__}"]
    return []


def _date_columns(task: Any) -> list[str]:
    """Return a note for each column that a prompt or target takes and that was read as dates."""
    if task.config.dataset_path not in ("json", "csv"):
        return []
    texts = [task.config.doc_to_text, task.config.doc_to_target, task.config.doc_to_choice]
    used = " ".join(str(text) for text in texts if isinstance(text, str | list | dict))
    return [
        f"the column '{printable(name)}' was read as dates, since all its texts look like dates: '2026-01-31' stands as "
        "'2026-01-31 00:00:00'; write one in another form, or keep the data in parquet"
        for name, feature in (getattr(task.task_docs, "features", None) or {}).items()
        if re.search(rf"\b{re.escape(name)}\b", used) and re.search(r"'?(?:timestamp|date(?:32|64))", str(feature))
    ]


def _columns(doc: Any) -> str:
    if not isinstance(doc, Mapping):
        return f"it is {_shown(doc)}"
    names = [printable(name) for name in list(doc)[:MOST_NAMED]]
    return f"the document has {', '.join(names)}" if names else "the document is empty"


def _cause(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    plain = type(error).__name__ in {"UndefinedError", "TemplateSyntaxError", "TemplateAssertionError"}
    return printable(first.rstrip(".")) if plain else f"{type(error).__name__}: {printable(first)}".rstrip(": ")


def _shown(value: Any) -> str:
    text = printable(repr(value) if isinstance(value, str) else value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''}" + (
        "" if isinstance(value, str) else f" ({type(value).__name__})"
    )
