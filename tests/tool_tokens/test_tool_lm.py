"""Answers with tools by real tiny models: their own choices, and choices that a script makes for them."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from answered import load
from lm_eval.api.instance import Instance
from tiny_models import build_model

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.models.identity import tensor_fingerprints
from harness.models.tree.prompts import Candidates, Place
from harness.models.tree.row_attention import KeptKeys
from harness_tool_tokens.answering.answer import ToolPrompt
from harness_tool_tokens.answering.lm import ToolTokenLM
from harness_tool_tokens.answering.tool_head import ToolHead

BEST = 20.0
NEVER, ALWAYS = -1e9, 1e4
MORE = {"until": ["\n"], "max_gen_toks": 24, "do_sample": False}
CONTEXTS = [
    "Forty clocks ticked there",
    "Q: How many clocks?\nA:",
    "Customers would ask which of them was right, and he wound them",
    "He",
    "Q: How many clocks are there?\nA:",
]
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
Piece = str | int | tuple[int, ...]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def request(context: str, doc: dict[str, Any] | None = None, number: int = 0, **settings: Any) -> Instance:
    kwargs = {**MORE, **settings}
    return Instance("generate_until", doc or {}, (context, kwargs), 0, metadata=("made_up", number, 1))


def requests_of(contexts: Sequence[str] = CONTEXTS, **settings: Any) -> list[Instance]:
    return [request(context, number=number, **settings) for number, context in enumerate(contexts)]


def answers(lm: Any, requests: list[Instance]) -> list[str]:
    found: list[str] = lm.generate_until(requests, disable_tqdm=True)
    return found


def with_traces(found: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return texts and traces to compare; margins to three decimals, for other batches round otherwise."""
    rounded = [[{**call, "margin": call["margin"] and round(call["margin"], 3)} for call in one.trace] for one in found]
    return [(str(one), trace) for one, trace in zip(found, rounded, strict=True)]


# --- a script instead of the model's own choices --------------------------------------------------------------------------


@dataclass
class Script:
    """What is preferred in one answer: its reasoning, and the arguments of one call after the other."""

    reasoning: Sequence[Piece]
    arguments: Sequence[Sequence[Piece]] = ()


class ScriptedLM(ToolTokenLM):
    """A real model whose hidden states are replaced by a script's wishes; everything else is as it is."""

    scripts: dict[str, Script]
    fails_at: int = -1
    prompts: list[ToolPrompt]

    def stream(self, pieces: Sequence[Piece]) -> list[tuple[int, ...]]:
        wanted: list[tuple[int, ...]] = []
        for piece in pieces:
            if isinstance(piece, str):
                wanted += [(id_,) for id_ in self.tokenizer.encode(piece, add_special_tokens=False)]
            else:
                wanted.append(piece if isinstance(piece, tuple) else (piece,))
        return wanted

    def preferred(self, place: Place) -> tuple[int, ...]:
        prompt = place.prompt
        assert isinstance(prompt, ToolPrompt)
        answer = prompt.answer
        assert answer is not None
        script = self.scripts[answer.wanted.context]
        if not place.generated:
            self.prompts.append(prompt)
        if prompt.mode == "arguments":
            pieces, at = script.arguments[len(answer.calls) - 1], len(place.generated)
        else:
            fired = sum(call.forced != "written" for call in answer.calls)
            pieces, at = script.reasoning, len(place.generated)
            at += 0 if prompt is answer.first else answer.used + fired
        wishes = self.stream(pieces)
        return wishes[at] if at < len(wishes) else (self.eot_token_id,)

    @property
    def _chooser(self) -> Any:
        chooser = super()._chooser
        count, size = len(self.tools.toolbox), self._first_tool
        if chooser.head is not None:
            chooser.head = ToolHead(torch.eye(count), 0.0)
        calls = [0]

        def choose(candidates: Candidates, places: Sequence[Place]) -> list[int]:
            calls[0] += 1
            if calls[0] == self.fails_at:
                raise torch.OutOfMemoryError("out of memory")
            words, hidden = torch.full((len(places), size), -5.0), torch.full((len(places), count), -9.0)
            words[:, self.tokenizer.encode(".")[0]] = 0.0
            for row, place in enumerate(places):
                for rank, id_ in enumerate(self.preferred(place)):
                    (words if id_ < size else hidden)[row, id_ % size if id_ < size else id_ - size] = BEST - rank

            def best(barred: Any) -> tuple[torch.Tensor, torch.Tensor]:
                left = words.clone()
                if barred is not None:
                    barred.hide(left, 0)
                value, token = left.max(-1)
                return token, value

            return chooser(Candidates(hidden, best, words.clone), places)

        return choose


def scripted(lm: Any, scripts: dict[str, Script], **settings: Any) -> ScriptedLM:
    made = ScriptedLM(lm.model, lm.tokenizer, tools=lm.tools, **{**lm.settings, **settings})
    made.scripts, made.prompts = scripts, []
    return made


def tool(lm: Any, key: str) -> int:
    number: int = lm._first_tool + lm.tools.toolbox.number(key)
    return number


