"""What a paper's section on methods has to say of scores, from their records alone, with what to cite."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.board.seed_files import SeedFiles
from harness.board.tables import Board, Score
from harness.exports import references
from harness.exports.formats import latex
from harness.exports.references import LM_EVAL, LM_EVAL_TOOL, OWN, PEFT, QUANTIZATIONS, TRANSFORMERS, References
from harness.names import counted, printable
from harness.records.grouping import weights_label
from harness.records.intervals import NORMAL
from harness.records.labels import method_label, model_label
from harness.records.record import UNKNOWN, Record

# Of a digest: enough to find the record by.
DIGITS = 12
# Settings and tasks named one by one; more are counted.
MOST_NAMED = 12


@dataclass(frozen=True)
class Section:
    """Sentences, in which ``[@key]`` cites; the entries by key; and what the reader has to add."""

    sentences: tuple[str, ...]
    references: References
    missing: tuple[str, ...]


def describe(board: Board) -> Section:
    """Return the section for a board; the same records give the same one.

    Args:
        board: with samples read, as the tests that it names were computed.
    """
    records = _that_count(board)
    cited = references.of_records(records)
    own = [record for record in records if record.foreign is None]
    sentences = [
        _models(records), *(_methods(own, cited, SeedFiles(board.records)) if own else []),
        *_tasks(records), *([_tools(own)] if own else []),
        *_of_other_tools([record for record in records if record.foreign is not None]), *_statistics(board, records),
    ]  # fmt: skip
    missing = [f"the paper behind plugin {printable(name)}" for name in cited.unknown]
    return Section(tuple(sentences), cited, tuple(missing))


def to_markdown(section: Section) -> str:
    """Return the section as Markdown with citations as Pandoc reads them, and the BibTeX below."""
    lines = [" ".join(section.sentences), ""]
    lines += [f"To be added: {', '.join(section.missing)}.", ""] if section.missing else []
    return "\n".join([*lines, "```bibtex", to_bibtex(section).rstrip(), "```"]) + "\n"


def to_latex(section: Section) -> str:
    """Return the section as LaTeX; its citations are entries of ``to_bibtex``."""
    text = " ".join(section.sentences)
    parts = re.split(r" ?\[(@[^\]]*)\]", text)
    keys = section.references.entries
    made = []
    for number, part in enumerate(parts):
        cited = [key.strip().removeprefix("@") for key in part.split(";")] if number % 2 else []
        is_citation = bool(cited) and all(key in keys for key in cited)
        made.append(f"~\\cite{{{','.join(cited)}}}" if is_citation else latex(f" [{part}]" if number % 2 else part))
    notes = [f"% to be added: {latex(missing)}" for missing in section.missing]
    return "\n".join([*notes, "".join(made)]) + "\n"


def to_bibtex(section: Section) -> str:
    """Return what is cited, as a BibTeX file."""
    return "\n\n".join(section.references.entries.values()) + "\n"


def to_json(section: Section) -> str:
    """Return sentences, BibTeX entries by key and what is missing, for a program."""
    content = {
        "sentences": section.sentences,
        "references": section.references.entries,
        "missing": section.missing,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


WRITERS: dict[str, Callable[[Section], str]] = {
    "markdown": to_markdown, "latex": to_latex, "bibtex": to_bibtex, "json": to_json,
}  # fmt: skip


def _that_count(board: Board) -> list[Record]:
    """Return the records behind the scores of a board, those of one run and task once each."""
    numbers = dict.fromkeys(source for score in board.scores() for source in score.sources)
    return [board.records[number] for number in numbers]


def _models(records: Sequence[Record]) -> str:
    said = []
    for record in records:
        model = record.model
        parts = ["digest not stated" if model.digest == UNKNOWN else f"digest {printable(model.digest[:DIGITS])}"]
        parts += [f"{model.parameters:,} parameters"] if model.parameters else []
        if model.quantization in QUANTIZATIONS:
            parts.append(f"quantised to {weights_label(record)} [@{QUANTIZATIONS[model.quantization]}]")
        else:
            parts.append(printable(weights_label(record)))
        cited = f" [@{PEFT}]" if record.settings.model_args.get("peft") else ""
        said.append(f"{model_label(record)}{cited} ({', '.join(parts)})")
    return f"We evaluated {_listed(said)}."


def _methods(records: Sequence[Record], cited: References, files: SeedFiles) -> list[str]:
    """Return a sentence of the methods, each with the options that were given and its seeds."""
    seeds: dict[str, dict[str, None]] = {}
    for record in records:
        if record.is_baseline:
            continue
        plugin = record.plugin
        keys = cited.by_plugin.get(plugin.name or "", [])
        papers = f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""
        origin = [f"{plugin.distribution} {plugin.version}"] if plugin.distribution else []
        origin += [f"code {plugin.code_digest[:DIGITS]}"] if plugin.code_digest else []
        given = _given_options(record, files)
        label = f"{method_label(record)}{papers} ({printable(', '.join([*origin, *([given] if given else [])]))}"
        seeds.setdefault(label, {})[str(record.seeds.random)] = None
    untouched = any(record.is_baseline for record in records)
    if not seeds:
        return ["The models were evaluated as they are."]
    several = [f"{label}; {_seeds(found)})" for label, found in seeds.items()]
    compared = " was compared with " if untouched else " was changed by "
    return [f"{'The untouched model' if untouched else 'The model'}{compared}{_listed(several)}."]


def _given_options(record: Record, files: SeedFiles) -> str:
    """Return the options that the command gives, as it gives them; the others had their defaults."""
    try:
        words = shlex.split(record.command or "")
    except ValueError:
        return ""
    given = next((words[n + 1] for n, word in enumerate(words[:-1]) if word == "--method_args"), "")
    told = files.of_any_seed(record)  # files that were made for their seed are those of one setting
    for name, value in told.method.options.items() if told else ():
        if value != record.method.options[name]:
            given = given.replace(f"{name}={record.method.options[name]}", f"{name}={value}")
    return given.replace(",", ", ")


def _seeds(seeds: Iterable[str]) -> str:
    found = list(seeds)
    return f"seed {found[0]}" if len(found) == 1 else f"seeds {_listed(found)}"


def _tasks(records: Sequence[Record]) -> list[str]:
    groups = {record.task.name: record.task.members or [] for record in records if record.task.group}
    inside = {name for members in groups.values() for name in members} - groups.keys()
    said = dict[str, None]()
    for record in records:
        name = record.task.name
        if name in inside:
            continue
        parts = [
            *([f"version {record.task.version}"] if record.task.version != UNKNOWN else []),
            _documents(record),
            f"{record.settings.num_fewshot or 0}-shot",
        ]
        parts += [f"mean of {counted(len(groups[name]), 'task')}"] if groups.get(name) else []
        parts += [f"examples drawn with seed {record.fewshot_seed}"] if record.fewshot_seed is not None else []
        said[f"{printable(name)} ({', '.join(map(printable, parts))})"] = None
    settings = dict.fromkeys(sentence for record in records for sentence in _settings(record))
    return [f"The tasks were {_listed(list(said))}.", *settings]


def _documents(record: Record) -> str:
    docs, size = record.counts.docs, record.task.size
    return f"{docs:,} of {size:,} documents" if size and size != docs else counted(docs, "document")


def _settings(record: Record) -> list[str]:
    settings, said = record.settings, []
    if settings.apply_chat_template:
        turns = ", examples as turns of their own" if settings.fewshot_as_multiturn else ""
        said.append(f"Prompts were put into the model's chat template{turns}.")
    if settings.system_instruction:
        said.append(f"The system message was “{printable(settings.system_instruction)}”.")
    if settings.gen_kwargs:
        said.append(f"Texts were generated with {printable(json.dumps(settings.gen_kwargs, sort_keys=True))}.")
    return said


def _tools(records: Sequence[Record]) -> str:
    def of(name: str) -> str:
        found = dict.fromkeys(str(value) for record in records if (value := getattr(record.environment, name)))
        return " and ".join(map(printable, sorted(found)))

    engine = f", {of('engine')}" if of("engine") else ""
    codes = dict.fromkeys(record.environment.harness_digest or "" for record in records)
    code = f" (code {_listed([printable(one[:DIGITS]) for one in codes])})" if all(codes) else ""
    libraries = f"Transformers {of('transformers')} [@{TRANSFORMERS}], PyTorch {of('torch')}" if of("torch") else ""
    return (
        f"Scores were computed with the Language Model Evaluation Harness {of('lm_eval')} [@{LM_EVAL}] through token-harness "
        f"{of('harness')}{code} [@{OWN}]" + (f", {libraries}{engine}, on {of('device')}." if libraries else ".")
    )


def _of_other_tools(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each tool whose own files were read, with what they leave open."""
    unknown: dict[str, dict[str, None]] = {}
    for record in records:
        assert record.foreign is not None
        name = " ".join(filter(None, (record.foreign.tool, record.foreign.version)))
        cited = f" [@{LM_EVAL}]" if record.foreign.tool == LM_EVAL_TOOL else ""
        unknown.setdefault(printable(name) + cited, {}).update(dict.fromkeys(record.foreign.unknown))
    said = [
        f"Scores of {tool} were read from the files that it wrote, "
        + (
            f"which do not state {_listed([*map(printable, fields)])}."
            if fields
            else "which state all that a record holds."
        )
        for tool, fields in unknown.items()
    ]
    return [*said, f"They were compared with token-harness [@{OWN}]."] if said else []


