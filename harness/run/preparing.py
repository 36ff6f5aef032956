"""Everything that can be found and checked before weights are read."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import HarnessError
from harness.folders import cache_folder, check_writable
from harness.imports import without_collecting
from harness.methods import Baseline, options
from harness.methods.inputs import fingerprint
from harness.models.kinds import KINDS, kind_of
from harness.names import printable
from harness.progress import process_count, say, say_once
from harness.removal import refuse_links
from harness.run.journal import FOLDER as UNFINISHED_FOLDER
from harness.run.run import Run
from harness.run.surroundings import undisturbed
from harness.threads import OF_THIS_PROCESS, USUAL_WIDTH, wait_as_usual
from harness.timeouts import limited

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.methods.method import Method
    from harness.models.source import ModelSource
    from harness.plugins import Plugin
    from harness.tasks.finding import TaskSet

MOST_SECONDS = 10_000_000


@dataclass(frozen=True)
class Chosen:
    """A run, with the method and the model that it names."""

    run: Run
    plugin: Plugin | None
    method: Method
    source: ModelSource


@dataclass(frozen=True)
class Prepared(Chosen):
    """A run with everything that could be found and checked before loading weights; ``output`` is its absolute folder."""

    tasks: TaskSet
    output: Path


def prepare(run: Run) -> Prepared:
    """Do every check that needs no weights.

    Raises:
        HarnessError: unknown plugin, method, option, task, model or file; a task the LM cannot answer; a folder that
            cannot be written.
    """
    output = run.output_path.absolute()  # before any code runs that may go elsewhere
    check_numbers(run)
    _check_processes(run)
    plugin, method = find_method(run)
    check_weights_in_hand(run, method)
    refuse_links(output / UNFINISHED_FOLDER)
    check_writable(run.output_path)
    if not isinstance(method, Baseline):
        check_writable(cache_folder())
    tasks = _load_tasks(run, plugin, method)
    _check_shard(run, tasks)
    source = find_model(run)
    return Prepared(run, plugin, method, source, tasks, output)


def serves_every_seed(prepared: Prepared) -> bool:
    """Return whether the tasks are as they would be for any other seed: samplers of their own were tried with this one."""
    from lm_eval.api.samplers import ContextSampler, FirstNSampler

    from harness.run.questions import shots

    drawing = [task for task in prepared.tasks.tasks.values() if shots(task, prepared.run)]
    return all(type(getattr(task, "sampler", None)) in {ContextSampler, FirstNSampler} for task in drawing)


def find_method(run: Run) -> tuple[Plugin | None, Method]:
    """Return the plugin and the method a run names, its options set and what they name read."""
    if run.plugin is None:
        if run.method not in {None, "baseline"} or run.method_args:
            raise HarnessError("--method and --method_args need --plugin NAME (`harness plugins` lists them)")
        return None, Baseline()
    with undisturbed(f"plugin '{printable(run.plugin)}'", all_of_it=False):
        plugin = plugins.load(run.plugin)
        kind = options.pick(plugin.methods, run.method, plugin=plugin.name)
        method = options.build(kind, run.method_args)
        fingerprint(method)
    return plugin, method


def check_weights_in_hand(run: Run, method: Method) -> None:
    """Raise ``HarnessError`` where a method needs the weights in hand, and this kind of model keeps them to itself."""
    kind = KINDS.get(run.model)  # another one is told where the model is looked for
    if (
        kind is not None
        and kind.refusal
        and not isinstance(method, Baseline)
        and getattr(method, "needs_weights", True)
    ):
        raise HarnessError(
            f"method '{printable(method.name)}' needs the weights in hand, and --model {kind.name} has none to give: "
            f"{kind.refusal}"
        )


def find_model(run: Run) -> ModelSource:
    """Return where the model comes from, its configuration and tokenizer checked."""
    source, kind = find_source(run), kind_of(run.model)
    with without_collecting():  # transformers is imported with the first configuration
        tokenizer = kind.check(source)
    if run.apply_chat_template:
        _check_chat_template(tokenizer, run.apply_chat_template)
    kind.device(run.device)
    return source


def find_source(run: Run) -> ModelSource:
    """Return where the model comes from, its arguments checked; nothing of it is read, and no large library imported."""
    kind = kind_of(run.model)
    from harness.models import finding

    if not kind.has_weights and run.quantization != "none":
        raise HarnessError(f"--quantization needs weights, which --model {kind.name} does not load")
    source = finding.resolve(run.model_args, quantization=run.quantization, needs_weights=kind.has_weights)
    if source.engine_args and not kind.refusal:
        raise HarnessError(f"--model_args {next(iter(source.engine_args))} is for --model vllm")
    foreign = [name for name in source.lm_args if name in finding.EMBED_ARGS and kind.name != "encoder"]
    if foreign:
        raise HarnessError(f"--model_args {foreign[0]} is for --model encoder")
    return source


def load(chosen: Chosen) -> LM:
    """Load the LM of a run."""
    run, source, kind = chosen.run, chosen.source, kind_of(chosen.run.model)
    if kind.has_weights:
        if kind.refusal:
            wait_as_usual()  # an engine has threads of its own
        else:
            OF_THIS_PROCESS.choose(kind.device(run.device), _width(source))
        say(f"loading {printable(source.name)}" + ("" if run.quantization == "none" else f" in {run.quantization}"))
    return kind.load(source, run.device, run.batch_size)


def _width(source: ModelSource) -> int:
    """Return the width of the model, a usual one where its configuration gives it another name."""
    width = getattr(source.config.get_text_config(), "hidden_size", None)
    return width if isinstance(width, int) else USUAL_WIDTH


def _load_tasks(run: Run, plugin: Plugin | None, method: Method) -> TaskSet:
    task_set = load_tasks(run, plugin)
    check_fit(run, method, task_set)
    for name, notes in task_set.notes.items():
        for note in notes:
            say_once(f"task '{printable(name)}': {note}", named=note)
    return task_set


def load_tasks(run: Run, plugin: Plugin | None) -> TaskSet:
    """Return the tasks of a run, their files, settings and the documents that it asks looked at.

    Raises:
        HarnessError: a name is unknown, a file is none, data is missing, or a document cannot be asked.
    """
    from harness.tasks import finding, generating

    names = ", ".join(map(printable, run.tasks))
    with undisturbed(f"the files of {names}", all_of_it=False), limited(run.timeout_task, f"loading {names}"):
        folders = finding.folders(plugin, run.include_path)
        task_set = finding.load(run.tasks, folders, metadata=run.metadata, num_fewshot=run.num_fewshot)
        _check_samples(run, task_set)
        _check_tasks(run, task_set)
        for name, notes in generating.set_generation(task_set.tasks, run.gen_kwargs).items():
            task_set.notes.setdefault(name, []).extend(notes)
    return task_set


def _check_samples(run: Run, task_set: TaskSet) -> None:
    for name, numbers in (run.samples or {}).items():
        if name not in task_set.tasks:
            raise HarnessError(f"--samples names task '{printable(name)}', which is not among --tasks")
        size = len(documents_of(task_set.tasks[name]))
        if max(numbers) >= size:
            raise HarnessError(f"--samples asks for document {max(numbers)} of '{printable(name)}', which has {size}")


def check_fit(run: Run, method: Method, task_set: TaskSet) -> None:
    """Raise ``HarnessError`` when a task asks what neither this kind of model answers nor what the method will make of it."""
    from harness.tasks import fit

    if run.model not in KINDS:
        return  # that is told where the model is looked for
    lm = KINDS[run.model].promise
    fit.check_fit(task_set.tasks, lm, more=frozenset(getattr(method, "answers", ())))
    if run.with_baseline:
        fit.check_fit(task_set.tasks, lm, hint="; --with_baseline asks it, too: leave it out")


def _check_chat_template(tokenizer: Any, wanted: bool | str) -> None:
    template = tokenizer.chat_template
    names = [] if template is None else sorted(template) if isinstance(template, dict) else ["default"]
    if not names or (isinstance(wanted, str) and wanted not in names):
        there = f"it has {', '.join(map(printable, names))}" if names else "it has none, as is usual for base models"
        raise HarnessError(
            f"--apply_chat_template finds no chat template in the tokenizer; {there}; leave the flag out"
        )


def documents_of(task: Any) -> Any:
    """Return the documents of ``task``; those it was built with, where it keeps them: it would process all of them again."""
    docs = getattr(task, "task_docs", None)
    return task.eval_docs if docs is None else docs


def _asked(run: Run, name: str, task: Any) -> dict[int, Any]:
    """Return the documents of ``task`` that ``run`` asks, by their number."""
    from lm_eval.evaluator_utils import get_sample_size

    docs, chosen = documents_of(task), (run.samples or {}).get(name)
    try:
        if chosen:
            return {number: docs[number] for number in sorted(chosen)}
        return dict(enumerate(itertools.islice(docs, get_sample_size(task, run.limit))))
    except (LookupError, TypeError, ValueError) as error:  # UnicodeDecodeError too
        raise HarnessError(f"the documents of task '{printable(name)}' cannot be read: {printable(error)}") from error


def _check_tasks(run: Run, task_set: TaskSet) -> None:
    """Look at what each task is made of, its documents and its shots; what is to be told of them goes to its notes."""
    from harness.run.questions import shots
    from harness.tasks.documents import check_documents
    from harness.tasks.mistakes import check_task
    from harness.tasks.shots import keep_own_out

    for name, task in task_set.tasks.items():
        check_task(task)
        if getattr(task, "UNSAFE_CODE", False) and not run.confirm_run_unsafe_code:
            raise HarnessError(
                f"task '{printable(name)}' runs code that the model writes, on this machine; allow it with "
                "--confirm_run_unsafe_code"
            )
        docs = _asked(run, name, task)
        notes = [*check_documents(task, docs), *keep_own_out(task, shots(task, run), docs, seed=run.seeds[3])]
        task_set.notes.setdefault(name, []).extend(notes)


def _check_shard(run: Run, task_set: TaskSet) -> None:
    """Refuse a shard of a task whose answers no other process may have."""
    from harness.run.questions import draws_answers

    for name, task in task_set.tasks.items() if run.shard is not None else ():
        if draws_answers(task, run):
            raise HarnessError(
                f"task '{printable(name)}' has its answers drawn at random, and no shard can have them for the others; leave "
                "--shard out, or make it greedy with --gen_kwargs do_sample=false"
            )


def _check_processes(run: Run) -> None:
    if run.shard is not None and process_count() > 1:
        raise HarnessError(
            f"--shard is for processes that each go their own way, and a launcher joined {process_count()} here (WORLD_SIZE): "
            "leave --shard out, or start a process for each shard without the launcher"
        )
    if run.shard is not None and run.no_cache:
        raise HarnessError("--shard and --no-cache exclude each other: every shard would apply the method anew")


def check_numbers(run: Run) -> None:
    """Raise ``HarnessError`` for a number, or a pair of them, that no run has."""
    if run.limit is not None and run.samples is not None:
        raise HarnessError("--limit and --samples exclude each other; give one of them")
    if run.limit is not None and not (run.limit >= 1 and float(run.limit).is_integer()) and not 0 < run.limit < 1:
        raise HarnessError(
            f"--limit {run.limit:g} is neither a number of documents (1 or more) nor a share between 0 and 1"
        )
    if run.timeout_task is not None and not 0 < run.timeout_task <= MOST_SECONDS:
        raise HarnessError(
            f"--timeout_task is {run.timeout_task:g}; it has to be seconds above 0, {MOST_SECONDS:,} at most"
        )
    if run.num_fewshot is not None and run.num_fewshot < 0:
        raise HarnessError(f"--num_fewshot is {run.num_fewshot}; it has to be 0 or more")
    size = run.batch_size
    is_auto = isinstance(size, str) and re.fullmatch(r"auto(:[0-9]+(\.[0-9]+)?)?", size)
    if not is_auto and (not isinstance(size, int) or size < 1):
        raise HarnessError(f"--batch_size is '{printable(size)}'; it has to be a whole number of 1 or more, or auto")