def mixed(lm: Any) -> tuple[dict[str, Script], list[str], list[list[tuple[str, int, str, str | None, str | None]]]]:
    """Return scripts of eight rows with the texts and calls that have to come of them."""
    add, divide, multiply, end = tool(lm, "add"), tool(lm, "divide"), tool(lm, "multiply"), lm.eot_token_id
    word = lm.tokenizer.encode(" it")[0]
    rows: list[tuple[Script, str, list[tuple[str, int, str, str | None, str | None]]]] = [
        (Script([" seven clocks", end]), " seven clocks", []),
        (Script([" 3+4=", add, " in all", end], [["3, 4)"]]), " 3+4=7 in all", [("add", 5, "3, 4", "7", None)]),
        (
            Script([" 3+4=", add, ", 7*2=", multiply, ".\n"], [["3, 4)=7"], ["(3+4), 2).\n"]]),
            " 3+4=7, 7*2=14.",
            [("add", 5, "3, 4", "7", None), ("multiply", 12, "(3+4), 2", "14", None)],
        ),
        (
            Script([" 1/0=", divide, (divide, word), " was it", end], [["1, 0)"]]),
            " 1/0= it was it",
            [("divide", 5, "1, 0", None, "zero_division")],
        ),
        (Script(["=", add, "?", end], [["3, (4", end]]), "=?", [("add", 1, "3, (4", None, "syntax")]),
        (Script([add, " it is", end], [["3, 4)"]]), "7 it is", [("add", 0, "3, 4", "7", None)]),
        (Script([" the clock=", add, end], [["8, 8)"]]), " the clock=16", [("add", 11, "8, 8", "16", None)]),
        (
            Script(["a", add, "b", add, "c", (add, word), end], [["1, 1)"], ["2, 2)"]]),
            "a2b4c it",
            [("add", 1, "1, 1", "2", None), ("add", 3, "2, 2", "4", None)],
        ),
    ]
    contexts = [f"Q: This is row {number}, and how many clocks are there?\nA:" for number in range(len(rows))]
    return (
        {context: row[0] for context, row in zip(contexts, rows, strict=True)},
        [row[1] for row in rows],
        [row[2] for row in rows],
    )


def calls_of(answer: Any) -> list[tuple[str, int, str, str | None, str | None]]:
    return [(one["tool"], one["at"], one["arguments"], one["result"], one["error"]) for one in answer.trace]


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"batch_size": 3}, {"share_prefixes": False}])
def test_a_batch_of_mixed_rows_is_what_each_row_is_alone(apply: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Acceptance property 14, on a real model: mixed rows together, one by one, in small batches and without sharing."""
    lm = apply(prior="zeros", max_calls=2)
    scripts, texts, calls = mixed(lm)
    together = answers(scripted(lm, scripts, **settings), requests_of(list(scripts)))
    assert [str(one) for one in together] == texts
    assert [calls_of(one) for one in together] == calls
    alone = [answers(scripted(lm, scripts), [one])[0] for one in requests_of(list(scripts))]
    assert with_traces(together) == with_traces(alone)


def test_prompts_that_go_on_are_the_encoding_of_the_whole_text(apply: Callable[..., Any]) -> None:
    """Section 9: result re-tokenised with its surroundings; the ids are those of encoding the full text."""
    lm = apply(prior="zeros", max_calls=2)
    scripts, texts, _ = mixed(lm)
    context = "The hour was 8"
    scripts[context] = Script(
        [":0", tool(lm, "add"), ": ", tool(lm, "add"), " it", lm.eot_token_id], [["1, 1)"], ["5, 3)"]]
    )
    made = scripted(lm, scripts)
    found = answers(made, requests_of(list(scripts)))
    assert [str(one) for one in found] == [*texts, ":02: 8 it"]
    seen = 0
    for prompt in made.prompts:
        assert prompt.answer is not None
        if prompt.mode != "reasoning" or prompt is prompt.answer.first:
            continue
        text = lm.tokenizer.decode(prompt.token_ids)
        assert list(prompt.token_ids) == lm.tokenizer.encode(text)
        whole = prompt.answer.wanted.context + str(prompt.answer.result)
        assert whole.startswith(text)
        seen += 1
    assert seen >= 8


def test_the_token_after_a_result_begins_with_no_digit_and_the_one_after_may(apply: Callable[..., Any]) -> None:
    """Acceptance property 15, on a real vocabulary: digits, and tokens that begin with one."""
    lm = apply(prior="zeros")
    digits = [id_ for token, id_ in lm.tokenizer.get_vocab().items() if token[:1] in set("0123456789")]
    assert len(digits) >= 10
    six, colon = lm.tokenizer.encode("6")[0], lm.tokenizer.encode(":")[0]
    wished = (*digits[:15], colon)
    scripts = {"How long?": Script(["=", tool(lm, "divide"), wished, six, lm.eot_token_id], [["1, 7)"]])}
    assert [str(one) for one in answers(scripted(lm, scripts), requests_of(["How long?"]))] == ["=0.14:6"]


def test_memory_running_out_in_the_middle_changes_no_answer(apply: Callable[..., Any]) -> None:
    """docs/writing-a-plugin.md: after memory ran out, what was not finished begins again, and comes out the same."""
    lm = apply(prior="zeros", max_calls=2)
    scripts, texts, calls = mixed(lm)
    for fails_at in (4, 11, 19, 26):
        made = scripted(lm, scripts)
        made.fails_at = fails_at
        found = answers(made, requests_of(list(scripts)))
        assert ([str(one) for one in found], [calls_of(one) for one in found]) == (texts, calls), fails_at


def test_a_stop_string_that_a_result_completes_ends_the_answer(apply: Callable[..., Any]) -> None:
    """Section 2.4, stop strings: one that begins in a result stops the answer; nothing is run behind it."""
    lm = apply(prior="zeros")
    script = Script(["=", tool(lm, "add"), "!", " then ", tool(lm, "add"), lm.eot_token_id], [["3, 4)"], ["5, 5)"]])
    made = scripted(lm, {"Q": script})
    [found] = answers(made, [request("Q", until=["7!"])])
    assert str(found) == "="
    assert len([prompt for prompt in made.prompts if prompt.mode == "arguments"]) == 1


def test_thinking_is_taken_off_an_answer_with_calls_as_off_one_without(apply: Callable[..., Any]) -> None:
    """Acceptance property 16, HFLM's think_end_token as an id: thinking is left out of answers, calls or not."""
    lm = apply(prior="zeros")
    mark = lm.tokenizer.encode("?")[0]
    scripts = {
        "with": Script([" hmm", mark, "so it is ", tool(lm, "add"), lm.eot_token_id], [["3, 4)"]]),
        "without": Script([" hmm", mark, "so it is 7", lm.eot_token_id]),
    }
    found = answers(scripted(lm, scripts, think_end_token=mark), requests_of(["without", "with"]))
    assert [str(one) for one in found] == ["so it is 7", "so it is 7"]


# --- acceptance properties 1 and 2 ------------------------------------------------------------------------------------------

ROWS = [
    {"text": f"Q: What is {n} and 2?\nA: It is {n}+2={n + 2} in all.", "n": n, "tool": "add", "result": str(n + 2)}
    for n in range(10, 14)
] + [
    {
        "text": f"Q: What is {n} times 2?\nA: It is {n}*2={n * 2} in all.",
        "n": n,
        "tool": "multiply",
        "result": str(2 * n),
    }
    for n in range(10, 14)
]


@pytest.fixture
def train_file(tmp_path: Path) -> str:
    lines = []
    for number, row in enumerate(ROWS):
        start = str(row["text"]).rindex("=") + 1
        end = start + len(str(row["result"]))
        call = {"tool": row["tool"], "args": f"{row['n']}, 2", "result": row["result"], "start": start, "end": end}
        lines.append(json.dumps({"id": f"r{number}", "text": row["text"], "calls": [call]}) + "\n")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("options", [{"prior": "zeros"}, {"prior": "random"}, {"is_trained": True}])
def test_words_keep_their_logits_and_the_model_its_bytes(
    apply: Callable[..., Any], plain: Any, train_file: str, options: dict[str, Any]
) -> None:
    """Acceptance property 1: word logits bit for bit as without the tool head; parameters' bytes, through tool use, too."""
    options = {"train_file": train_file, "steps": 20} if options.pop("is_trained", False) else options
    ids = torch.tensor([plain.tokenizer.encode(context * 3)[:9] for context in CONTEXTS if len(context) > 20])
    with torch.no_grad():
        before = plain.model(ids).logits.clone()
    fingerprints = tensor_fingerprints(plain.model)
    lm = apply(**options, bias=ALWAYS, max_calls=3, max_argument_tokens=8)
    found = answers(lm, requests_of())
    assert all(one.trace for one in found)  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.equal(lm.model(ids).logits, before)
    assert tensor_fingerprints(lm.model) == fingerprints
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in lm.model.modules())


