"""Training rows: texts with tool calls in them, read, checked, drawn from, and turned into tokens with labels."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError
from harness.methods.known_texts import questions_in, text_digest
from harness.models.spans import encode_apart, first_token
from harness.names import printable, suggestion
from harness.progress import say

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
    from harness_tool_tokens.tools.toolbox import Toolbox

IGNORED = -1
# Tool k of a toolbox is the label FIRST_TOOL - k, so that word ids stay what they are.
FIRST_TOOL = -2
PLAN_TOKEN = re.compile(r"\[[^\[\]\n]+\]|<[^<>\n]+>")


@dataclass(frozen=True)
class CallPlace:
    """One call of a tool: ``text[start:end]`` is its result.

    ``start == end == len(text)``: the call comes next, and its result is not there yet.
    """

    tool: str
    start: int
    end: int
    arguments: str = ""


@dataclass(frozen=True)
class Row:
    """A text with results in place, and the calls they came from in the order of the text."""

    id: str
    text: str
    calls: tuple[CallPlace, ...]


@dataclass(frozen=True)
class Encoded:
    """A row as tokens.

    Attributes:
        token_ids: what the model reads, the prefix token first.
        targets: as long; ``targets[i]`` is due after ``token_ids[: i + 1]``: a word's id, ``FIRST_TOOL - k`` for tool k,
            or ``IGNORED``.
        straddles: ends of results that lay inside a token, so that the text was encoded in two parts there.
        cut: tokens left out at the start, because the context holds no more.
    """

    token_ids: list[int]
    targets: list[int]
    straddles: int = 0
    cut: int = 0


def read_rows(path: Path, toolbox: Toolbox) -> list[Row]:
    """Return the rows of a ``.jsonl`` file, those with a call of a tool that is not in the toolbox left out.

    A line is ``{"id", "text", "calls": [{"tool", "start", "end", "args"?, "result"?}]}``, or a plan:
    ``{"id", "prompt", "plan": [line, ...]}``, in which every ``[ACTION]`` and ``<object>`` is a call.

    Raises:
        HarnessError: the file cannot be read, a line is malformed (named by its number), or no row is left.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"training rows cannot be read from {printable(path)}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows = [_row(line, toolbox, f"line {number} of {printable(path)}", number) for number, line in numbered]
    known = set(toolbox.keys)
    kept = [row for row in rows if all(call.tool in known for call in row.calls)]
    if not kept:
        _refuse_all(path, rows, toolbox)
    if len(kept) < len(rows):
        say(f"{len(rows) - len(kept)} of {len(rows)} rows in {printable(path.name)} are for other tools and left out")
    return kept


