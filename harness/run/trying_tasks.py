"""A task tried out: one document of it loaded, the requests it becomes, what its metrics and its data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import HarnessError
from harness.names import described, printable
from harness.run.metrics import Metrics, declared_aggregations, names_of
from harness.run.preparing import documents_of, load_tasks
from harness.run.questions import build, shots
from harness.run.run import Run
from harness.run.surroundings import undisturbed
from harness.tasks import fit
from harness.tasks.finding import SHARED, owner_of
from harness.tasks.warned import heard

if TYPE_CHECKING:
    from harness.plugins import Plugin
    from harness.tasks.finding import TaskSet


@dataclass(frozen=True)
class Request:
    """One request of a document: its type and its arguments."""

    kind: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Tried:
    """A task with its first document.

    Attributes:
        file: that defines it, None where lm-eval does not say.
        data: what its documents are read from, in words.
        documents: how many there are.
        metrics: the aggregation of each, None where it has none of a name; ``higher_is_better`` of each.
        target: the right answer, as the task has it.
        scored: what the metrics give for it; None where no answer can be told to be right.
        notes: what is told of it when it is asked.
    """

    name: str
    version: str
    plugin: str | None
    file: str | None
    output_type: str
    data: str
    split: str | None
    documents: int
    shots: int
    metrics: Mapping[str, str | None]
    higher_is_better: Mapping[str, bool | None]
    document: Any
    requests: Sequence[Request]
    target: Any
    scored: Mapping[str, Any] | None
    notes: Sequence[str]


def try_tasks(
    names: Sequence[str],
    *,
    plugin: str | None = None,
    include_path: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> list[Tried]:
    """Load each task, a group's and tag's one by one, with its data, and make the requests of its first document.

    Args:
        plugin: that brings them; None finds it.

    Raises:
        HarnessError: what ``harness eval`` would find of it before weights are read, in the same sentence.
    """
    owner = _owner(names, plugin, include_path)
    run = Run(
        tasks=tuple(names),
        limit=1,
        include_path=tuple(include_path),
        metadata=dict(metadata or {}),
        confirm_run_unsafe_code=True,
    )
    task_set = load_tasks(run, owner)
    if any(hasattr(task, "use_tokenizer") for task in task_set.tasks.values()):
        from harness.models.finding import load_tokenizer

        fit.give_tokenizer(task_set.tasks, load_tokenizer())
    return try_loaded(task_set, run, owner)


def try_loaded(task_set: TaskSet, run: Run, plugin: Plugin | None) -> list[Tried]:
    """Make the requests of the first document of each task that is loaded; those that want a tokenizer have one.

    Raises:
        HarnessError: as ``try_tasks``.
    """
    first = replace(run, limit=1, samples=None, apply_chat_template=False, system_instruction=None)
    return [
        _tried(name, task, first, None if plugin is None else plugin.name, task_set.notes.get(name, ()))
        for name, task in task_set.tasks.items()
    ]


def _owner(names: Sequence[str], plugin: str | None, include_path: Sequence[str]) -> Plugin | None:
    if plugin is not None:
        return plugins.load(plugin)
    if include_path or any(name.endswith((".yaml", ".yml")) for name in names):
        return None
    found = {owner for name in names if (owner := owner_of(name)) not in {None, SHARED}}
    if len(found) > 1:
        raise HarnessError(
            f"these tasks are of several plugins, {' and '.join(sorted(map(str, found)))}; check them apart"
        )
    return plugins.load(str(found.pop())) if found else None


def _tried(name: str, task: Any, run: Run, plugin: str | None, notes: Sequence[str]) -> Tried:
    docs = documents_of(task)
    try:
        with undisturbed(f"task '{printable(name)}'", all_of_it=False), heard():
            Metrics(task).check()
            build(task, run, None)
            asked = [one for one in task.instances if one.doc_id == 0] or list(task.instances)[:1]
            target = task.doc_to_target(docs[0]) if hasattr(task, "doc_to_target") else None
            scored = _scored(task, docs[0], asked, target)
    except (HarnessError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise HarnessError(f"task '{printable(name)}' fails for its first document: {described(error)}") from error
    config, functions = task.config, declared_aggregations(task)
    names = names_of(functions)
    return Tried(
        name, str(task.VERSION), plugin, (getattr(config, "metadata", None) or {}).get("config_source"),
        str(getattr(config, "output_type", None) or task.OUTPUT_TYPE), _data_of(config),
        getattr(config, "test_split", None) or getattr(config, "validation_split", None), len(docs), shots(task, run),
        {metric: names.get(metric) for metric in functions}, dict(task.higher_is_better() or {}), docs[0],
        [Request(one.request_type, tuple(one.args)) for one in asked], target, scored, list(notes),
    )  # fmt: skip


def _scored(task: Any, doc: Any, asked: Sequence[Any], target: Any) -> dict[str, Any] | None:
    """Return what the metrics give for the right answer, None where it cannot be told what would be one.

    A metric that needs a package which is missing, or fails, raises here instead of after an evaluation.
    """
    answers = _right_answers(asked, target)
    if answers is None or not hasattr(task, "apply_filters"):
        return None
    for instance in task.instances:  # filters see them all
        instance.resps = [answers[0]]
    for instance, answer in zip(asked, answers, strict=True):
        instance.resps = [answer] * (instance.repeats or 1)
    task.apply_filters()
    found: dict[str, Any] = {}
    for key in asked[0].filtered_resps:
        results = task.process_results(doc, [instance.filtered_resps[key] for instance in asked])
        found |= {metric if key == "none" else f"{metric} ({key})": value for metric, value in results.items()}
    return (
        None if asked[0].request_type == "loglikelihood_rolling" else found
    )  # no likelihood of a text is the right one


def _right_answers(asked: Sequence[Any], target: Any) -> list[Any] | None:
    """Return what a model that is right would answer to the requests of one document."""
    kinds = {one.request_type for one in asked}
    if kinds == {"loglikelihood"}:
        right = target if isinstance(target, int) and 0 <= target < len(asked) else 0
        return [(-1.0, True) if place == right else (-9.0, False) for place in range(len(asked))]
    if kinds == {"loglikelihood_rolling"}:
        return [-1.0] * len(asked)
    if kinds == {"generate_until"} and isinstance(target, str | int | float):
        return [str(target)] * len(asked)
    return None


def _data_of(config: Any) -> str:
    """Return what the documents of a task are read from."""
    function = getattr(config, "custom_dataset", None)
    if function is not None:
        part = getattr(function, "func", function)
        return f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', part)}"
    path, name = getattr(config, "dataset_path", None), getattr(config, "dataset_name", None)
    kwargs = getattr(config, "dataset_kwargs", None) or {}
    said = [str(path), *([str(name)] if name else []), *(f"{key}={value}" for key, value in kwargs.items())]
    return ", ".join(said) if path else "what its own class reads"