def test_the_words_in_generation_have_the_values_that_they_have_without_tools(
    apply: Callable[..., Any], plain: Any
) -> None:
    """Acceptance property 1, where it matters: the best words and their logits while text is generated, bit for bit."""
    seen: dict[str, list[list[tuple[int, float]]]] = {"without": [], "with": []}

    class Watched(ToolTokenLM):
        name = "with"

        @property
        def _chooser(self) -> Any:
            chooser, kept = super()._chooser, seen[self.name]
            if self.name == "without":
                chooser.head = None

            def choose(candidates: Candidates, places: Sequence[Place]) -> list[int]:
                words, values = candidates.best_words()
                kept.append(list(zip(words.tolist(), values.tolist(), strict=True)))
                return chooser(candidates, places)

            return choose

    lm = apply(prior="random", bias=NEVER)
    texts = []
    for name in seen:
        watched = Watched(plain.model, plain.tokenizer, tools=lm.tools, **plain.settings)
        watched.name = name
        texts.append([str(one) for one in answers(watched, requests_of())])
    assert seen["with"] == seen["without"] != []
    assert texts[0] == texts[1]


def test_zero_rows_have_logits_of_exactly_zero(apply: Callable[..., Any], plain: Any) -> None:
    """Acceptance property 2: zero rows, bias 0: every tool logit is exactly 0, and so never beats a positive word."""
    lm = apply(prior="zeros", bias=0.0)
    hidden = torch.randn(50, 32) * 100
    assert torch.equal(lm.tools.head.logits(hidden), torch.zeros(50, 13))
    assert answers(lm, requests_of()) == answers(plain, requests_of())


@pytest.mark.parametrize("prior", ["zeros", "random", "head_rows"])
def test_with_a_bias_of_minus_a_billion_the_text_is_the_plain_models(
    apply: Callable[..., Any], plain: Any, prior: str
) -> None:
    """Acceptance property 2: greedy text equals the plain model's; every request, stop string and order."""
    requests = [*requests_of(max_gen_toks=60), *requests_of(until=["o", "clock"])]
    found = answers(apply(prior=prior, bias=NEVER), requests)
    assert found == answers(plain, requests)
    assert all(one.trace == [] for one in found)  # type: ignore[attr-defined]


def test_untied_heads_answer_as_the_plain_model_and_fire_when_forced(apply: Callable[..., Any], tmp_path: Path) -> None:
    """Section 4: any head, tied or not."""
    untied = load(build_model(tmp_path / "untied", tie_word_embeddings=False))
    fingerprints = tensor_fingerprints(untied.model)
    for prior in ("head_rows", "input_rows", "hidden_mean"):
        assert answers(apply(untied, prior=prior, bias=NEVER), requests_of()) == answers(untied, requests_of())
    found = answers(apply(untied, bias=ALWAYS, max_calls=2, max_argument_tokens=8), requests_of())
    assert all(one.trace for one in found)  # type: ignore[attr-defined]
    assert tensor_fingerprints(untied.model) == fingerprints


