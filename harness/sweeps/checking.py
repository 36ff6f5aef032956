"""Everything of a plan that can be wrong, looked at once for all cells that share it, before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import HarnessError
from harness.methods import Baseline, options
from harness.methods.inputs import fingerprint
from harness.models.default_model import embedded
from harness.names import printable
from harness.run.preparing import check_numbers, check_weights_in_hand, find_source
from harness.run.run import Run
from harness.run.surroundings import undisturbed
from harness.sweeps.drafts import Draft
from harness.sweeps.located import Located
from harness.tasks import finding
from harness.tasks.files import TaskEntry

if TYPE_CHECKING:
    from harness.methods.method import Method
    from harness.plugins import Plugin


class Checks:
    """What has been found of plugins, methods, models and tasks, each once."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[Any, Any] = {}

    def plugin(self, name: str) -> Plugin:
        """Return a plugin. Raises ``HarnessError`` as ``plugins.load``."""

        def found() -> Plugin:
            with undisturbed(f"plugin '{printable(name)}'", all_of_it=False):
                return plugins.load(name)

        plugin: Plugin = self._once(("plugin", name), found)
        return plugin

    def options_of(self, names: Collection[str]) -> list[str]:
        """Return the options of every method of some plugins; of those that cannot be loaded, none."""
        found: list[str] = []
        for name in names:
            try:
                found += [o.name for method in self.plugin(name).methods.values() for o in options.options(method)]
            except HarnessError:
                continue
        return list(dict.fromkeys(found))

    def method(self, run: Run) -> Method:
        """Return the method of a run, its options set and what they name looked at.

        What options name is read once for all methods that differ in numbers alone.

        Raises:
            HarnessError: there is no such plugin, method, option or value, or a file that one names is not there.
        """
        if run.plugin is None and run.method in {None, "baseline"}:
            return Baseline()
        if run.plugin is None:
            raise HarnessError("a method needs plugin: NAME (`harness plugins` lists them)")
        key = (run.plugin, run.method, repr(dict(run.method_args)))
        if key not in self._known:
            plugin = self.plugin(run.plugin)
            kind = options.pick(plugin.methods, run.method, plugin=plugin.name)
            method = Baseline() if kind is Baseline else options.build(kind, run.method_args)
            self._once(("inputs", *_naming(method)), lambda: self._read(run, method))
            self._known[key] = method
        found: Method = self._known[key]
        return found

    def check(self, draft: Draft, at: Located) -> Method:
        """Do every check of a cell that is quick, and return its method; ``at`` is the file.

        Raises:
            HarnessError: something is wrong, with the line where it stands.
        """
        run = draft.run
        try:
            method = self.method(run)
        except HarnessError as error:
            raise draft.mistake(error, _suspects(draft, error), at) from error
        for names, checked, looked in (
            (
                ("limit", "samples", "num_fewshot", "timeout_task", "batch_size"),
                _numbers(run),
                lambda: check_numbers(run),
            ),
            (
                ("quantization", "model_args.pretrained", "model_args", "model"),
                (run.model, repr(dict(run.model_args)), run.quantization),
                lambda: self._source(run),
            ),
            (("model",), (run.model, type(method)), lambda: check_weights_in_hand(run, method)),
            (("tasks", "include_path"), (run.plugin, run.tasks, run.include_path), lambda: self.tasks(run)),
        ):
            try:
                self._once((names, checked), looked)
            except HarnessError as error:
                raise draft.mistake(error, [*_named_in(draft, error), *names], at) from error
        return method

    def tasks(self, run: Run) -> list[TaskEntry]:
        """Return what task files of ours a run asks for. Raises ``HarnessError`` as ``finding.check_names``."""
        plugin = None if run.plugin is None else self.plugin(run.plugin)

        def found() -> list[TaskEntry]:
            with undisturbed("the files of tasks", all_of_it=False):
                return finding.check_names(run.tasks, finding.folders(plugin, run.include_path))

        entries: list[TaskEntry] = self._once(("entries", run.plugin, run.tasks, run.include_path), found)
        return entries

    def brings_tasks(self, run: Run) -> bool:
        """Return whether the plugin of a run brings one of its tasks."""
        return run.plugin is not None and any(entry.owner == run.plugin for entry in self.tasks(run))

    def draws_shots(self, run: Run) -> bool:
        """Return whether the examples in prompts are drawn by the seed, as far as the run and our own task files say."""
        if run.num_fewshot is not None:
            return run.num_fewshot > 0
        return any(bool(entry.config.get("num_fewshot")) for entry in self.tasks(run))

    def depends_on_seed(self, run: Run) -> bool:
        """Return whether the untouched model's answers depend on the seed, as far as the run and our own task files say."""
        settings = [run.gen_kwargs, *(entry.config.get("generation_kwargs") or {} for entry in self.tasks(run))]
        return self.draws_shots(run) or any(_draws(one) for one in settings)

    def _source(self, run: Run) -> object:
        if "pretrained" in run.model_args:
            return find_source(run)
        gguf, folder = embedded()
        there = folder if (folder / "config.json").is_file() else gguf  # which is unpacked by who needs it
        return find_source(replace(run, model_args={**run.model_args, "pretrained": str(there)}))

    def _read(self, run: Run, method: Method) -> None:
        with undisturbed(f"plugin '{printable(run.plugin)}'", all_of_it=False):
            fingerprint(method)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            try:
                self._known[key] = make()
            except HarnessError as error:
                self._known[key] = error
        if isinstance(self._known[key], HarnessError):
            raise self._known[key]
        return self._known[key]


def _naming(method: Method) -> tuple[Any, ...]:
    """Return what of a method's options may name a file: all that are no numbers."""
    if not dataclasses.is_dataclass(method):
        return (type(method),)
    values = {part.name: getattr(method, part.name, None) for part in dataclasses.fields(method)}
    return type(method), *((name, repr(value)) for name, value in values.items() if not isinstance(value, int | float))


def _numbers(run: Run) -> tuple[Any, ...]:
    return run.limit, run.samples is None, run.num_fewshot, run.timeout_task, run.batch_size


def _draws(settings: Any) -> bool:
    """Return whether generation settings have answers drawn."""
    found = settings if isinstance(settings, dict) else {}
    return bool(found.get("do_sample")) or (
        found.get("temperature") not in {None, 0} and found.get("do_sample") is not False
    )


def _suspects(draft: Draft, error: HarnessError) -> list[str]:
    """Return the names of what a cell sets that a mistake over its method may be of, the likeliest first."""
    args = [name for name in draft.settings if name.startswith("method_args.")]
    of_plugin = "plugin" in str(error).split("'")[0]
    return [*_named_in(draft, error), *(["plugin"] if of_plugin else []), "method", "plugin", *args]


def _named_in(draft: Draft, error: HarnessError) -> list[str]:
    """Return the dotted names of a cell whose option or value an error has in quotes, or that it calls by its name."""
    text = str(error)
    found = []
    for name, value in draft.settings.items():
        option = name.partition(".")[2]
        if option and (f"'{option}'" in text or f" {option} is " in text or (value.text and f"'{value.text}'" in text)):
            found.append(name)
    return found
