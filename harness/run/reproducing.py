"""Run a record again on random documents of it, and say whether the same comes out."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import aggregation, ledger, samples
from harness.run.named_code import refuse_unnamed
from harness.verifying import agreement

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.preparing import Prepared
    from harness.run.run import Run
    from harness.verifying.agreement import Agreement, Tolerance


@dataclass(frozen=True)
class Reproduction:
    """What came out.

    ``documents``: the numbers of those asked again. ``found`` is None where the record has no samples, and the scores of
    ``then`` (over all documents) and ``now`` are compared. ``versions``: what is another here, as (then, now) by name.
    """

    record: Record
    seed: int
    documents: list[int]
    of: int
    tolerance: Tolerance
    found: Agreement | None
    then: dict[str, float]
    now: dict[str, float]
    versions: dict[str, tuple[Any, Any]]
    reused: bool
    agrees: bool
    verdict: str


def reproduce(
    record: Record,
    file: Path,
    run: Run,
    *,
    limit: int,
    seed: int,
    output: Path | None = None,
    given: Mapping[str, Collection[str]] = MappingProxyType({}),
    takes_other_code: bool = False,
) -> Reproduction:
    """Ask ``limit`` random documents of a record's task again, with the method applied anew, and compare.

    Args:
        record: of a task, read from ``file``.
        run: what made it, by its command, perhaps with another place for the model; its tasks, options and seeds are
            replaced by the record's.
        seed: draws the documents.
        output: keeps the files of the new run; a temporary folder by default.
        given: what the user named, by flag: code that the record alone names is not run.
        takes_other_code: goes on where the plugin's code is another than the record's, which is told.

    Raises:
        HarnessError: the model, plugin or a file is not there, or is another than the record says; the record names no
            documents to draw from.
    """
    refuse_unnamed(record, run, given)
    path = samples.find(record, file)
    numbers = _documents(record, path)
    drawn = sorted(random.Random(seed).sample(numbers, min(limit, len(numbers))))
    with ExitStack() as stack:
        folder = output or Path(stack.enter_context(TemporaryDirectory(prefix="harness-reproduce-")))
        again = _repeated(record, run, drawn, folder)
        new, reused = _again(record, again, numbers, drawn, takes_other_code=takes_other_code)
        tolerance = agreement.tolerance_for(record, new[0].environment)
        rows_now = _rows(samples.find(new[0], folder / str(new[0].run) / "records.jsonl"), set(drawn))
        rows_then = _rows(path, set(drawn))
    versions = _differing_versions(record, new[0])
    shared: dict[str, Any] = {
        "record": record, "seed": seed, "documents": drawn, "of": len(numbers), "tolerance": tolerance,
        "versions": versions, "reused": reused,
    }  # fmt: skip
    if rows_then and not agreement.is_drawn(rows_then.values()):
        found = agreement.compare_rows(rows_then, rows_now, tolerance)
        is_good = agreement.agrees(found, tolerance)
        verdict = _verdict_by_documents(found, of=len(numbers), is_good=is_good)
        then, now = _scores(new, rows_then), _scores(new, rows_now)
        return Reproduction(found=found, then=then, now=now, agrees=is_good, verdict=verdict, **shared)
    return _by_score(record, new, shared)


def check_same(record: Record, prepared: Prepared, *, takes_other_code: bool = False) -> None:
    """Raise ``HarnessError`` where what is here is not what the record was made with; no weights are read for it."""
    from harness.redaction import redact_json
    from harness.run.identity import Deciding

    source, decides = prepared.source, Deciding(prepared)
    if source.digest != record.model.digest:
        raise HarnessError(
            f"the model here is not the record's: its digest is {printable(source.digest)[:12]}, the record says "
            f"{printable(record.model.digest)[:12]}; give the right one with --model_args pretrained=..."
        )
    _check_tokenizer(record, record.model.tokenizer_digest, source.load_tokenizer(), "the model comes with")
    there, here = record.plugin.code_digest, decides.plugin["code_digest"]
    if not takes_other_code and None not in (there, here) and there != here:
        raise HarnessError(
            f"the code of plugin '{printable(record.plugin.name)}' here is not the record's: its digest is {here}, the record "
            f"says {printable(there)} (version {printable(record.plugin.version)}); install that one, or go on with --other_code"
        )
    inputs = decides.inputs[:16] or None
    if record.method.inputs is not None and inputs != record.method.inputs:
        raise HarnessError(
            f"the files that the options of '{printable(record.method.name)}' name are not those of the record: their "
            f"digest is {inputs}, the record says {printable(record.method.inputs)}"
        )
    from harness.methods.options import resolved_options

    options = redact_json(resolved_options(prepared.method))
    unlike = sorted(name for name, value in record.method.options.items() if options.get(name) != value)
    if unlike and not all(isinstance(record.method.options[name], str) for name in unlike):
        raise HarnessError(
            f"option '{printable(unlike[0])}' is not as in the record, so it would not be the same method"
        )
    task = prepared.tasks.tasks.get(record.task.name)
    if task is None or str(task.VERSION) != record.task.version:
        here = "not there" if task is None else f"of version {task.VERSION}"
        raise HarnessError(
            f"task '{printable(record.task.name)}' is {here}, the record is of version {printable(record.task.version)}"
        )


def _check_tokenizer(record: Record, digest: str | None, tokenizer: Any, whose: str) -> None:
    """Raise where a tokenizer is another than the record's; other versions may write the same rules in another way."""
    from importlib.metadata import version

    from harness.models.identity import tokenizer_digest

    here = tokenizer_digest(tokenizer)
    if digest is not None and here != digest and record.environment.transformers == version("transformers"):
        raise HarnessError(
            f"the tokenizer that {whose} is not the record's: its digest is {here[:12]}, the record says "
            f"{printable(digest)[:12]}; give the right one with --model_args tokenizer=..."
        )