def test_a_model_in_four_bits_answers_with_tools(apply: Callable[..., Any], tiny_model: Path) -> None:
    """Acceptance property 21, of properties 1 and 2: a quantised base, on the CPU."""
    pytest.importorskip("bitsandbytes")
    small = load(tiny_model, quantization="nf4")
    fingerprints = tensor_fingerprints(small.model)
    assert answers(apply(small, bias=NEVER), requests_of()) == answers(small, requests_of())
    lm = apply(small, prior="zeros", max_calls=2)
    scripts, texts, calls = mixed(lm)
    found = answers(scripted(lm, scripts), requests_of(list(scripts)))
    assert ([str(one) for one in found], [calls_of(one) for one in found]) == (texts, calls)
    assert tensor_fingerprints(small.model) == fingerprints


def test_a_model_in_bfloat16_answers_with_tools(apply: Callable[..., Any], tiny_model: Path) -> None:
    """Section 9: fp16 or bf16 model; tool logits are float32 and compared with words in float32."""
    half = load(tiny_model, dtype="bfloat16")
    lm = apply(half, bias=NEVER)
    assert lm.tools.head.logits(torch.ones(1, 32, dtype=torch.bfloat16)).dtype == torch.float32
    assert answers(lm, requests_of()) == answers(half, requests_of())
    assert all(
        one.trace for one in answers(apply(half, bias=ALWAYS, max_calls=2, max_argument_tokens=8), requests_of())
    )  # type: ignore[attr-defined]


# --- acceptance property 16: tools off --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"until": ["o", "e c"], "max_gen_toks": 40},
        {"until": [], "max_gen_toks": 7},
        {"until": "th", "max_gen_toks": 1},
        {"num_beams": 2},
    ],
)
def test_with_tools_off_generation_is_the_plain_models(
    apply: Callable[..., Any], plain: Any, settings: dict[str, Any]
) -> None:
    """Acceptance property 16: results with tools off equal the plain harness model's, stop strings and order included."""
    requests = requests_of([*CONTEXTS, CONTEXTS[0], "x" * 600], **settings)
    found = answers(apply(variant="no_tools"), requests)
    assert found == answers(plain, requests)
    assert all(type(one) is str for one in found)


def test_scores_are_the_plain_models_with_tools_loaded(apply: Callable[..., Any], plain: Any) -> None:
    """Acceptance property 16 and section 8: log-likelihoods, rolling ones and those of tokens, bit for bit."""
    lm = apply(bias=ALWAYS)
    pairs = [
        Instance("loglikelihood", {}, (context, " the clock"), 0, metadata=("made_up", n, 1))
        for n, context in enumerate([*CONTEXTS, ""])
    ]
    texts = [
        Instance("loglikelihood_rolling", {}, (context * 4,), 0, metadata=("made_up", 0, 1)) for context in CONTEXTS
    ]
    tokens = [
        Instance("token_loglikelihoods", {}, (context, plain.tokenizer.encode(context)), 0, metadata=("made_up", 0, 1))
        for context in CONTEXTS
    ]
    assert lm.loglikelihood(pairs, disable_tqdm=True) == plain.loglikelihood(pairs, disable_tqdm=True)
    assert lm.loglikelihood_rolling(texts, disable_tqdm=True) == plain.loglikelihood_rolling(texts, disable_tqdm=True)
    assert lm.token_loglikelihoods(tokens) == plain.token_loglikelihoods(tokens)