def split(rows: Sequence[Row], *, holdout: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Return (the rest, the held-out rows), both in the order of ``rows``.

    Rows whose text is that of a held-out one are in neither: published files hold some texts twice, and a model trained on
    one of the two knows the other.

    Args:
        holdout: texts per tool, by a row's first call; of each tool one text at least stays. Rows without a call stay.
        seed: draws them, for each tool by itself, so that other tools change nothing.
    """
    held: set[int] = set()
    for tool, members in _by_tool(rows).items():
        first: dict[str, int] = {}
        for number in _drawn(rows, members, f"holdout/{seed}/{tool}"):
            first.setdefault(rows[number].text, number)
        held.update(list(first.values())[: max(0, min(holdout, len(first) - 1))])
    texts = {rows[number].text for number in held}
    return [row for row in rows if row.text not in texts], [rows[number] for number in sorted(held)]


def draw_shots(rows: Sequence[Row], per_tool: int | None, *, seed: int, toolbox: Toolbox) -> list[Row]:
    """Return at most ``per_tool`` rows for each tool, by a row's first call, in the order of the toolbox.

    Args:
        per_tool: None: all rows as they are; 0: none. A smaller draw is the beginning of a larger one.
        seed: draws them, for each tool by itself.
    """
    if per_tool is None:
        return list(rows)
    groups = _by_tool(rows)
    return [
        rows[number]
        for key in toolbox.keys
        for number in _drawn(rows, groups.get(key, []), f"shots/{seed}/{key}")[:per_tool]
    ]


def trained_on(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return digests of texts, of what stands in them before the first call, and of their questions."""
    found: set[str] = set()
    for row in rows:
        before = row.text[: row.calls[0].start] if row.calls else row.text
        found |= {text_digest(row.text), text_digest(before)}
        found |= {text_digest(question) for question in questions_in(row.text)}
    return tuple(sorted(found))


def rows_digest(rows: Sequence[Row]) -> str:
    """Return the SHA-256 of rows, in their order."""
    content = json.dumps([asdict(row) for row in rows], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def encode_row(lm: CausalLM, row: Row, toolbox: Toolbox, *, positions: Literal["all", "tools"] = "all") -> Encoded:
    """Return a row as tokens: the tool is due where the first token of its result would be, the rest of it is ignored.

    Args:
        positions: ``tools`` ignores every other token, too. With ``all`` the text ends with a due end-of-text token.
    """
    numbers = [toolbox.number(call.tool) for call in row.calls]
    token_ids, offsets, straddles = encode_apart(lm.tokenizer, row.text, [(call.start, call.end) for call in row.calls])
    targets = list(token_ids) if positions == "all" else [IGNORED] * len(token_ids)
    is_asking = bool(row.calls) and row.calls[-1].start == len(row.text)
    targets.append(lm.eot_token_id if positions == "all" and not is_asking else IGNORED)
    for call, tool in zip(row.calls, numbers, strict=True):
        first = first_token(offsets, call.start)
        targets[first] = FIRST_TOOL - tool
        for place in range(first + 1, first_token(offsets, call.end)):
            targets[place] = IGNORED
    room = lm.max_length - 1
    cut = max(0, len(token_ids) - room)
    return Encoded([lm.prefix_token_id, *token_ids[cut:]], targets[cut:], straddles, cut)


def encode_rows(
    lm: CausalLM, rows: Sequence[Row], toolbox: Toolbox, *, positions: Literal["all", "tools"] = "all"
) -> list[Encoded]:
    """Return all rows as tokens, and say how many had results that begin or end inside a token, or were cut."""
    encoded = [encode_row(lm, row, toolbox, positions=positions) for row in rows]
    straddling, cut = sum(one.straddles > 0 for one in encoded), sum(one.cut > 0 for one in encoded)
    if straddling:
        say(f"{straddling} of {len(encoded)} rows have a result that begins or ends inside a token; encoded in parts")
    if cut:
        say(f"{cut} of {len(encoded)} rows are longer than the context of {lm.max_length} tokens; cut at the start")
    return encoded


def _row(line: str, toolbox: Toolbox, where: str, number: int) -> Row:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{where} is no JSON: {printable(error)}") from error
    if not isinstance(content, dict):
        raise HarnessError(f"{where} is no JSON object; a row is one, with text and calls")
    name = str(content.get("id", f"line-{number:05}"))
    if "plan" in content:
        return _plan(content, toolbox, where, name)
    text, calls = content.get("text"), content.get("calls")
    if not isinstance(text, str) or not text or not isinstance(calls, list):
        raise HarnessError(f"{where} has no text or no list of calls; a row needs both")
    found = tuple(sorted((_call(call, text, where) for call in calls), key=lambda call: (call.start, call.end)))
    for before, after in itertools.pairwise(found):
        if after.start < before.end or after.start == before.start:
            raise HarnessError(f"{where} has two calls whose results overlap at character {after.start}")
    return Row(name, text, found)


def _call(content: Any, text: str, where: str) -> CallPlace:
    if not isinstance(content, dict) or not isinstance(content.get("tool"), str):
        raise HarnessError(f"{where} has a call that does not name its tool")
    start, end = content.get("start"), content.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
        raise HarnessError(
            f"{where} has a call of '{printable(content['tool'])}' without a start and an end inside its text of "
            f"{len(text)} characters"
        )
    if start == end != len(text):
        raise HarnessError(f"{where} has a call of '{printable(content['tool'])}' whose result is empty")
    result = content.get("result")
    if result is not None and start < end and text[start:end] != result:
        raise HarnessError(
            f"{where} says that '{printable(result)}' is at {start}:{end} of its text, where '{printable(text[start:end])}' is"
        )
    arguments = content.get("args", content.get("arguments", ""))
    if isinstance(arguments, list):
        arguments = ", ".join(map(str, arguments))
    return CallPlace(content["tool"], start, end, str(arguments))


def _plan(content: dict[str, Any], toolbox: Toolbox, where: str, name: str) -> Row:
    """Return a plan as a row: each token of it that a tool has as its text is a call."""
    lines, prompt = content["plan"], content.get("prompt", "")
    if not isinstance(prompt, str) or not isinstance(lines, list) or not all(isinstance(x, str) for x in lines):
        raise HarnessError(f"{where} has a plan that is no list of lines, or a prompt that is no text")
    key_of = {tool.text or tool.key: tool.key for tool in toolbox}
    text, calls = prompt + "\n".join(lines), []
    for start, end in _plan_tokens(text, len(prompt)):
        token = text[start:end]
        calls.append(CallPlace(key_of.get(token, token), start, end))
    if not calls:
        raise HarnessError(f"{where} has a plan without an [ACTION] or an <object>")
    return Row(name, text, tuple(calls))


def _plan_tokens(text: str, start: int) -> Iterator[tuple[int, int]]:
    for match in PLAN_TOKEN.finditer(text, start):
        yield match.span()


def _refuse_all(path: Path, rows: Sequence[Row], toolbox: Toolbox) -> None:
    if not rows:
        raise HarnessError(f"{printable(path)} holds no rows")
    unknown = next(call.tool for row in rows for call in row.calls if call.tool not in set(toolbox.keys))
    raise HarnessError(
        f"none of the {len(rows)} rows in {printable(path)} is for a tool that is there; the first of its tools is "
        f"'{printable(unknown)}', and among the tools {suggestion(unknown, toolbox.keys)}"
    )


def _by_tool(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return the numbers of the rows of each tool, by their first call."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.calls:
            groups.setdefault(row.calls[0].tool, []).append(number)
    return groups


def _drawn(rows: Sequence[Row], members: Sequence[int], seed: str) -> list[int]:
    """Return numbers of rows in an order drawn by the seed, whatever order they came in."""
    order = sorted(members, key=lambda number: (rows[number].id, rows[number].text))
    random.Random(seed).shuffle(order)
    return order
