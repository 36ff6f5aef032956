"""Run, and evaluate(run): from what a command asks to the records it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import methods, plugins
from harness.errors import HarnessError
from harness.folders import check_writable
from harness.names import printable, suggestion
from harness.progress import quiet, say, suit_the_terminal
from harness.records import ledger

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.applying import Applied
    from harness.methods import Method
    from harness.models.loading import ModelSource
    from harness.plugins import Plugin
    from harness.records.record import Record
    from harness.tasks import TaskSet

MODELS = ("hf", "tokenizer")


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
    batch_size: int | str = 8
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
    write_out: bool = False
    confirm_run_unsafe_code: bool = False

    def flags(self) -> dict[str, Any]:
        """Return the flags, with their values as text, that give this run: those that differ from the defaults."""
        given: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if value == (Run.__dataclass_fields__[part.name].default) or value == {} or value == ():
                continue
            given[part.name] = _flag_text(value)
        given["seed"] = ",".join(str(seed) for seed in self.seeds)
        given.pop("seeds", None)
        if not self.log_samples:
            given["no-log_samples"] = True
            del given["log_samples"]
        return given


@dataclass(frozen=True)
class Prepared:
    """A run with everything that could be found and checked before loading weights."""

    run: Run
    plugin: Plugin | None
    method: Method
    tasks: TaskSet
    source: ModelSource


def evaluate(run: Run) -> list[Record]:
    """Evaluate ``run`` and return its records, those of the baseline first when it was asked for.

    Raises:
        HarnessError: a mistake the user can correct; all that can be found without weights comes before loading them.
    """
    from harness.applying import Applied, apply_method
    from harness.results import describe_model

    suit_the_terminal()
    prepared = prepare(run)
    lm = load(prepared)
    base = describe_model(lm)
    records: list[Record] = []
    if run.with_baseline and not _is_baseline(prepared):
        untouched = replace(prepared, run=baseline_run(run), method=methods.Baseline())
        records += reusable_records(untouched, base) or _score(untouched, Applied(lm), base)
    applied = (
        Applied(lm, weights_changed=0)
        if _is_baseline(prepared)
        else apply_method(
            prepared.method, lm, plugin=prepared.plugin, source=prepared.source, seed=run.seeds[0] or 0,
            use_cache=not run.no_cache,
        )
    )  # fmt: skip
    return records + _score(prepared, applied, base)


def prepare(run: Run) -> Prepared:
    """Do every check that needs no weights.

    Raises:
        HarnessError: unknown plugin, method, option, task, model or file; a task the LM cannot answer; a folder that
            cannot be written.
    """
    plugin, method = find_method(run)
    _check_numbers(run)
    if not _is_baseline_method(method):
        from harness.applying import fingerprint

        fingerprint(method)
    check_writable(run.output_path)
    tasks = _load_tasks(run, plugin)
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
    source = loading.resolve(run.model_args, quantization=run.quantization)
    source.load_tokenizer() if run.model == "tokenizer" else source.check()
    if run.model == "hf":
        loading.pick_device(run.device)
    return source


def load(prepared: Prepared) -> LM:
    """Load the LM of a run and check that it can answer what the tasks ask."""
    from harness import tasks
    from harness.models import loading

    run, source = prepared.run, prepared.source
    if run.model == "tokenizer":
        from harness.models.tokenizer_only import TokenizerOnly

        return TokenizerOnly(source.load_tokenizer())
    say(f"loading {printable(source.name)}" + ("" if run.quantization == "none" else f" in {run.quantization}"))
    lm = loading.load_lm(source, device=run.device, batch_size=run.batch_size)
    tasks.check_fit(prepared.tasks.tasks, lm)
    return lm


def baseline_run(run: Run) -> Run:
    """Return the run that evaluates the untouched model on the same tasks."""
    return replace(run, method="baseline" if run.plugin else None, method_args={}, with_baseline=False, no_cache=False)


def reusable_records(prepared: Prepared, base: Mapping[str, Any]) -> list[Record]:
    """Return the baseline's records of an earlier run into the same folder, or nothing when one is missing.

    A record serves when model, tasks with their versions, settings and the versions of the software all agree.
    """
    from harness.records.environment import environment
    from harness.results import _settings

    run, path = prepared.run, prepared.run.output_path / ledger.RECORDS_FILE
    if not path.is_file():
        return []
    here = environment("cpu").model_dump(include={"torch", "transformers", "lm_eval", "harness_commit", "harness"})
    if str(here["harness_commit"]).endswith("-dirty"):
        return []  # the code that made the old record cannot be known
    wanted = {**prepared.tasks.tasks, **prepared.tasks.groups}
    found: list[Record] = []
    for record in ledger.read_file(path).records:
        task = wanted.get(record.task.name)
        if task is None or not record.is_baseline or record.model.digest != prepared.source.digest:
            continue
        settings = _settings(run, record.settings.num_fewshot)
        same = [
            record.model.quantization == run.quantization,
            record.model.dtype == base["dtype"],
            record.settings == settings and (run.num_fewshot in {None, record.settings.num_fewshot}),
            record.fewshot_seed in {None, run.seeds[3]},
            record.environment.model_dump(include=set(here)) == here,
            record.task.group or record.task.docs_digest == _docs_digest_of(task, run),
        ]
        if all(same):
            found.append(record)
    if {record.task.name for record in found} < set(prepared.tasks.tasks):
        return []
    if found:
        say(f"the baseline's records of an earlier run are reused ({printable(path)})")
    return found


def _score(prepared: Prepared, applied: Applied, base: Mapping[str, Any]) -> list[Record]:
    """Ask and score with lm-eval, save, and return the records."""
    from lm_eval.loggers import EvaluationTracker

    from harness import tasks
    from harness.records.environment import measured_peak
    from harness.results import make_records, save

    lm: Any = applied.lm
    tasks.check_fit(prepared.tasks.tasks, lm)
    tasks.give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    say(f"evaluating {printable(prepared.method.name)} on {', '.join(map(printable, prepared.tasks.requested))}")
    tracker, started = EvaluationTracker(), time.monotonic()
    with measured_peak(str(getattr(lm, "device", "cpu"))) as peak:
        results = _simple_evaluate(prepared, lm, tracker)
    records = make_records(
        results, run=prepared.run, plugin=prepared.plugin, method=prepared.method, source=prepared.source,
        applied=applied, base=base, seconds=time.monotonic() - started, peak_bytes=peak.bytes,
    )  # fmt: skip
    if getattr(lm, "truncated", 0):
        say(f"{lm.truncated} requests were longer than the context of {lm.max_length} tokens and were cut on the left")
    try:
        return save(results, records, tracker, prepared.run, applied)
    except HarnessError:
        from harness.summary import print_summary

        print_summary(records, [])  # the scores must not die with the disk
        raise


def _simple_evaluate(prepared: Prepared, lm: Any, tracker: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    run = prepared.run
    lm.truncated = 0
    with quiet("lm_eval"), _without_git_noise():
        results: dict[str, Any] = simple_evaluate(
            model=lm,
            model_args={"pretrained": prepared.source.name},
            tasks=list(prepared.tasks.built),
            task_manager=prepared.tasks.manager,
            num_fewshot=run.num_fewshot,
            batch_size=run.batch_size,
            device=str(getattr(lm, "device", "cpu")),
            limit=run.limit,
            samples=dict(run.samples) if run.samples else None,
            bootstrap_iters=run.bootstrap_iters,
            write_out=run.write_out,
            log_samples=True,
            evaluation_tracker=tracker,
            system_instruction=run.system_instruction,
            apply_chat_template=run.apply_chat_template,
            fewshot_as_multiturn=run.fewshot_as_multiturn,
            gen_kwargs=dict(run.gen_kwargs) or None,
            random_seed=run.seeds[0],
            numpy_random_seed=run.seeds[1],
            torch_random_seed=run.seeds[2],
            fewshot_random_seed=run.seeds[3],
            confirm_run_unsafe_code=run.confirm_run_unsafe_code,
        )
    return results


@contextmanager
def _without_git_noise() -> Iterator[None]:
    """Outside a repository lm-eval's question for a commit makes git print an error; there the answer is None anyway."""
    from lm_eval import evaluator

    cwd = Path.cwd()
    if any((folder / ".git").exists() for folder in [cwd, *cwd.parents]):
        yield
        return
    original = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = original