# --- biases -----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_collection")
def test_keys_of_answers_are_let_go_as_soon_as_they_are_there(
    apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: memory does not grow with the number of documents: at most one set of keys for each text under way."""
    lm = apply(bias=1e3, max_calls=3, max_argument_tokens=3).replace()
    lm = type(lm)(lm.model, lm.tokenizer, tools=lm.tools, batch_size=2)
    alive: list[int] = []

    class Hook:
        def add_partial(self, *_: Any) -> None:
            gc.collect()
            alive.append(sum(isinstance(thing, KeptKeys) for thing in gc.get_objects()))

    monkeypatch.setattr(lm, "cache_hook", Hook())
    found = answers(lm, requests_of([f"Q: what is {n}?\nA:" for n in range(12)], max_gen_toks=6))
    assert all(len(one.trace) == 3 for one in found)
    assert len(alive) == 12 and max(alive) <= 3


@pytest.mark.parametrize("on_error", ["next_best", "text", "stop"])
def test_a_huge_bias_comes_to_an_end(apply: Callable[..., Any], on_error: str) -> None:
    """Section 9, bias too high: fires everywhere, ends, counts every call; each way of taking errors."""
    lm = apply(bias=1e9, on_error=on_error, max_calls=4, max_argument_tokens=6)
    found = answers(lm, requests_of())
    for one in found:
        trace = one.trace  # type: ignore[attr-defined]
        assert 1 <= len(trace) <= 4
        places = [(call["tool"], call["at"]) for call in trace]
        assert len(places) == len(set(places))
        assert all(call["error"] or call["result"] is not None for call in trace)
        assert all(0 <= call["at"] <= len(one) for call in trace)
    if on_error == "stop":
        assert [len(one.trace) for one in found] == [1] * 5  # type: ignore[attr-defined]


def test_without_calls_allowed_the_text_is_the_plain_models_whatever_the_bias(
    apply: Callable[..., Any], plain: Any
) -> None:
    """Section 9: max_calls 0."""
    assert answers(apply(bias=1e9, max_calls=0), requests_of()) == answers(plain, requests_of())


@pytest.mark.parametrize("options", [{"max_calls": 4}, {"on_error": "text", "max_calls": 4}, {"variant": "in_context"}])
def test_a_model_that_cannot_share_gives_the_same_answers(
    apply: Callable[..., Any], tiny_model: Path, options: dict[str, Any]
) -> None:
    """docs/writing-a-plugin.md: what is left because the model cannot share goes through generate_plainly."""
    alone = CausalLM(load(tiny_model).model, load(tiny_model).tokenizer, share_prefixes=False)
    bias = {} if options.get("variant") else {"bias": 3.0}
    found = answers(apply(**bias, **options, max_argument_tokens=8), requests_of())
    assert with_traces(answers(apply(alone, **bias, **options, max_argument_tokens=8), requests_of())) == with_traces(
        found
    )
    assert options.get("variant") or any(trace for _, trace in with_traces(found))


def test_equal_requests_are_answered_once_and_documents_that_tell_other_things_apart(apply: Callable[..., Any]) -> None:
    """Acceptance property 16, order of answers: repeated prompts, and one prompt of two documents with other tools."""
    lm = apply(bias=ALWAYS, max_argument_tokens=4, max_calls=1)
    docs = [{"tool_use": {"tools": [key]}} for key in ("add", "sqrt", "add")]
    found = answers(lm, [request("Forty clocks", doc, number) for number, doc in enumerate(docs)])
    assert [one.trace[0]["tool"] for one in found] == ["add", "sqrt", "add"]  # type: ignore[attr-defined]


# --- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_sample": True, "temperature": 0.7}, "asks for sampling or more than greedy search"),
        ({"num_beams": 2}, "asks for sampling or more than greedy search"),
        ({"repetition_penalty": 1.3}, "asks for sampling or more than greedy search"),
        ({"max_gen_toks": 256}, "the model's context holds 256"),
    ],
)
def test_requests_that_tools_cannot_answer_are_refused_in_words(
    apply: Callable[..., Any], settings: dict[str, Any], words: str
) -> None:
    """Brief: a sampling request is refused; section 8: errors in words."""
    with pytest.raises(HarnessError, match=words) as told:
        answers(apply(), requests_of(**settings))
    assert str(told.value).startswith("request 0 of document 0 in task 'made_up'")


def test_a_prompt_without_tokens_is_refused_and_no_request_is_no_answer(apply: Callable[..., Any], plain: Any) -> None:
    """Section 8: errors in words; nothing asked is nothing answered, as of the plain model."""
    with pytest.raises(HarnessError, match="has a prompt without tokens"):
        answers(apply(), [request("")])
    assert answers(plain, []) == []
    assert answers(apply(), []) == []


def test_a_tokenizer_of_another_model_is_refused_as_the_plain_model_refuses_it(
    apply: Callable[..., Any], plain: Any
) -> None:
    """Section 8: errors in words, where the plain model has them: ids beyond the embeddings."""
    plain.tokenizer.add_tokens(["zzyzx"])
    requests = requests_of(["so zzyzx is"])
    with pytest.raises(HarnessError, match="embeddings for"):
        answers(plain, requests)
    with pytest.raises(HarnessError, match="embeddings for"):
        answers(apply(), requests)


@pytest.mark.parametrize("share", [True, False])
def test_a_broken_model_is_named_with_the_request(apply: Callable[..., Any], tmp_path: Path, share: bool) -> None:
    """Brief: NaN model; the error names the request that is broken and no other."""
    lm = load(build_model(tmp_path / "untied", tie_word_embeddings=False))
    broken = lm.tokenizer.encode("Z")[0]
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[broken] = torch.nan
    lm = CausalLM(lm.model, lm.tokenizer, share_prefixes=share)
    requests = requests_of(["Forty clocks", "He wound", "What is time, Z?", "Children"])
    with pytest.raises(HarnessError) as plainly:
        answers(lm, requests)
    assert "document 2" in str(plainly.value)
    with pytest.raises(HarnessError) as told:
        answers(apply(lm, prior="zeros", bias=0.0), requests)
    assert str(told.value) == str(plainly.value)


def test_a_broken_model_without_sharing_is_named_when_others_were_answered(
    apply: Callable[..., Any], tmp_path: Path
) -> None:
    """Brief: NaN model; everything broken names the first request."""
    lm = load(build_model(tmp_path / "untied", tie_word_embeddings=False))
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.fill_(torch.nan)
    made = apply(lm, prior="zeros", bias=0.0)
    with pytest.raises(HarnessError, match="got NaN logits while generating"):
        answers(made, requests_of())


def test_a_question_longer_than_the_context_is_refused(apply: Callable[..., Any]) -> None:
    """Section 9, left truncation: the question must survive, else refuse."""
    question = "how many clocks " * 60
    with pytest.raises(
        HarnessError, match=r"has a question of \d+ tokens, which does not fit the model's context of 256"
    ):
        answers(apply(), [request(f"Q: {question}\nA:", {"tool_use": {"question": question}})])


def test_a_prompt_cut_on_the_left_keeps_its_question(apply: Callable[..., Any]) -> None:
    """Section 9, left truncation: examples go, the question stays, after a splice and in tool mode as well."""
    lm = apply(prior="zeros", max_argument_tokens=20)
    context = "Q: an old question\nA: an old answer\n\n" * 30 + "Q: how many clocks?\nA:"
    doc = {"tool_use": {"question": "how many clocks?"}}
    made = scripted(lm, {context: Script([" 3+4=", tool(lm, "add"), " in all", lm.eot_token_id], [["3, 4)"]])})
    [found] = answers(made, [request(context, doc)])
    assert str(found) == " 3+4=7 in all"
    assert lm.truncated == {} and made.truncated["made_up"] == 1
    for prompt in made.prompts:
        assert len(prompt.token_ids) + prompt.limit <= 256
        assert "Q: how many clocks?\nA:" in lm.tokenizer.decode(prompt.token_ids)


@pytest.mark.parametrize("context", [16, 40, 64])
def test_a_model_with_a_tiny_context_answers_or_refuses_in_words(
    apply: Callable[..., Any], tmp_path: Path, context: int
) -> None:
    """Brief: a model whose context is tiny."""
    small = load(build_model(tmp_path / "small", max_position_embeddings=context))
    lm = apply(small, bias=ALWAYS, max_argument_tokens=8)
    found = answers(lm, requests_of(["Forty", "He wound them"], max_gen_toks=8))
    assert all(one.trace for one in found)  # type: ignore[attr-defined]
    with pytest.raises(HarnessError, match=f"the model's context holds {context}"):
        answers(lm, requests_of(max_gen_toks=context))


# --- prompts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prompts_file(tmp_path: Path) -> str:
    texts = {
        "add": "Use <add>.\n\nQ: 1 and 1?\nA: <add>(1, 1)=2\n\nQ: [QUESTION]\nA:",
        "func": "With <add>:\n\nQ: [QUESTION]\nA:",
    }
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"set": texts}), encoding="utf-8")
    return str(path)


DOC = {"tool_use": {"question": "how many clocks?", "prompts": "set"}}


def tool_prompt(lm: Any, context: str, doc: dict[str, Any] | None = None) -> str:
    """Return the text under which arguments are written behind ' 3+4='."""
    made = scripted(lm, {context: Script([" 3+4=", tool(lm, "add"), lm.eot_token_id], [["3, 4)"]])})
    [found] = answers(made, [request(context, doc or DOC)])
    assert str(found) == " 3+4=7"
    [text] = [lm.tokenizer.decode(prompt.token_ids) for prompt in made.prompts if prompt.mode == "arguments"]
    return str(text)


def test_the_tools_own_prompt_comes_from_the_file_or_from_its_examples(
    apply: Callable[..., Any], wide: Any, prompts_file: str
) -> None:
    """Section 2.4, tool mode: the tool's own text, the question, the text so far, the opened call."""
    context = "The general text.\n\nQ: how many clocks?\nA:"
    assert tool_prompt(apply(wide, prior="zeros", prompts_file=prompts_file), context) == (
        "Use <add>.\n\nQ: 1 and 1?\nA: <add>(1, 1)=2\n\nQ: how many clocks?\nA: 3+4=<add>("
    )
    made = tool_prompt(apply(wide, prior="zeros"), context)
    assert made.endswith("\n\nQ: how many clocks?\nA: 3+4=<add>(")
    assert made.count("<add>(") >= 3 and "The general text" not in made
    unknown = tool_prompt(apply(wide, prior="zeros"), context, {"other": 1})
    assert unknown.endswith("The general text.\n\nQ: how many clocks?\nA: 3+4=<add>(")


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context that all prompts fit."""
    return build_model(tmp_path_factory.mktemp("models") / "wide", max_position_embeddings=3000)


@pytest.fixture
def wide(wide_model: Path) -> Any:
    return load(wide_model)


@pytest.fixture
def chatting(wide_model: Path) -> Any:
    lm = load(wide_model)
    lm.tokenizer.chat_template = CHAT
    return lm


def test_a_chat_template_stays_around_the_tools_prompt(apply: Callable[..., Any], chatting: Any) -> None:
    """Section 9, chat models: the reasoning prompt inside the user turn, tool mode continues the assistant turn."""
    context = chatting.apply_chat_template([{"role": "user", "content": "Hello.\n\nQ: how many clocks?\nA:"}])
    made = tool_prompt(apply(chatting, prior="zeros"), context)
    assert made.startswith("<|user|>\nAnswer the question with the tool <add>")
    assert made.endswith("Q: how many clocks?\nA:<|over|>\n<|assistant|>\n 3+4=<add>(")
    assert made.count("<|user|>") == 1


def test_a_chat_template_stays_around_a_prompt_of_the_file(
    apply: Callable[..., Any], chatting: Any, prompts_file: str
) -> None:
    """Section 9, chat models: tool mode continues the assistant turn, with prompt texts of a file as well."""
    context = chatting.apply_chat_template([{"role": "user", "content": "Hello.\n\nQ: how many clocks?\nA:"}])
    made = tool_prompt(apply(chatting, prior="zeros", prompts_file=prompts_file), context)
    assert made.startswith("<|user|>\nUse <add>.")
    assert made.endswith("<|over|>\n<|assistant|>\n 3+4=<add>(")


def test_a_system_prompt_stays_before_the_tools_prompt(apply: Callable[..., Any], chatting: Any) -> None:
    """Section 9, chat models: with --system_instruction the user's turn still begins as the template has it."""
    context = chatting.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello.\n\nQ: how many clocks?\nA:"}]
    )
    made = tool_prompt(apply(chatting, prior="zeros"), context)
    assert made.startswith("<|system|>\nBe brief.<|over|>\n<|user|>\n")
    assert made.endswith("Q: how many clocks?\nA:<|over|>\n<|assistant|>\n 3+4=<add>(")


