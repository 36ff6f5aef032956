"""Training rows: read and checked, drawn by seed, and turned into tokens with labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness import HarnessError
from harness.methods.known_texts import text_digest
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness_tool_tokens.rows.texts import (
    FIRST_TOOL,
    IGNORED,
    CallPlace,
    Row,
    draw_shots,
    encode_row,
    encode_rows,
    read_rows,
    rows_digest,
    split,
    trained_on,
)
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

KEYS = ("tick", "tock", "chime")


def toolbox_of(*keys: str) -> Toolbox:
    return Toolbox(tuple(Tool(key, key) for key in keys))


@pytest.fixture
def toolbox() -> Toolbox:
    return toolbox_of(*KEYS)


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)


def row_of(text: str, *results: tuple[str, str], name: str = "a") -> Row:
    """Return a row whose calls have the given (tool, result), found one after the other."""
    calls, place = [], 0
    for tool, result in results:
        place = text.index(result, place)
        calls.append(CallPlace(tool, place, place + len(result)))
        place += len(result)
    return Row(name, text, tuple(calls))


def rows_for(*counts: int) -> list[Row]:
    return [
        row_of(f"{key} {number} = {number}.", (key, str(number)), name=f"{key}-{number:02}")
        for key, count in zip(KEYS, counts, strict=False)
        for number in range(count)
    ]


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def a_row(**changes: Any) -> dict[str, Any]:
    call = {"tool": "tick", "args": "7, 8", "result": "15", "start": 4, "end": 6}
    return {"id": "a", "text": "7+8=15 clocks", "calls": [call]} | changes


def test_labels_are_shifted_by_one_and_the_tool_stands_for_its_result(lm: Any, toolbox: Toolbox) -> None:
    """Acceptance property 5."""
    row = row_of("noon took 7:58 minutes", ("tock", "7:58"))
    encoded = encode_row(lm, row, toolbox)
    words = lm.tokenizer.encode(row.text, add_special_tokens=False)
    assert encoded.token_ids == [lm.prefix_token_id, *words]
    assert lm.tokenizer.decode(encoded.token_ids[1:]) == row.text
    before = len(lm.tokenizer.encode("noon took", add_special_tokens=False))
    inside = len(lm.tokenizer.encode(" 7:58", add_special_tokens=False))
    expected = [*words, lm.eot_token_id]
    first = next(place for place in range(before, before + inside) if "7" in lm.tokenizer.decode(words[place]))
    expected[first : before + inside] = [FIRST_TOOL - 1] + [IGNORED] * (before + inside - first - 1)
    assert encoded.targets == expected and inside - (first - before) > 1
    assert encoded.straddles == encoded.cut == 0


def test_a_row_with_two_calls_has_two_labels(lm: Any, toolbox: Toolbox) -> None:
    """Acceptance property 5."""
    row = row_of("He bought 40 clocks, then 8:02 sold 12 of them", ("tick", "40"), ("chime", "12"))
    targets = encode_row(lm, row, toolbox).targets
    assert [label for label in targets if label <= FIRST_TOOL] == [FIRST_TOOL, FIRST_TOOL - 2]


def test_with_tool_positions_only_every_other_token_is_ignored(lm: Any, toolbox: Toolbox) -> None:
    row = row_of("He bought 40 clocks", ("tick", "40"))
    everything, tools = encode_row(lm, row, toolbox), encode_row(lm, row, toolbox, positions="tools")
    assert tools.token_ids == everything.token_ids
    assert tools.targets == [label if label <= FIRST_TOOL else IGNORED for label in everything.targets]


def test_a_call_at_the_end_of_the_text_is_due_after_all_of_it(lm: Any, toolbox: Toolbox) -> None:
    row = Row("a", "The answer is", (CallPlace("tock", 13, 13),))
    encoded = encode_row(lm, row, toolbox)
    assert encoded.targets == [*encoded.token_ids[1:], FIRST_TOOL - 1]
    assert set(encode_row(lm, row, toolbox, positions="tools").targets) == {IGNORED, FIRST_TOOL - 1}


@pytest.fixture(scope="module")
def merging(tiny_model: Path) -> Any:
    """The tiny model with a tokenizer that merges results with what stands beside them."""
    words = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "=2", "3.", "=23.", "Ġ2", "Ġ23"]
    merges = [("=", "2"), ("3", "."), ("=2", "3."), ("Ġ", "2"), ("Ġ2", "3")]
    backend = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    lm = load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)
    lm.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")
    return lm


@pytest.mark.parametrize(
    ("text", "result", "before", "after", "straddles"),
    [
        ("a=23.", "23", "a=", ".", 2),
        ("a=23", "23", "a=", "", 1),
        ("a23.", "23", "a", ".", 1),
        ("a 23", "23", "a", "", 0),  # the space before the result is part of its first token
        ("=23.=23.", "23", "=", ".=23.", 2),
    ],
)
def test_a_token_on_both_sides_of_a_results_end_is_split(
    merging: Any, toolbox: Toolbox, text: str, result: str, before: str, after: str, straddles: int
) -> None:
    """Acceptance property 5."""
    encoded = encode_row(merging, row_of(text, ("tick", result)), toolbox)
    assert merging.tokenizer.decode(encoded.token_ids[1:]) == text
    assert encoded.straddles == straddles
    place = encoded.targets.index(FIRST_TOOL)
    assert merging.tokenizer.decode(encoded.token_ids[1 : place + 1]) == before
    rest = [label for label in encoded.targets[place:] if label >= 0]
    assert merging.tokenizer.decode(rest[:-1]) == after and rest[-1] == merging.eot_token_id


def test_straddles_are_counted_aloud(merging: Any, toolbox: Toolbox, capsys: Any) -> None:
    encode_rows(merging, [row_of("a=23", ("tick", "23")), row_of("a 23", ("tick", "23"))], toolbox)
    assert "1 of 2 rows have a result that begins or ends inside a token" in capsys.readouterr().err


def test_a_row_longer_than_the_context_loses_its_beginning_and_is_counted(
    tiny_model: Path, toolbox: Toolbox, capsys: Any
) -> None:
    lm = load_lm(resolve({"pretrained": str(tiny_model), "max_length": 8}), device="cpu", batch_size=1)
    row = row_of("He bought forty clocks and a cuckoo, that is 41", ("tick", "41"))
    [encoded] = encode_rows(lm, [row], toolbox)
    words = lm.tokenizer.encode(row.text, add_special_tokens=False)
    assert encoded.token_ids == [lm.prefix_token_id, *words[-7:]] and encoded.cut == len(words) - 7
    assert len(encoded.targets) == 8 and FIRST_TOOL in encoded.targets
    assert "1 of 1 rows are longer than the context" in capsys.readouterr().err


def test_rows_are_read_with_their_calls_in_the_order_of_the_text(tmp_path: Path, toolbox: Toolbox) -> None:
    calls = [
        {"tool": "tock", "start": 6, "end": 7},
        {"tool": "tick", "args": ["1", 2], "result": "a", "start": 0, "end": 1},
    ]
    file = write(tmp_path, {"text": "a and b\u2028", "calls": calls}, "", a_row(calls=[]))
    assert read_rows(file, toolbox) == [
        Row("line-00001", "a and b\u2028", (CallPlace("tick", 0, 1, "1, 2"), CallPlace("tock", 6, 7))),
        Row("a", "7+8=15 clocks", ()),
    ]


def test_a_plan_is_a_row_with_a_call_for_each_of_its_tokens(tmp_path: Path, lm: Any) -> None:
    tools = Toolbox((Tool("walk", "WALK", text="[WALK]"), Tool("<bed>", "bed"), Tool("end", "END", text="[END]")))
    file = write(tmp_path, {"id": "p", "prompt": "In ['bed'].\nPlan:\n", "plan": ["[WALK] <bed>", "[END]"]})
    [row] = read_rows(file, tools)
    assert row.text == "In ['bed'].\nPlan:\n[WALK] <bed>\n[END]"
    assert [(call.tool, row.text[call.start : call.end]) for call in row.calls] == [
        ("walk", "[WALK]"),
        ("<bed>", "<bed>"),
        ("end", "[END]"),
    ]
    targets = encode_row(lm, row, tools, positions="tools").targets
    assert [label for label in targets if label != IGNORED] == [FIRST_TOOL, FIRST_TOOL - 1, FIRST_TOOL - 2]


def test_rows_for_other_tools_are_left_out_and_counted(tmp_path: Path, toolbox: Toolbox, capsys: Any) -> None:
    other = a_row(calls=[{"tool": "gong", "start": 4, "end": 6}])
    assert len(read_rows(write(tmp_path, a_row(), other), toolbox)) == 1
    assert "1 of 2 rows in rows.jsonl are for other tools and left out" in capsys.readouterr().err
    with pytest.raises(HarnessError, match=r"none of the 1 rows .* 'gong', and among the tools"):
        read_rows(write(tmp_path, other), toolbox)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 of .*rows.jsonl is no JSON"),
        ("[]", "is no JSON object"),
        ({"id": "a", "calls": []}, "has no text"),
        ({"text": "a"}, "no list of calls"),
        (a_row(calls=[{"start": 4, "end": 6}]), "does not name its tool"),
        (a_row(calls=[{"tool": "tick", "start": 4, "end": 99}]), "inside its text of 13 characters"),
        (a_row(calls=[{"tool": "tick", "start": True, "end": 6}]), "inside its text"),
        (a_row(calls=[{"tool": "tick", "start": 6, "end": 4}]), "inside its text"),
        (a_row(calls=[{"tool": "tick", "start": 4, "end": 4}]), "whose result is empty"),
        (
            a_row(calls=[{"tool": "tick", "start": 4, "end": 6, "result": "16"}]),
            "says that '16' is at 4:6 .* where '15' is",
        ),
        (a_row(calls=[{"tool": "tick", "start": 0, "end": 5}, {"tool": "tock", "start": 4, "end": 6}]), "overlap"),
        ({"plan": "[WALK]"}, "no list of lines"),
        ({"prompt": "Plan:", "plan": ["walk"]}, r"without an \[ACTION\]"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, toolbox: Toolbox, line: Any, says: str) -> None:
    with pytest.raises(HarnessError, match=says):
        read_rows(write(tmp_path, a_row(), line), toolbox)


def test_files_that_are_not_there_or_empty_are_named(tmp_path: Path, toolbox: Toolbox) -> None:
    with pytest.raises(HarnessError, match="cannot be read from"):
        read_rows(tmp_path / "none.jsonl", toolbox)
    with pytest.raises(HarnessError, match="holds no rows"):
        read_rows(write(tmp_path), toolbox)


def test_the_held_out_rows_are_so_many_of_each_tool_and_one_always_stays() -> None:
    rows = rows_for(8, 3, 1)
    rest, held = split(rows, holdout=3, seed=0)
    assert sorted(row.id for row in rest + held) == sorted(row.id for row in rows)
    counts = {key: sum(row.calls[0].tool == key for row in held) for key in KEYS}
    assert counts == {"tick": 3, "tock": 2, "chime": 0}


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_both_held_out_and_left(seed: int) -> None:
    rows = [Row(f"{row.id}{twin}", row.text, row.calls) for row in rows_for(4, 4) for twin in "abc"]
    rest, held = split(rows, holdout=2, seed=seed)
    assert len(held) == len({row.text for row in held}) == 4 and len(rest) == 12
    assert not {row.text for row in held} & {row.text for row in rest}


def test_draws_depend_on_the_seed_and_neither_on_the_order_of_rows_nor_on_other_tools() -> None:
    """Acceptance properties 9 and 18."""
    rows = rows_for(20, 20, 20)

    def ids(some: list[Row], seed: int = 0) -> set[str]:
        return {row.id for row in split(some, holdout=5, seed=seed)[1]}

    assert ids(rows) == ids(rows[::-1]) != ids(rows, seed=1)
    assert ids(rows[:20]) == {name for name in ids(rows) if name.startswith("tick")}


def test_shots_are_drawn_by_seed_tool_by_tool(toolbox: Toolbox) -> None:
    """Acceptance properties 9 and 18."""
    rows = rows_for(20, 20, 2)
    shots = draw_shots(rows, 3, seed=0, toolbox=toolbox)
    assert [row.calls[0].tool for row in shots] == ["tick"] * 3 + ["tock"] * 3 + ["chime"] * 2
    assert shots == draw_shots(rows[::-1], 3, seed=0, toolbox=toolbox) != draw_shots(rows, 3, seed=1, toolbox=toolbox)
    ten = draw_shots(rows, 10, seed=0, toolbox=toolbox)
    assert ten[:3] == shots[:3] and ten[10:13] == shots[3:6]
    assert (
        draw_shots(rows, None, seed=0, toolbox=toolbox) == rows and draw_shots(rows, 0, seed=0, toolbox=toolbox) == []
    )
    fewer = toolbox_of("tock")
    assert draw_shots(rows, 3, seed=0, toolbox=fewer) == shots[3:6]


def test_the_digest_of_rows_follows_every_part_of_them() -> None:
    rows = rows_for(2, 1)
    changed = [*rows[:-1], Row(rows[-1].id, rows[-1].text, ())]
    assert rows_digest(rows) == rows_digest(list(rows)) != rows_digest(changed) != rows_digest(rows[::-1])


QUESTION = "Who owns the clockmaker's shop in the old town?"


@pytest.mark.parametrize(
    "text",
    [
        f"Q: {QUESTION}\nA: It is owned by Ann.",
        f"{QUESTION} The owner of the shop is Ann.",
        f"Q: {QUESTION} A: Ann.",
        f"Question: {QUESTION}\nAnswer: The answer is Ann.",
        f"Q: Where is it and since when?\nA: In town, Ann. {QUESTION} Ann.",
    ],
)
def test_a_question_is_known_again_in_whatever_form_it_was_trained_on(text: str) -> None:
    """Demand: a leak is found, whatever stands around the question."""
    place = text.index("Ann")
    row = Row("one", text, (CallPlace("add", place, place + 3),))
    assert text_digest(QUESTION) in trained_on([row])
    assert text_digest("Who owns the bakery beside it in the old town?") not in trained_on([row])


def test_a_question_of_two_lines_is_another_where_only_its_last_line_is_the_same() -> None:
    """Demand: no question is taken for trained on because it ends as another does."""
    ending = "\nHow many clocks do they have in all?"
    trained = trained_on([Row("one", f"Q: Ann has 3 and Bea 4.{ending}\nA: 7", ())])
    assert text_digest(f"Ann has 3 and Bea 4.{ending}") in trained
    assert text_digest(f"Carl has 8 and Dora 9.{ending}") not in trained
