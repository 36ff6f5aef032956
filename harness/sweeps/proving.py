"""Everything that cells need, fetched and tried before one of them runs: models, methods, tasks, and whether they fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import HarnessError
from harness.folders import cache_folder, check_writable
from harness.imports import without_collecting
from harness.methods import Baseline
from harness.models.default_model import DEFAULT_MODEL
from harness.models.kinds import KINDS
from harness.names import counted, printable
from harness.progress import say
from harness.run.preparing import check_fit, check_weights_in_hand, find_method, find_model, load_tasks
from harness.run.surroundings import undisturbed
from harness.sweeps.cures import Missing, missing
from harness.sweeps.fetching import fetch, fetch_code_elsewhere, places_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.methods.method import Method
    from harness.models.source import ModelSource
    from harness.plugins import Plugin
    from harness.run.run import Run
    from harness.tasks.finding import TaskSet

MODEL = ("model", "model_args", "quantization", "apply_chat_template")
METHOD = ("plugin", "method", "method_args")
TASKS = ("tasks", "plugin", "include_path", "metadata", "num_fewshot", "limit", "samples", "gen_kwargs",
         "confirm_run_unsafe_code", "timeout_task")  # fmt: skip
FIT = (*METHOD, "model", "with_baseline")
TOKENIZER = ("model", "model_args")


@dataclass
class Proof:
    """What was found.

    Attributes:
        models, methods, tasks: what is there, as people call it.
        fetched_bytes: of the models on the Hub, all of their files.
        missing: what is not.
    """

    models: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    fetched_bytes: int = 0
    missing: list[Missing] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every cell can run."""
        return not self.missing


def prove(runs: Sequence[Run], *, again: str) -> Proof:
    """Fetch and try what the runs need, each distinct part once; what fails stops nothing but what needs it.

    Weights are downloaded and not read; the data of tasks are loaded, and one document of each is tried out. No device is
    asked for: the machine that computes may have another.

    Args:
        again: the command that was given, which what is missing names.
    """
    return _Proving(runs, again).all()