@pytest.mark.parametrize("has_file", [False, True])
def test_in_context_a_chat_template_stays_around_the_list_of_tools(
    apply: Callable[..., Any], chatting: Any, prompts_file: str, has_file: bool
) -> None:
    """Section 8, in-context baseline, with section 9, chat models: the assistant answers, not the user."""
    lm = apply(chatting, variant="in_context", prompts_file=prompts_file if has_file else None)
    context = chatting.apply_chat_template([{"role": "user", "content": "Hello.\n\nQ: how many clocks?\nA:"}])
    seen = in_context_prompts(lm, [request(context, DOC)])
    assert seen[0].startswith("<|user|>\n") and seen[0].endswith("<|over|>\n<|assistant|>\n")


def in_context_prompts(lm: Any, requests: list[Instance]) -> list[str]:
    """Return the prompts of a model that writes calls as text; its answers are end-of-text at once."""

    class Watched(ToolTokenLM):
        @property
        def _chooser(self) -> Any:
            def choose(candidates: Candidates, places: Sequence[Place]) -> list[int]:
                seen.extend(self.tokenizer.decode(place.prompt.token_ids) for place in places)
                return [self.eot_token_id for _ in places]

            return choose

    seen: list[str] = []
    answers(Watched(lm.model, lm.tokenizer, tools=lm.tools, **lm.settings), requests)
    return seen


