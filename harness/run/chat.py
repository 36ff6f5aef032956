"""What a chat template takes, found out before anything is asked: some leave a system message out, or earlier turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.tasks.warned import heard

if TYPE_CHECKING:
    from harness.run.run import Run

SYSTEM, FIRST, ANSWER, LAST = "words of the system", "words of the user", "words of the model", "last words"


@dataclass(frozen=True)
class Takes:
    """Whether a system message reaches the prompt, and whether all turns of a conversation do."""

    system: bool = True
    turns: bool = True


@dataclass(frozen=True)
class Fitted:
    """A run without what the template of its LM leaves out, and a sentence on that for each task it concerns."""

    run: Run
    notes: Mapping[str, str]


def fitted(run: Run, tasks: Mapping[str, Any], lm: Any) -> Fitted:
    """Return ``run`` as its prompts will be.

    Raises:
        HarnessError: shots are to be turns of a conversation, which the template does not take.
    """
    if not run.apply_chat_template or getattr(lm, "apply_chat_template", None) is None:
        return Fitted(run, {})
    with template_of(run, lm):
        takes = _takes(lm)
    if not takes.turns and run.fewshot_as_multiturn:
        _refuse_turns(run, tasks)
    if takes.system:
        return Fitted(run, {})
    left_out = {name: _left_out(run, task) for name, task in tasks.items()}
    notes = {
        name: f"the chat template takes no system message: {' and '.join(parts)} {_was(parts)} left out"
        for name, parts in left_out.items()
        if parts
    }
    return Fitted(replace(run, system_instruction=None), notes)


@contextmanager
def template_of(run: Run, lm: Any) -> Iterator[None]:
    """Within the block ``lm`` uses the template that ``--apply_chat_template`` names; lm-eval only writes the name down."""
    settings = getattr(lm, "chat_template_args", None)
    if not isinstance(run.apply_chat_template, str) or not isinstance(settings, dict):
        yield
        return
    templates = getattr(lm.tokenizer, "chat_template", None)
    named = {"chat_template": run.apply_chat_template} if isinstance(templates, dict) else {}
    lm.chat_template_args = settings | named
    try:
        yield
    finally:
        lm.chat_template_args = settings


def _takes(lm: Any) -> Takes:
    """Return what the template of ``lm`` takes; of one that renders nothing at all its own error will tell."""
    user = {"role": "user", "content": FIRST}
    if FIRST not in _rendered(lm, [user]):
        return Takes()
    turns = _rendered(lm, [user, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": LAST}])
    return Takes(
        system=SYSTEM in _rendered(lm, [{"role": "system", "content": SYSTEM}, user]),
        turns=all(words in turns for words in (FIRST, ANSWER, LAST)),
    )


def _rendered(lm: Any, messages: list[dict[str, str]]) -> str:
    with heard():
        try:
            return str(lm.apply_chat_template(messages))
        except Exception:  # a template is a program of its own, and says no as it likes
            return ""


def _left_out(run: Run, task: Any) -> list[str]:
    """Return what of a task's prompts would stand in the system message."""
    parts = [] if run.system_instruction is None else ["--system_instruction"]
    if getattr(task.config, "description", None):
        parts.append("the description of the task")
    return parts


def _was(things: Sequence[str]) -> str:
    return "was" if len(things) == 1 else "were"


def _refuse_turns(run: Run, tasks: Mapping[str, Any]) -> None:
    for name, task in tasks.items():
        own = getattr(task.config, "num_fewshot", None)
        shots = own if own == 0 or run.num_fewshot is None else run.num_fewshot
        if shots:
            raise HarnessError(
                f"the chat template takes no conversation of several turns, as which task '{printable(name)}' would show "
                f"its {shots} shots; give --fewshot_as_multiturn false to show them in one"
            )