def _statistics(board: Board, records: Sequence[Record]) -> list[str]:
    """Return how scores, errors, intervals and differences came about, as far as this board has them."""
    scores = [score for score in board.scores() if score.value is not None]
    said = []
    if any(len(score.by_seed) > 1 for score in scores):
        said.append("Scores are means over seeds.")
    if any(score.stderr for score in scores):
        said.append("± is the standard error over documents.")
    exact = sorted({score.interval.method for score in scores if score.interval} - {NORMAL})
    if exact:
        said.append(f"95 % intervals are by {_listed(exact)} where documents are too few for a normal approximation.")
    said += _differences(scores)
    if any(record.is_partial for record in records):
        said.append("Some tasks were asked in part, so their scores do not compare with results on all of them.")
    if any(score.unranked for score in scores):
        reasons = list(dict.fromkeys(score.unranked for score in scores if score.unranked))
        said.append(f"Without a rank are scores of which the board says: {printable('; '.join(reasons[:3]))}.")
    return said


def _differences(scores: Sequence[Score]) -> list[str]:
    found = [score.difference for score in scores if score.difference is not None]
    tested = [difference for difference in found if difference.p is not None]
    if not tested:
        return []
    paired = sum(difference.is_paired for difference in tested)
    how = "paired over documents" if paired == len(tested) else "as of two estimates that share no documents"
    if 0 < paired < len(tested):
        how = f"paired over documents where samples of both are at hand ({paired} of {len(tested)})"
    return [
        f"Differences to the untouched model were tested {how}, at the level of 5 % with Holm's correction over the methods of a "
        "task."
    ]


def _listed(parts: Sequence[str]) -> str:
    """Return parts as an enumeration, each once; many are cut, and the others counted."""
    several = list(dict.fromkeys(parts))
    if len(several) > MOST_NAMED:
        several = [*several[:MOST_NAMED], f"{len(several) - MOST_NAMED} more"]
    return (
        " and ".join(filter(None, ["; ".join(several[:-1]), several[-1]]))
        if "," in "".join(several)
        else _plain(several)
    )


def _plain(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