def test_in_context_the_prompt_lists_the_tools_with_an_example_or_is_the_files(
    apply: Callable[..., Any], wide: Any, prompts_file: str
) -> None:
    """Section 8, baselines: in-context list of tools, with and without a prompts file; only what the task allows."""
    context = "General.\n\nQ: how many clocks?\nA:"
    [listed] = in_context_prompts(apply(wide, variant="in_context"), [request(context, DOC)])
    for key in ("add", "permutate"):
        assert f"<{key}>(" in listed
    assert listed.endswith("\n\nQ: how many clocks?\nA:") and "General." not in listed
    [filed] = in_context_prompts(apply(wide, variant="in_context", prompts_file=prompts_file), [request(context, DOC)])
    assert filed == "With <add>:\n\nQ: how many clocks?\nA:"
    told = {"tool_use": {**DOC["tool_use"], "tools": ["lcm"]}}
    [few] = in_context_prompts(apply(wide, variant="in_context"), [request(context, told)])
    assert "<lcm>" in few and "<add>" not in few


def test_sentences_in_the_tools_prompt_end_once(apply: Callable[..., Any], wide: Any) -> None:
    """Section 2.4, tool mode: a line naming the tool, whose description is a sentence already."""
    assert ".." not in tool_prompt(apply(wide, prior="zeros"), "Q: how many clocks?\nA:").split("\n\n")[0]


def test_in_context_a_list_of_tools_that_is_cut_is_counted(apply: Callable[..., Any]) -> None:
    """Section 9, long prompts: count it; the question stays."""
    lm = apply(variant="in_context")

    class Counting(ToolTokenLM):
        pass

    made = Counting(lm.model, lm.tokenizer, tools=lm.tools, **lm.settings)
    answers(made, [request("General.\n\nQ: how many clocks?\nA:", DOC)])
    assert made.truncated["made_up"] == 1


# --- procedures and baselines ---------------------------------------------------------------------------------------------

PLAN_TOOLS = [
    {"key": text, "name": text.strip("[]<>").lower(), "text": text, "description": "does or is a thing"}
    for text in ("[WALK]", "[OPEN]", "[END]", "<attic>", "<lamp>", "<letter>")
]
PLAN_DOC = {
    "tool_use": {
        "procedure": "plan",
        "question": "Read the letter",
        "objects": ["attic", "letter"],
        "actions": ["[WALK]", "[OPEN]"],
        "end": "[END]",
        "tools": [each["key"] for each in PLAN_TOOLS],
        "calls": [{"tool": key, "args": "", "result": key} for key in ("[WALK]", "<attic>", "[END]")],
    }
}
PLAN_MORE = {"until": ["[END]", "Task", "\n\n"], "max_gen_toks": 9}


