"""Run, and evaluate(run): from what a command asks to the records it leaves."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import Failed, HarnessError
from harness.folders import cache_folder, check_writable
from harness.methods import options as methods
from harness.names import printable, suggestion
from harness.progress import say, suit_the_terminal
from harness.redaction import redact
from harness.timeouts import limited

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.methods.options import Method
    from harness.models.loading import ModelSource
    from harness.plugins import Plugin
    from harness.records.record import Record
    from harness.tasks.finding import TaskSet

MODELS = ("hf", "tokenizer")
MOST_SECONDS = 10_000_000


@dataclass(frozen=True)
class Run:
    """What one command evaluates. Fields are named as the flags of ``harness eval``, which are lm-eval's.

    ``seeds`` are those of ``random``, ``numpy``, ``torch`` and of few-shot draws; the first is the method's too.
    """

    tasks: tuple[str, ...]
    plugin: str | None = None
    method: str | None = None
    method_args: Mapping[str, Any] = field(default_factory=dict)
    model: str = "hf"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    quantization: str = "none"
    num_fewshot: int | None = None
    batch_size: int | str = "auto"
    device: str | None = None
    limit: float | None = None
    samples: Mapping[str, list[int]] | None = None
    seeds: tuple[int | None, int | None, int | None, int | None] = (0, 1234, 1234, 1234)
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    include_path: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    output_path: Path = Path("results")
    log_samples: bool = True
    bootstrap_iters: int = 100_000
    with_baseline: bool = False
    no_cache: bool = False
    timeout_task: float | None = None
    confirm_run_unsafe_code: bool = False

    def words(self) -> list[str]:
        """Return the words of a command line that give this run: what differs from the defaults, and the seeds."""
        words: list[str] = []
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name in {"seeds", "log_samples", "bootstrap_iters"} or value in (part.default, {}, ()):
                continue
            if part.name == "include_path":
                words += [word for path in value for word in _flag(part.name, path)]
            elif value is True:
                words.append(f"--{part.name}")
            else:
                words += _flag(part.name, _flag_text(part.name, value))
        if not self.log_samples:
            words.append("--no-log_samples")
        return [*words, "--seed", ",".join(str(seed) for seed in self.seeds)]

    def command(self) -> str:
        """Return the command line that repeats this run, every given option spelled out, secrets taken out."""
        command = redact(shlex.join(["harness", "eval", *self.words()]))
        return command.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Prepared:
    """A run with everything that could be found and checked before loading weights."""

    run: Run
    plugin: Plugin | None
    method: Method
    tasks: TaskSet
    source: ModelSource


class SomeFailed(Failed):
    """Some of what a run asked for has no score; ``records`` holds what has."""

    def __init__(self, records: list[Record], failures: Sequence[HarnessError]) -> None:
        """Say what failed, all of it."""
        super().__init__("; ".join(str(failure) for failure in failures))
        self.records, self.failures = records, failures
        if not records:
            self.exit_status = max(failure.exit_status for failure in failures)


def evaluate(run: Run) -> list[Record]:
    """Evaluate ``run`` and return its records, those of the baseline first when it was asked for.

    Each task's records are on disk as soon as it has ended. What an interrupted run left is not done again.

    Raises:
        HarnessError: a mistake the user can correct; all that can be found without weights comes before loading them.
        SomeFailed: a task has no score; the others were asked, and their records are on disk.
    """
    from harness.run import baselines
    from harness.run.applying import Applied, apply_method
    from harness.run.asking import Asked, ask
    from harness.run.results import describe_model

    suit_the_terminal()
    prepared = prepare(run)
    lm = load(prepared)
    base, asked = describe_model(lm), Asked()
    if run.with_baseline and not isinstance(prepared.method, methods.Baseline):
        untouched = replace(prepared, run=baselines.baseline_run(run), method=methods.Baseline())
        asked.records += baselines.reusable_records(untouched, base, lm)
        if not asked.records:
            asked.add(ask(untouched, Applied(lm), base))
    applied = apply_method(
        prepared.method,
        lm,
        plugin=prepared.plugin,
        source=prepared.source,
        seed=run.seeds[0] or 0,
        use_cache=not run.no_cache,
    )
    asked.add(ask(prepared, applied, base))
    if len(asked.failures) == 1 and not asked.records:
        raise asked.failures[0]
    if asked.failures:
        raise SomeFailed(asked.records, asked.failures) from asked.failures[0].__cause__
    return asked.records


def prepare(run: Run) -> Prepared:
    """Do every check that needs no weights.

    Raises:
        HarnessError: unknown plugin, method, option, task, model or file; a task the LM cannot answer; a folder that
            cannot be written.
    """
    from harness.run import applying

    plugin, method = find_method(run)
    _check_numbers(run)
    applying.fingerprint(method)
    check_writable(run.output_path)
    if not isinstance(method, methods.Baseline):
        check_writable(cache_folder())
    tasks = _load_tasks(run, plugin, method)
    source = find_model(run)
    return Prepared(run, plugin, method, tasks, source)


def find_method(run: Run) -> tuple[Plugin | None, Method]:
    """Return the plugin and the method a run names, its options set."""
    if run.plugin is None:
        if run.method not in {None, "baseline"} or run.method_args:
            raise HarnessError("--method and --method_args need --plugin NAME (`harness plugins` lists them)")
        return None, methods.Baseline()
    plugin = plugins.load(run.plugin)
    kind = methods.pick(plugin.methods, run.method, plugin=plugin.name)
    return plugin, methods.build(kind, run.method_args)


def find_model(run: Run) -> ModelSource:
    """Return where the model comes from, its configuration and tokenizer checked."""
    if run.model not in MODELS:
        raise HarnessError(
            f"--model '{printable(run.model)}' is unknown; {suggestion(run.model, MODELS)} (API models have no weights "
            "for a method to change; use lm_eval for them)"
        )
    from harness.models import loading

    if run.model == "tokenizer" and run.quantization != "none":
        raise HarnessError("--quantization needs weights, which --model tokenizer does not load")
    source = loading.resolve(run.model_args, quantization=run.quantization, needs_weights=run.model == "hf")
    tokenizer = source.load_tokenizer() if run.model == "tokenizer" else source.check()
    if run.apply_chat_template:
        _check_chat_template(tokenizer, run.apply_chat_template)
    if run.model == "hf":
        loading.pick_device(run.device)
    return source


def load(prepared: Prepared) -> LM:
    """Load the LM of a run."""
    from harness.models import loading

    run, source = prepared.run, prepared.source
    if run.model == "tokenizer":
        from harness.models.tokenizer_only import TokenizerOnly

        return TokenizerOnly(source.load_tokenizer())
    say(f"loading {printable(source.name)}" + ("" if run.quantization == "none" else f" in {run.quantization}"))
    return loading.load_lm(source, device=run.device, batch_size=run.batch_size)


def _load_tasks(run: Run, plugin: Plugin | None, method: Method) -> TaskSet:
    from harness.tasks import finding as tasks

    with limited(run.timeout_task, f"loading {', '.join(map(printable, run.tasks))}"):
        task_set = tasks.load(run.tasks, tasks.folders(plugin, run.include_path), metadata=run.metadata)
        _check_shots(run, task_set)
        sizes = {name: len(task_set.tasks[name].eval_docs) for name in run.samples or {} if name in task_set.tasks}
    if run.model == "tokenizer":
        from harness.models.tokenizer_only import TokenizerOnly

        _check_fit(run, method, task_set, TokenizerOnly)
    elif run.model == "hf":
        from harness.models.causal import CausalLM

        _check_fit(run, method, task_set, CausalLM)
    for name, numbers in (run.samples or {}).items():
        if name not in task_set.tasks:
            raise HarnessError(f"--samples names task '{printable(name)}', which is not among --tasks")
        if max(numbers) >= sizes[name]:
            raise HarnessError(
                f"--samples asks for document {max(numbers)} of '{printable(name)}', which has {sizes[name]}"
            )
    return task_set


def _check_fit(run: Run, method: Method, task_set: TaskSet, lm: type) -> None:
    """Raise when a task asks what neither ``lm`` answers nor what the method will make of it."""
    from harness.tasks import finding as tasks

    tasks.check_fit(task_set.tasks, lm, more=frozenset(getattr(method, "answers", ())))
    if run.with_baseline:
        tasks.check_fit(task_set.tasks, lm, hint="; --with_baseline asks it, too: leave it out")


def _check_chat_template(tokenizer: Any, wanted: bool | str) -> None:
    template = tokenizer.chat_template
    names = [] if template is None else sorted(template) if isinstance(template, dict) else ["default"]
    if not names or (isinstance(wanted, str) and wanted not in names):
        there = f"it has {', '.join(map(printable, names))}" if names else "it has none, as is usual for base models"
        raise HarnessError(
            f"--apply_chat_template finds no chat template in the tokenizer; {there}; leave the flag out"
        )


def _check_shots(run: Run, task_set: TaskSet) -> None:
    """Raise when more shots are asked for than a task has; a task that fixes 0 ignores the flag."""
    for name, task in task_set.tasks.items():
        if not run.num_fewshot or getattr(task.config, "num_fewshot", None) == 0:
            continue
        try:
            available = len(list(task.fewshot_docs()))
        except Exception:  # a task without few-shot documents says so in its own way
            available = 0
        if available < run.num_fewshot:
            raise HarnessError(
                f"--num_fewshot asks for {run.num_fewshot} shots, but task '{printable(name)}' has {available}"
            )


def _check_numbers(run: Run) -> None:
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


def _flag(name: str, text: str) -> list[str]:
    """Return a flag with its value; joined by = where the value would look like a flag of its own."""
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _flag_text(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        typed = name in {"gen_kwargs", "metadata"}  # text there is told from numbers by its quotes
        plain = all(
            isinstance(v, str | int | float | bool) and not set(str(v)) & set(",=[]{}'\" ") for v in value.values()
        )
        return (
            ",".join(f"{k}={v}" for k, v in value.items())
            if plain and not typed
            else json.dumps(dict(value), default=str)
        )
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