def distinct(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """Return the first run of each combination of the fields named."""
    return list({_values(run, names): run for run in reversed(runs)}.values())[::-1]


def _values(run: Run, names: Sequence[str]) -> str:
    return json.dumps([getattr(run, name) for name in names], sort_keys=True, default=str)


class _Proving:
    """The runs, and what was found of them so far."""

    def __init__(self, runs: Sequence[Run], again: str) -> None:
        self.runs, self.again, self.proof = [replace(run, device=None) for run in runs], again, Proof()
        self.sources: dict[str, ModelSource] = {}
        self.known: dict[str, tuple[Plugin | None, Method] | None] = {}

    def all(self) -> Proof:
        """Do all of it, what takes longest to fetch first."""
        for folder in dict.fromkeys([*(run.output_path for run in self.runs), cache_folder()]):
            self._try(f"folder {printable(folder)}", partial(_can_be_written, folder))
        for run in self._in_turn("model", distinct(self.runs, MODEL), model_named):
            self._model(run)
        for run in self._in_turn("method", distinct(self.runs, METHOD), method_named):
            self._method(run)
        for run in self._in_turn("task", distinct(self.runs, TASKS), tasks_named):
            self._tasks(run)
        return self.proof

    def _in_turn(self, noun: str, runs: Sequence[Run], named: Callable[[Run], str]) -> Iterator[Run]:
        for number, run in enumerate(runs, start=1):
            say(f"{noun} {number} of {len(runs)}: {named(run)}")
            yield run

    def _model(self, run: Run) -> None:
        named = model_named(run)
        fetched = self._fetch(named, dict(run.model_args), KINDS[run.model].has_weights if run.model in KINDS else True)
        source = fetched and self._try(named, lambda: find_model(run))
        if source:
            self.sources.setdefault(_values(run, TOKENIZER), source)
            self.proof.models.append(named)

    def _fetch(self, named: str, model_args: dict[str, Any], has_weights: bool) -> bool:
        """Fetch what the Hub has of a model; True where all of it is there."""
        from harness.models import finding

        source = self._try(named, lambda: finding.resolve(model_args, needs_weights=has_weights))
        if source is None:
            return False
        for place in places_of(source, has_weights=has_weights):
            count = self._try(named, partial(fetch, place), place=place.name)
            if count is None:
                return False
            self.proof.fetched_bytes += count
        count = self._try(named, partial(fetch_code_elsewhere, source))
        self.proof.fetched_bytes += count or 0
        return count is not None

    def _method(self, run: Run) -> None:
        named = method_named(run)
        found = self._try(named, lambda: find_method(run))
        self.known[_values(run, METHOD)] = found
        if found is None:
            return
        models = getattr(found[1], "models", ())
        names = [name for name in models if isinstance(name, str)] if isinstance(models, tuple | list) else []
        fetched = [self._fetch(f"model {printable(name)} of {named}", {"pretrained": name}, True) for name in names]
        if all(fetched):
            self.proof.methods += [] if isinstance(found[1], Baseline) else [named]

    def _tasks(self, run: Run) -> None:
        """Load the tasks of a run, try each, and see whether they fit every method and kind of model that asks them."""
        from harness.tasks import fit

        try:
            plugin = None if run.plugin is None else plugins.load(run.plugin)
        except HarnessError:
            return  # it is told with the method
        task_set = self._loaded(run, plugin)
        if task_set is None:
            return
        with without_collecting():
            from harness.run.trying_tasks import try_loaded
        asking = [other for other in self.runs if _values(other, TASKS) == _values(run, TASKS)]
        source = next((found for other in asking if (found := self.sources.get(_values(other, TOKENIZER)))), None)
        wants = any(hasattr(task, "use_tokenizer") for task in task_set.tasks.values())
        if wants:
            if source is None:
                return  # the model is told
            fit.give_tokenizer(task_set.tasks, source.load_tokenizer())
        tried = self._try(tasks_named(run), lambda: try_loaded(task_set, run, plugin))
        for other in distinct(asking, FIT):
            self._try(f"{method_named(other)} on {tasks_named(other)}", partial(self._check_fit, other, task_set))
        if tried is not None:
            self.proof.tasks += [one.name for one in tried if one.name not in self.proof.tasks]

    def _loaded(self, run: Run, plugin: Plugin | None) -> TaskSet | None:
        """Return the tasks of a run; where they do not load together, tell which does not."""
        task_set = self._try(tasks_named(run), partial(load_tasks, run, plugin), tells=len(run.tasks) == 1)
        if task_set is None and len(run.tasks) > 1:
            alone = [replace(run, tasks=(name,)) for name in run.tasks if run.samples is None]
            found = [self._try(tasks_named(one), partial(load_tasks, one, plugin)) for one in alone]
            if all(found):
                self._try(tasks_named(run), partial(load_tasks, run, plugin))
        loaded: TaskSet | None = task_set
        return loaded

    def _check_fit(self, run: Run, task_set: TaskSet) -> None:
        known = self.known.get(_values(run, METHOD))
        if known is not None:  # otherwise the method is told
            check_weights_in_hand(run, known[1])
            check_fit(run, known[1], task_set)

    def _try(self, what: str, do: Callable[[], Any], *, place: str | None = None, tells: bool = True) -> Any:
        """Return what ``do`` gives; None where it fails, and that is noted, once."""
        try:
            with undisturbed(what, all_of_it=False):
                return do()
        except (Exception, SystemExit) as error:  # foreign code may raise anything
            found = missing(what, error, again=self.again, place=place)
            if tells and found not in self.proof.missing:
                self.proof.missing.append(found)
                say(f"missing: {found.what}: {found.why}")
            return None


def _can_be_written(folder: Path) -> bool:
    check_writable(folder)
    return True


def model_named(run: Run) -> str:
    """Return how a model is called: its name and what tells it from others of that name."""
    args = dict(run.model_args)
    name = printable(args.pop("pretrained", DEFAULT_MODEL))
    more = [
        f"{key}={value}"
        for key, value in args.items()
        if key in {"revision", "subfolder", "peft", "tokenizer", "gguf_file"}
    ]
    kind = [] if run.model == "hf" else [run.model]
    return " ".join(
        [f"model {name}", *map(printable, kind + more), *([run.quantization] if run.quantization != "none" else [])]
    )


def method_named(run: Run) -> str:
    """Return how a method with its options is called."""
    if run.plugin is None:
        return "the untouched model"
    options = ",".join(f"{name}={value}" for name, value in run.method_args.items())
    return printable(
        " ".join(
            ["method", f"{run.plugin}" + (f":{run.method}" if run.method else ""), *([options] if options else [])]
        )
    )


def tasks_named(run: Run) -> str:
    """Return how the tasks of a run are called."""
    return f"{'task' if len(run.tasks) == 1 else 'tasks'} {', '.join(map(printable, run.tasks))}"


def summary(proof: Proof) -> str:
    """Return what is there, in a few words."""
    parts = {"model": proof.models, "method": proof.methods, "task": proof.tasks}
    return ", ".join(counted(len(there), noun) for noun, there in parts.items() if there) or "nothing"