@pytest.fixture
def plan_tools(tmp_path: Path) -> str:
    path = tmp_path / "plan_tools.json"
    path.write_text(json.dumps(PLAN_TOOLS), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("share", [True, False])
def test_a_plan_holds_objects_of_the_scene_and_no_action_twice_in_a_row(
    apply: Callable[..., Any], plan_tools: str, plain: Any, share: bool
) -> None:
    """Section 2.4, VirtualHome, on a real model: every step is a tool token, objects outside the scene are barred."""
    lm = apply(CausalLM(plain.model, plain.tokenizer, share_prefixes=share), tools=(plan_tools,), prior="random")
    prompts = [f"Task 2:\nGoal:\nRead the letter {n}\nPlan:\n" for n in range(6)]
    found = answers(lm, [request(text, PLAN_DOC, n, **PLAN_MORE) for n, text in enumerate(prompts)])
    for one in found:
        keys = [call["tool"] for call in one.trace]  # type: ignore[attr-defined]
        assert 1 <= len(keys) <= 9 and "<lamp>" not in keys
        assert one.replace("\n", " ").split() == [key for key in keys if key != "[END]"]
        assert keys.index("[END]") == len(keys) - 1 if "[END]" in keys else len(keys) == 9
        opened = [line.split(" ")[0] for line in one.split("\n")]
        assert all(not (a == b == "[OPEN]") for a, b in itertools.pairwise(opened))


@pytest.mark.parametrize("variant", ["in_context", "oracle_tool", "oracle_call"])
def test_baselines_answer_plans_or_refuse_in_words(apply: Callable[..., Any], plan_tools: str, variant: str) -> None:
    """Section 8, baselines by one switch, of the procedure plan: an answer, or one sentence; never a crash or nonsense."""
    lm = apply(tools=(plan_tools,), variant=variant)
    found, told = "", ""
    try:
        [found] = answers(lm, [request("Task 2:\nGoal:\nRead the letter\nPlan:\n", PLAN_DOC, **PLAN_MORE)])
    except HarnessError as error:
        told = str(error)
    if told:
        assert "plan" in told or variant in told
    elif variant != "in_context":
        assert found.split()[:2] == ["[WALK]", "<attic>"]


@pytest.mark.parametrize("variant", ["tools", "oracle_tool", "oracle_call", "in_context"])
def test_naming_a_tool_ends_the_answer(apply: Callable[..., Any], variant: str, plain: Any) -> None:
    """Section 2.4, KAMEL: the answer ends with the key, by rows, oracles and calls that are written."""
    doc = {
        "tool_use": {"procedure": "name", "question": "how many", "calls": [{"tool": "lcm", "args": "", "result": "x"}]}
    }
    lm = apply(variant=variant, **({} if variant in ("in_context", "oracle_call") else {"bias": ALWAYS}))
    [found] = answers(lm, [request("Q: how many\nA: It is", doc)])
    if variant == "in_context":
        assert isinstance(found.trace, list)  # type: ignore[attr-defined]
        return
    [call] = found.trace  # type: ignore[attr-defined]
    assert found.endswith(f"<{call['tool']}>") and call["result"] is None
    assert variant == "tools" or call["tool"] == "lcm"


def test_an_oracle_needs_a_task_that_tells_right_calls(apply: Callable[..., Any]) -> None:
    """Section 8: errors in words."""
    for variant in ("oracle_tool", "oracle_call"):
        with pytest.raises(HarnessError, match=f"its task tells no right calls, which {variant} needs"):
            answers(apply(variant=variant), requests_of())


def test_right_calls_with_nothing_before_them_answer_with_their_result(apply: Callable[..., Any]) -> None:
    """Section 8, oracle call: a data set gives None for a key that some of its documents lack."""
    lm = apply(variant="oracle_call")
    for call in ({"before": None}, {"before": "-"}, {}):
        doc = {"tool_use": {"calls": [{"tool": "add", "args": "1, 2", "result": "3", **call}]}}
        assert (
            str(answers(lm, [request("Q: how many\nA:", doc)])[0]).rpartition("#### ")[2]
            == (call.get("before") or "") + "3"
        )


def test_an_oracle_whose_right_tool_is_not_there_says_so(apply: Callable[..., Any]) -> None:
    """Section 8: errors in words, unknown tool."""
    doc = {"tool_use": {"calls": [{"tool": "lcm", "args": "2, 3", "result": "6"}]}}
    lm = apply(tools=("gsm8k",), variant="oracle_tool", bias=ALWAYS)
    with pytest.raises(HarnessError, match="lcm"):
        answers(lm, [request("Q: how many\nA:", doc)])


def test_oracle_tool_forces_the_right_tools_and_lets_the_model_write_arguments(apply: Callable[..., Any]) -> None:
    """Section 8, baselines: the gold tool forced, in order; no more calls than there are gold ones."""
    doc = {"tool_use": {"calls": [{"tool": key, "args": "1, 2", "result": "x"} for key in ("lcm", "gcd")]}}
    lm = apply(variant="oracle_tool", bias=ALWAYS, max_argument_tokens=6)
    [found] = answers(lm, [request("Q: how many\nA:", doc)])
    assert [(c["tool"], c["forced"]) for c in found.trace] == [  # type: ignore[attr-defined]
        ("lcm", "oracle tool"), ("gcd", "oracle tool")
    ]  # fmt: skip


# --- tools of a user --------------------------------------------------------------------------------------------------------

MINE = """
import os, sys, time
from harness_tool_tokens import tool

@tool(description="Hangs.", examples=["Q: a\\nA: <hang>(1)=1", "Q: b\\nA: <hang>(2)=2"])
def hang(text):
    while True:
        time.sleep(0.1)

@tool(description="Raises.", examples=["Q: a\\nA: <raising>(1)=1", "Q: b\\nA: <raising>(2)=2"])
def raising(text):
    raise ValueError("no such word")

@tool(description="Prints.", examples=["Q: a\\nA: <printing>(1)=1", "Q: b\\nA: <printing>(2)=2"])
def printing(text):
    print('{"text": "forged"}')
    os.write(1, b"noise\\n")
    return f"said {text}\\nand done"
"""


def test_tools_of_a_user_that_hang_raise_or_print_harm_no_answer(apply: Callable[..., Any], tmp_path: Path) -> None:
    """Section 9, user tools: slow, crashing, printing; typed outcomes, and the answers around them go on."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    lm = apply(tools=(str(tmp_path / "mine.py"),), prior="zeros", tool_timeout=0.7, prior_text="{name}")
    end = lm.eot_token_id
    scripts = {
        f"Q {key}": Script(
            [" it=", tool(lm, key), (tool(lm, key), lm.tokenizer.encode("?")[0]), " so", end], [["clock)"]]
        )
        for key in ("hang", "raising", "printing")
    }
    started = time.monotonic()
    found = answers(scripted(lm, scripts), requests_of(list(scripts)))
    assert time.monotonic() - started < 10
    assert [str(one) for one in found] == [" it=? so", " it=? so", " it=said clock and done? so"]
    [[hung], [raised], [printed]] = [one.trace for one in found]  # type: ignore[attr-defined]
    assert (hung["error"], raised["error"], printed["error"]) == ("timeout", "domain", None)
    assert "ValueError: no such word" in raised["detail"]


def test_tools_of_a_user_with_a_forced_bias_end_to_end(apply: Callable[..., Any], tmp_path: Path) -> None:
    """Section 9, user tools, chosen by the real model: whatever it writes as arguments, the answers come."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    options = {"tool_timeout": 0.5, "max_calls": 2, "max_argument_tokens": 12, "bias": ALWAYS}
    lm = apply(tools=(str(tmp_path / "mine.py"),), **options)
    found = answers(lm, requests_of(CONTEXTS[:3]))
    assert all(1 <= len(one.trace) <= 2 for one in found)  # type: ignore[attr-defined]


def test_settings_go_with_the_model_when_a_method_replaces_it(apply: Callable[..., Any]) -> None:
    """Contract: the LM stays one with tools when another method replaces its model."""
    lm = apply(bias=ALWAYS, max_calls=1)
    again = lm.replace(model=lm.model)
    assert with_traces(answers(again, requests_of())) == with_traces(answers(lm, requests_of()))
    assert dataclasses.asdict(again.tools.limits) == dataclasses.asdict(lm.tools.limits)
