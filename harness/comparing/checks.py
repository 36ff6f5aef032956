"""What does not compare: the records of a task on two sides, and the first field that keeps them apart."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence, Set
from typing import Any

from harness.comparing.selectors import Sourced
from harness.comparing.sides import Side
from harness.errors import HarnessError
from harness.names import printable
from harness.records.record import Record

# Fields that may differ when the user says so, by the word for it (``--across``). Settings stand under their own names.
ACROSS = {
    "model": {
        "model.name",
        "model.digest",
        "model.tokenizer_digest",
        "model.adapter",
        "model.prefix_token_id",
        "tokenizer.prefix_token_id",
        "settings.model_args",
    },
    "dtype": {"model.dtype"},
    "quantization": {"model.quantization", "model.dtype"},
    "adapter": {"model.adapter", "model.digest"},
    "prefix_token": {"tokenizer.prefix_token_id", "model.prefix_token_id"},
    "tokenizer": {"model.tokenizer_digest", "tokenizer.prefix_token_id", "model.prefix_token_id"},
    "prompts": {"task.prompts_digest", "seeds.fewshot"},
}
# A word is only advised where this one of its fields differs: the others follow from it.
NAMING = {
    "adapter": "model.adapter", "tokenizer": "model.tokenizer_digest", "quantization": "model.quantization",
}  # fmt: skip
# Of ``settings.model_args``, what has a field of its own.
OWN_FIELDS = {"peft", "prefix_token_id"}
STATED_IN = dict.fromkeys(("model.adapter", "model.prefix_token_id"), "settings.model_args")
# What changes when the documents do.
DRIFTING = {"task.docs_digest", "task.prompts_digest"}
LIMITS = {"settings.limit", "settings.samples_digest"}
# Not every record says these: older harnesses, or tasks without documents of their own.
OPTIONAL = DRIFTING | {"model.tokenizer_digest", "tokenizer.prefix_token_id"}
Difference = tuple[str, Any, Any]
SEEDED = frozenset({"seeds.fewshot"})
# Whoever compares results of other tools compares models: their files tell of no method, and seldom enough of the weights.
OF_FOREIGN = {"model", "dtype", "quantization"}
# Prompts are other ones when shots or template are.
OF_PROMPTS = {"settings.num_fewshot", "settings.apply_chat_template", "settings.system_instruction"}


def across_fields(words: Collection[str], sides: Sequence[Side]) -> frozenset[str]:
    """Return the fields that may differ: those the user names, and those that the selectors of all sides name.

    Raises:
        HarnessError: a word is no such field.
    """
    settings = {name for side in sides for name in type(side.first.settings).model_fields}
    implied = set.intersection(*(set(side.named) for side in sides)) & set(ACROSS) if sides else set()
    if any(side.first.foreign is not None for side in sides):
        implied |= OF_FOREIGN
    fields: set[str] = set()
    for word in {*words, *implied}:
        if word not in ACROSS and word not in settings - {"limit", "samples_digest"}:
            known = ", ".join([*ACROSS, *sorted(settings - {"limit", "samples_digest"})])
            raise HarnessError(f"--across '{printable(word)}' is no field that may differ; those are {known}")
        fields |= _fields_of(word)
    return frozenset(fields)


def _fields_of(word: str) -> set[str]:
    """Return the fields that may differ with a word of ``--across``."""
    fields = ACROSS.get(word, {f"settings.{word}"})
    return fields | (ACROSS["prompts"] if fields & OF_PROMPTS else set())


def agreeing_records(
    task: str, first: Side, second: Side, *, across: Collection[str], allow_drift: bool
) -> tuple[list[Sourced], list[Sourced]]:
    """Return the records of ``task`` on both sides that compare; where there are several sets, the one of most documents.

    Raises:
        HarnessError: there are none; the sentence names the field that differs and both values.
    """
    ignored = set(across) | (DRIFTING if allow_drift else set())
    ours, theirs = _by_ground(task, first, ignored), _by_ground(task, second, ignored)
    best: tuple[int, int, list[Sourced], list[Sourced]] | None = None
    nearest: tuple[list[Difference], list[Sourced], list[Sourced]] | None = None
    for a in ours:
        for b in theirs:
            differing = _differences(a, b, ignored)
            docs = a[0].record.counts.docs
            if not differing and (best is None or docs > best[0]):
                best = (docs, 0, a, b)
            elif differing and (nearest is None or len(differing) < len(nearest[0])):
                nearest = (differing, a, b)
    if best is None:
        assert nearest is not None
        differing, a, b = nearest
        advice = _advice(a, b, ignored, is_alone=_is_alone(task, first, second))
        raise HarnessError(_refusal(task, first, second, differing, advice))
    for side, records in ((first, best[2]), (second, best[3])):
        _check_valid(task, side, records, ignored)
    return best[2], best[3]


def agreeing_fields(record: Record) -> dict[str, Any]:
    """Return what has to agree for two records to be compared, by name, in the order in which it is told."""
    task, model = record.task, record.model
    settings = record.settings.model_dump(mode="json")
    return {
        "task.version": task.version,
        "task.group": task.group,
        **{f"settings.{name}": value for name, value in settings.items() if name != "model_args"},
        "settings.model_args": {name: v for name, v in settings["model_args"].items() if name not in OWN_FIELDS},
        "model.adapter": settings["model_args"].get("peft"),
        "model.name": model.name,
        "model.quantization": model.quantization,
        "model.dtype": model.dtype,
        "model.digest": model.digest,
        "model.tokenizer_digest": model.tokenizer_digest,
        "tokenizer.prefix_token_id": record.tokenizer.prefix_token_id,
        "model.prefix_token_id": settings["model_args"].get("prefix_token_id"),
        "task.docs_digest": task.docs_digest,
        # Shots are drawn by seed, so their prompts are compared as a set, seed by seed.
        **({} if record.fewshot_seed is not None else {"task.prompts_digest": task.prompts_digest}),
    }


def _by_ground(task: str, side: Side, ignored: Collection[str]) -> list[list[Sourced]]:
    """Return the records of a task in sets that agree with one another."""
    sets: dict[str, list[Sourced]] = {}
    for sourced in side.records:
        if sourced.record.task.name == task:
            fields = {name: v for name, v in agreeing_fields(sourced.record).items() if name not in ignored}
            sets.setdefault(json.dumps(fields, sort_keys=True, default=str), []).append(sourced)
    return list(sets.values())


def _differences(first: Sequence[Sourced], second: Sequence[Sourced], ignored: Collection[str]) -> list[Difference]:
    """Return the fields in which two sets of records differ, with both values."""
    found = differences(first[0].record, second[0].record, ignored)
    if "seeds.fewshot" not in ignored and not found:
        found += [one for one in _shot_differences(first, second) if one[0] not in ignored]
    return found


def differences(first: Record, second: Record, ignored: Collection[str] = ()) -> list[Difference]:
    """Return the fields in which two records differ that have to agree, with both values; the seeds of shots left out."""
    ours, theirs, records = agreeing_fields(first), agreeing_fields(second), (first, second)
    if any(record.foreign is not None for record in records):
        ignored = _of_foreign(records, ignored)
    if ours["task.docs_digest"] and ours["task.docs_digest"] == theirs["task.docs_digest"]:
        ignored = {*ignored, *LIMITS}  # a limit that cut nothing: the documents are the same
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(name), theirs.get(name)
        unknown = (name in OPTIONAL and (a is None or b is None)) or not all(
            record.states(STATED_IN.get(name, name)) for record in records
        )
        if a != b and not unknown and name not in ignored:
            found.append((name, a, b))
    return found


def _of_foreign(records: Sequence[Record], ignored: Collection[str]) -> set[str]:
    """Return what need not agree of records of which another tool measured one."""
    found = set(ignored) | (LIMITS if set(ignored) >= DRIFTING else set())
    if all(record.samples is not None for record in records):
        found.add("task.docs_digest")  # documents are paired one by one, which tells how many both have
    if any(record.settings.apply_chat_template for record in records):
        found.add("task.prompts_digest")  # a chat template is the model's own
    return found


def _shot_differences(first: Sequence[Sourced], second: Sequence[Sourced]) -> list[Difference]:
    if not all(sourced.record.states("seeds.fewshot") for sourced in (*first, *second)):
        return []
    drawn = [{sourced.record.fewshot_seed for sourced in records} for records in (first, second)]
    if drawn[0] != drawn[1]:
        return [("seeds.fewshot", sorted(map(str, drawn[0])), sorted(map(str, drawn[1])))]
    asked = [{(s.record.fewshot_seed, s.record.task.prompts_digest) for s in records} for records in (first, second)]
    known = all(digest for prompts in asked for _, digest in prompts)
    if known and asked[0] != asked[1]:
        ours, theirs = (sorted(str(digest) for _, digest in prompts) for prompts in asked)
        return [("task.prompts_digest", ours, theirs)]
    return []


def _check_valid(task: str, side: Side, chosen: Sequence[Sourced], ignored: Set[str]) -> None:
    """Raise when a seed of what was chosen has no score: an average over the others would hide that."""
    for sourced in side.records:
        record = sourced.record
        if (
            record.task.name == task
            and record.value is None
            and not _differences([sourced], chosen[:1], ignored | SEEDED)
        ):
            count = f"{record.counts.not_finite} requests gave" if record.counts.not_finite else "the model gave"
            raise HarnessError(
                f"task '{printable(task)}' of '{printable(side.label)}' is invalid: {count} no finite number; run it again "
                "in another dtype, or leave the task out with --tasks"
            )


def _refusal(task: str, first: Side, second: Side, differing: Sequence[Difference], advice: str) -> str:
    field, ours, theirs = differing[0]
    more = f" (and {len(differing) - 1} more: {', '.join(named(name) for name, _, _ in differing[1:4])})"
    return (
        f"task '{printable(task)}' does not compare: {named(field)} is {shown(ours)} in '{printable(first.label)}' and "
        f"{shown(theirs)} in '{printable(second.label)}'{more if len(differing) > 1 else ''}; {advice}"
    )


def _advice(ours: Sequence[Sourced], theirs: Sequence[Sourced], ignored: Collection[str], *, is_alone: bool) -> str:
    """Return what to do about two sets of records that differ: flags were tried, so that with them these do compare."""
    advice = "compare runs that agree" + ("" if is_alone else ", or leave the task out with --tasks")
    words, fields = list[str](), set(ignored)
    while differing := _differences(ours, theirs, fields):
        names = {name for name, _, _ in differing}
        names -= DRIFTING if "task.docs_digest" in names else set()
        word = word_for(names) if names else None
        if word is None:
            break
        words.append(word)
        fields |= _fields_of(word)
    is_whole = not _differences(ours, theirs, fields)
    across = f"--across {','.join(words)}"
    if is_whole:
        return f"{advice}; if that is what you compare, add {across}"
    if not _differences(ours, theirs, fields | DRIFTING):
        flags = " ".join(([across] if words else []) + ["--allow-drift"])
        return f"{advice}; {flags} compares the documents both have"
    return advice


def word_for(fields: Set[str]) -> str | None:
    """Return the word of ``--across`` that lets most of these fields differ, and the fewest others; None where none does."""
    words = [word for word in ACROSS if NAMING.get(word) in fields or (word not in NAMING and fields & ACROSS[word])]
    names = {name.removeprefix("settings.") for name in fields if name.startswith("settings.")}
    words += sorted(names - {"limit", "samples_digest"})
    return max(words, key=lambda word: (len(fields & _fields_of(word)), -len(_fields_of(word))), default=None)


def _is_alone(task: str, first: Side, second: Side) -> bool:
    """Whether the sides share no other task."""
    ours, theirs = ({s.record.task.name for s in side.records} for side in (first, second))
    return not (ours & theirs) - {task}


def named(field: str) -> str:
    """Return a field as people and ``--across`` call it."""
    return field.removeprefix("settings.")


def shown(value: Any) -> str:
    """Return a value as a sentence has it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return printable(", ".join(map(str, value)) or "none")
    if isinstance(value, float):
        return f"{value:g}"
    text = json.dumps(value, sort_keys=True, default=str) if isinstance(value, dict) else str(value)
    return printable(text if len(text) <= 60 else text[:57] + "...")