def _load_tasks(run: Run, plugin: Plugin | None) -> TaskSet:
    from harness import tasks

    task_set = tasks.load(run.tasks, tasks.folders(plugin, run.include_path), metadata=run.metadata)
    if run.model == "tokenizer":
        from harness.models.tokenizer_only import TokenizerOnly

        tasks.check_fit(task_set.tasks, TokenizerOnly)
    elif run.model == "hf":
        from harness.models.causal import CausalLM

        tasks.check_fit(task_set.tasks, CausalLM)
    for name in run.samples or {}:
        if name not in task_set.tasks:
            raise HarnessError(f"--samples names task '{printable(name)}', which is not among --tasks")
    return task_set


def _check_numbers(run: Run) -> None:
    if run.limit is not None and run.samples is not None:
        raise HarnessError("--limit and --samples exclude each other; give one of them")
    if run.limit is not None and not (run.limit >= 1 and float(run.limit).is_integer()) and not 0 < run.limit < 1:
        raise HarnessError(
            f"--limit {run.limit:g} is neither a number of documents (1 or more) nor a share between 0 and 1"
        )
    if run.num_fewshot is not None and run.num_fewshot < 0:
        raise HarnessError(f"--num_fewshot is {run.num_fewshot}; it has to be 0 or more")
    size = run.batch_size
    is_auto = isinstance(size, str) and (size == "auto" or size.startswith("auto:"))
    if not is_auto and (not isinstance(size, int) or size < 1):
        raise HarnessError(f"--batch_size is '{printable(size)}'; it has to be a whole number of 1 or more, or auto")


def _docs_digest_of(task: Any, run: Run) -> str | None:
    """Return the digest of the documents that ``run`` would ask of ``task``, as a record of it holds."""
    from lm_eval.evaluator_utils import get_sample_size
    from lm_eval.utils import handle_non_serializable, hash_string

    from harness.results import _joined

    with suppress(Exception):  # a task of an unusual kind is evaluated again rather than trusted
        indices = run.samples.get(task.config.task) if run.samples else None
        limit = get_sample_size(task, run.limit)
        docs = task.doc_iterator(rank=0, limit=limit, world_size=1, samples=indices)
        hashes = [
            hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))
            for _, doc in docs
        ]
        return _joined([_joined(hashes)])
    return None


def _is_baseline(prepared: Prepared) -> bool:
    return _is_baseline_method(prepared.method)


def _is_baseline_method(method: Method) -> bool:
    return isinstance(method, methods.Baseline)


def _flag_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = all(
            isinstance(v, str | int | float | bool) and not set(str(v)) & set(",=[]{}'\" ") for v in value.values()
        )
        return ",".join(f"{k}={v}" for k, v in value.items()) if plain else json.dumps(dict(value), default=str)
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
