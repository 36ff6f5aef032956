"""Tasks meet ``--gen_kwargs``: what is given on the command line counts before what a task says, by whatever names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.generation_settings import DRAWING, named, over, thing_of
from harness.names import printable
from harness.progress import say
from harness.requests import is_drawn


def set_generation(tasks: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Have each request for a text that ``tasks`` make ask with the settings ``given`` on the command line.

    lm-eval sets them in a task's configuration, which leaves other names of the same thing there, and does not reach what a
    task's own code writes into its requests.

    Returns:
        Sentences on what of ``given`` changes nothing, by task.

    Raises:
        HarnessError: ``given``, or what a task sets, is contradictory, of no use, or has a setting that is not taken.
    """
    wanted = named(given, "--gen_kwargs")
    generating = {name: task for name, task in tasks.items() if _settings_of(task) is not None}
    for name, task in generating.items():
        named(over(_settings_of(task) or {}, given), f"task '{printable(name)}'")
    for task in tasks.values():
        if given and hasattr(task, "construct_requests"):
            _put_over(task, dict(given))
    if wanted and not generating:
        say("--gen_kwargs changes nothing here: none of the tasks says that it has text generated")
    return {name: notes for name, task in generating.items() if (notes := _of_no_use(task, wanted, given))}


def draws(task: Any, given: Mapping[str, Any]) -> bool:
    """Return whether a task has its texts drawn at random: as its requests say, or before there are any its configuration."""
    made = [one.args for one in getattr(task, "_instances", None) or [] if one.request_type == "generate_until"]
    if made:
        return any(len(args) > 1 and is_drawn(args[1]) for args in made)
    settings = _settings_of(task)
    return settings is not None and is_drawn(over(settings, given))


def _settings_of(task: Any) -> dict[str, Any] | None:
    """Return what a task's configuration says of its texts; None where it asks for none."""
    if str(getattr(task, "OUTPUT_TYPE", "")) != "generate_until":
        return None
    return dict(getattr(task.config, "generation_kwargs", None) or {})


def _put_over(task: Any, given: dict[str, Any]) -> None:
    ask = task.construct_requests

    def construct(*args: Any, **kwargs: Any) -> Any:
        made = ask(*args, **kwargs)
        for one in made if isinstance(made, list) else [made]:
            if getattr(one, "request_type", None) == "generate_until" and len(one.args) > 1:
                context, settings, *more = one.args
                one.arguments = (context, over(settings, given), *more)
        return made

    task.construct_requests = construct


def _of_no_use(task: Any, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return a sentence on what changes no answer of a task that generates."""
    settings = over(_settings_of(task) or {}, given)
    if settings.get("temperature") and settings.get("do_sample") is False:
        return [
            f"texts are greedy, do_sample being false: the temperature of {settings['temperature']} decides nothing"
        ]
    if settings.get("do_sample") and settings.get("temperature") in (0, "0"):
        return ["texts are greedy, the temperature being 0: do_sample decides nothing"]
    if any("\\n" in text for text in wanted.get("until", [])):
        return [
            '--gen_kwargs until has a backslash and an n, no line break; a break is written until=["\\n"], with both quotes'
        ]
    unused = ", ".join(sorted(DRAWING.keys() & wanted.keys()))
    if not unused or draws(task, given) or {"do_sample", "temperature"} & {thing_of(name) for name in given}:
        return []
    return [f"--gen_kwargs {unused} changes nothing, because texts are greedy; do_sample=true draws them"]