def _repeated(record: Record, run: Run, drawn: Sequence[int], folder: Path) -> Run:
    """Return the run of one task, as the record says it was, on some of its documents."""
    is_baseline, seeds = record.is_baseline, record.seeds
    return replace(
        run,
        tasks=(record.task.name,),
        plugin=run.plugin if is_baseline else record.plugin.name,
        method=("baseline" if run.plugin else None) if is_baseline else record.method.name,
        method_args={} if is_baseline else dict(record.method.options) | dict(run.method_args),
        quantization=record.model.quantization,
        seeds=(seeds.random, seeds.numpy, seeds.torch, seeds.fewshot),
        limit=None,
        samples={record.task.name: list(drawn)},
        output_path=folder,
        log_samples=True,
        with_baseline=False,
    )


def _again(
    record: Record, run: Run, numbers: Sequence[int], drawn: Sequence[int], *, takes_other_code: bool
) -> tuple[list[Record], bool]:
    """Return the new records of the task, and whether an earlier run's work of the method was found."""
    from harness.progress import suit_the_terminal
    from harness.run.applying import apply_to
    from harness.run.asking import ask
    from harness.run.identity import describe_model
    from harness.run.preparing import load, prepare

    suit_the_terminal()
    prepared = prepare(run)
    check_same(record, prepared, takes_other_code=takes_other_code)
    if record.settings.num_fewshot:
        _draw_examples_in_order(prepared.tasks.tasks[record.task.name], numbers, drawn)
    lm = load(prepared)
    base = describe_model(lm)
    if base["dtype"] != record.model.dtype:
        raise HarnessError(f"the model is {base['dtype']} here, {printable(record.model.dtype)} in the record")
    applied = apply_to(prepared, lm)
    _check_tokenizer(record, record.tokenizer.digest, applied.lm.tokenizer, "the method gives")
    asked = ask(prepared, applied, base)
    if asked.failures:
        raise asked.failures[0]
    return asked.records, applied.reused


def _draw_examples_in_order(task: Any, numbers: Sequence[int], drawn: Sequence[int]) -> None:
    """Give each drawn document the examples it had: lm-eval draws them document after document from one generator."""
    original: Callable[..., Any] = task.fewshot_context
    docs, chosen, rest = list(task.eval_docs), set(drawn), iter(sorted(numbers))

    def with_those_between(doc: Any, *args: Any, **kwargs: Any) -> Any:
        for number in rest:
            if number in chosen:
                break
            original(docs[number], *args, **kwargs)
        return original(doc, *args, **kwargs)

    task.fewshot_context = with_those_between


def _documents(record: Record, path: Path | None) -> list[int]:
    """Return the numbers of the documents a record is over."""
    if path is not None:
        numbers = list(dict.fromkeys(row.get("doc_id") for row in samples.rows(path)))
        if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
            raise HarnessError(f"the samples in '{printable(path)}' do not number their documents")
        return [number for number in numbers if isinstance(number, int)]
    if record.settings.samples_digest is not None:
        raise HarnessError(
            "the record is over documents picked by --samples, and its sample file, which names them, is gone"
        )
    return list(range(record.counts.docs))


def _rows(path: Path | None, numbers: set[int]) -> dict[tuple[str, str], dict[str, Any]]:
    if path is None:
        return {}
    kept = (row for row in samples.rows(path) if row.get("doc_id") in numbers)
    return {(str(row.get("doc_id")), str(row.get("filter", "none"))): row for row in kept}


