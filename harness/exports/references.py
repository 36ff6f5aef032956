"""BibTeX of what a score was made with: the tools, and the papers that plugins name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import plugins
from harness.records.record import Record

LM_EVAL = "eval-harness"
_ENTRY = re.compile(r"@\w+\s*\{\s*([^\s,{}\"#%\\~]+)\s*,", re.ASCII)
# As results of lm-eval that were read from its files name it.
LM_EVAL_TOOL = "lm_eval"
OWN, TRANSFORMERS, PEFT = "token-harness", "wolf-etal-2020-transformers", "peft"
QUANTIZATIONS = {"nf4": "dettmers2023qlora", "int8": "dettmers2022llmint8"}


@dataclass(frozen=True)
class References:
    """BibTeX entries by key, the keys that each plugin names, and the plugins whose papers are not known here."""

    entries: dict[str, str]
    by_plugin: dict[str, list[str]]
    unknown: list[str]


def of_records(records: Sequence[Record]) -> References:
    """Return what to cite for these records; no plugin is imported."""
    installed = {plugin.name: plugin for plugin in plugins.installed()}
    tools = _split((Path(__file__).parent / "tools.bib").read_text(encoding="utf-8"))
    entries = {key: tools[key] for key in _tools(records)}
    versions = sorted({record.environment.harness for record in records if record.foreign is None})
    if OWN in entries:
        entries[OWN] = entries[OWN].replace("VERSION", " and ".join(versions) or _own_version())
    by_plugin: dict[str, list[str]] = {}
    named = [record for record in records if record.plugin.name and not record.is_baseline and record.foreign is None]
    names = dict.fromkeys(str(record.plugin.name) for record in named)
    for name in names:
        found = _split(installed[name].citations) if name in installed else {}
        by_plugin[name] = list(found)
        entries |= {key: text for key, text in found.items() if key not in entries}
    return References(entries, by_plugin, [name for name, keys in by_plugin.items() if not keys])


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("token-harness")
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown"


def _tools(records: Iterable[Record]) -> list[str]:
    found: dict[str, None] = {}
    for record in records:
        is_lm_eval = record.foreign is None or record.foreign.tool == LM_EVAL_TOOL
        has_transformers = record.foreign is None and record.environment.transformers
        found |= dict.fromkeys([
            *([LM_EVAL] if is_lm_eval else []), OWN, *([TRANSFORMERS] if has_transformers else []),
        ])  # fmt: skip
        if record.model.quantization in QUANTIZATIONS:
            found[QUANTIZATIONS[record.model.quantization]] = None
        if record.settings.model_args.get("peft"):
            found[PEFT] = None
    return list(found)


def _split(text: str) -> dict[str, str]:
    """Return the entries of a BibTeX file by key; what is between them is left out, and one whose braces do not close."""
    found: dict[str, str] = {}
    for match in _ENTRY.finditer(text):
        depth, end = 0, 0
        for place in range(match.start(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0 and text[place] == "}":
                end = place + 1
                break
        if end:
            found.setdefault(match[1], text[match.start() : end])
    return found