def _scores(new: Sequence[Record], rows: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, float]:
    """Return the score of each metric over ``rows``, computed as the records of ``new`` say; those that can be."""
    found = {}
    for record in new:
        metric, chosen = record.metric.name, record.metric.filter
        values = [row[metric] for (_, name), row in rows.items() if name == chosen and metric in row]
        with suppress(aggregation.NotRecomputableError):
            label = metric if chosen == "none" else f"{metric} ({chosen})"
            found[label] = aggregation.score(values, record.metric.aggregation or "mean")
    return found


def _by_score(record: Record, new: Sequence[Record], shared: Mapping[str, Any]) -> Reproduction:
    """Compare the whole score then with that over some documents now: all that is left without comparable answers."""
    same = [n for n in new if (n.metric.name, n.metric.filter) == (record.metric.name, record.metric.filter)]
    if not same or same[0].value is None or record.value is None:
        raise HarnessError(f"there is no score of {printable(record.metric.name)} to compare")
    docs, of, now = len(shared["documents"]), shared["of"], same[0].value
    close = agreement.is_close(record.value, now, error=record.stderr, docs=docs, of=of)
    what = f"{now:.4f} over {docs} documents now, {record.value:.4f} over {of} then"
    verdict = {
        True: f"agrees as far as a score can tell: {what}",
        False: f"does NOT agree: {what}",
        None: f"cannot be told: {what}, without answers or a standard error; ask all of them with --limit {of}",
    }[close]
    name = record.metric.name
    return Reproduction(
        found=None, then={name: record.value}, now={name: now}, agrees=close is True, verdict=verdict, **shared
    )


def _verdict_by_documents(found: Agreement, *, of: int, is_good: bool) -> str:
    if found.other_documents:
        return f"does NOT agree: {found.other_documents} of {found.docs} documents are others here; the data changed"
    if found.other_prompts:
        return f"does NOT agree: {found.other_prompts} of {found.docs} documents were asked otherwise; the task changed"
    most = agreement.most_that_can_differ(len(found.differing), found.docs, of)
    certain = "" if found.docs >= of else ", with 95% confidence"
    reach = f"at most {most} of all {of} can differ ({most / of:.1%}{certain})"
    if is_good:
        alike = "all" if not found.differing else f"{found.docs - len(found.differing)}"
        return f"agrees: {alike} of {found.docs} documents come out the same; {reach}"
    shown = ", ".join(found.differing[:10])
    return f"does NOT agree: {len(found.differing)} of {found.docs} documents come out otherwise (doc {shown})"


def _differing_versions(then: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    from harness.run.identity import ENVIRONMENT, asked_by

    names = [name for name in asked_by("reproduce") if name in ENVIRONMENT]
    pairs = {name: (getattr(then.environment, name), getattr(now.environment, name)) for name in names}
    pairs["plugin"] = (then.plugin.version, now.plugin.version)
    pairs["plugin code"] = (then.plugin.code_digest, now.plugin.code_digest)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and pair[0] is not None}


def choose(
    reading: ledger.Reading, *, key: str | None, task: str | None, method: str | None, run: str | None = None
) -> tuple[Record, Path]:
    """Return the one record that is meant, and the file it stands in.

    Raises:
        HarnessError: none or several; the choices are named.
    """
    pairs = list(zip(reading.records, reading.origins, strict=True))
    wanted = [
        (record, origin)
        for record, origin in pairs
        if (key is None or record.key().startswith(key))
        and (task is None or record.task.name == task)
        and (method is None or record.method.name == method)
        and (run is None or str(record.run).startswith(run))
    ]
    single = [(record, origin) for record, origin in wanted if not record.task.group and record.value is not None]
    runs = {record.run_key(): (record, origin) for record, origin in reversed(single)}
    if len(runs) == 1:
        record, origin = next(iter(runs.values()))
        return record, origin.file
    if not runs and wanted:
        name, members = printable(wanted[0][0].task.name), wanted[0][0].task.members
        if not wanted[0][0].task.group:
            raise HarnessError(f"'{name}' has no score in this record, so there is nothing to compare with")
        raise HarnessError(
            f"'{name}' is a group; reproduce one of its tasks: {', '.join(map(printable, members or []))}"
        )
    choices = list(reversed(runs.values())) or [pair for pair in pairs if not pair[0].task.group]
    named = [
        f"{r.key()} ({printable(r.method.name)}, {printable(r.task.name)}, seed {r.seeds.random}, run {printable(r.run)})"
        for r, _ in choices
    ]
    several = "; ".join([*named[:8], *([f"and {len(named) - 8} more"] if len(named) > 8 else [])])
    what = "several records fit" if runs else "no record fits"
    raise HarnessError(f"{what}; choose with --key, --run, --task or --method: {several or 'there are none'}")
