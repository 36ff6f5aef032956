"""What a review of answers with tools, of their training and of their tasks found, one demand each."""

from __future__ import annotations

import gc
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from tiny_models import SIZES, build_tokenizer

from harness import HarnessError
from harness.methods.known_texts import text_digest
from harness.models.causal import CausalLM
from harness.models.tree import fitness, generation
from harness.models.tree.row_attention import KeptKeys
from harness.run.journal import Journal
from harness.run.preparing import prepare
from harness.run.run import Run
from harness.tasks import finding
from harness_tool_tokens.answering.lm import ToolTokenLM
from harness_tool_tokens.method import ROWS_FILE, ToolTokens
from harness_tool_tokens.rows.prior import prior_rows
from harness_tool_tokens.tasks import data
from harness_tool_tokens.tools.arguments import Outcome
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.toolbox import Toolbox

NEVER, ALWAYS = -1e9, 1e4
MORE = {"until": ["\n\n"], "max_gen_toks": 16, "do_sample": False}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_TOOL_DATA", raising=False)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def plain(model: Any, tokenizer: Any) -> CausalLM:
    return CausalLM(model, tokenizer)


@pytest.fixture
def apply(tmp_path: Path, plain: CausalLM) -> Callable[..., Any]:
    """Return a function that applies the method with options to the tiny model or another LM; ``workdir`` is on the LM."""

    def applying(lm: CausalLM | None = None, **options: Any) -> Any:
        workdir = tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}"
        workdir.mkdir()
        made: Any = ToolTokens(**options).apply(lm or plain, seed=0, workdir=workdir)
        made.workdir = workdir
        return made

    return applying


def request(context: str, doc: Any = None, number: int = 0, **settings: Any) -> Instance:
    return Instance("generate_until", doc or {}, (context, MORE | settings), 0, metadata=("made_up", number, 1))


def questions(count: int, **settings: Any) -> list[Instance]:
    contexts = [f"Answer.\n\nQuestion: what is {n} and {n * 3}?\nAnswer:" for n in range(count)]
    return [request(context, None, n, **settings) for n, context in enumerate(contexts)]


def answers(lm: Any, requests: list[Instance]) -> list[Any]:
    found: list[Any] = lm.generate_until(requests, disable_tqdm=True)
    return found


def told(found: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return texts and calls to compare, without margins, which other batches round otherwise."""
    return [
        (str(one), [{name: value for name, value in call.items() if name != "margin"} for call in one.trace])
        for one in found
    ]


def write_lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def training_row(number: int, before: str, result: str, after: str, tool: str = "add") -> dict[str, Any]:
    """Return a row of training text: a call of ``tool`` between two texts."""
    call = {"tool": tool, "args": "1, 2", "result": result, "start": len(before), "end": len(before) + len(result)}
    return {"id": f"row-{number}", "text": before + result + after, "calls": [call]}


# --- models whose texts may share up to a length ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rough_tokenizer() -> Any:
    return build_tokenizer()


def configured(kind: str, tokenizer: Any, limit: int | None, context: int) -> Any:
    """Return a tiny model with large random weights, of a kind whose texts share up to ``limit`` tokens."""
    from transformers import MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM

    sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": context, "initializer_range": 0.3}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "window":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=64, head_dim=8)).eval()
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope["original_max_position_embeddings"] = limit or context
    more = {"rope_parameters": rope, "original_max_position_embeddings": rope["original_max_position_embeddings"]}
    return Phi3ForCausalLM(Phi3Config(**sizes, **more)).eval()


@pytest.mark.parametrize(("kind", "limit", "context"), [("window", None, 32768), ("longrope", 128, 512)])
def test_models_with_windows_and_longrope_share_their_work_with_tools_loaded_too(
    apply: Callable[..., Any], rough_tokenizer: Any, kind: str, limit: int | None, context: int
) -> None:
    """Demand: a bound that the context lies beyond excludes no prompt: as many tokens are pushed as without tools."""
    bare = CausalLM(configured(kind, rough_tokenizer, limit, context), rough_tokenizer)
    lm = apply(CausalLM(bare.model, rough_tokenizer), bias=NEVER)
    requests = questions(6, max_gen_toks=60)  # beyond the window
    assert answers(lm, requests) == answers(bare, requests)
    assert bare.work.plain_tokens == lm.work.plain_tokens == 0
    assert 0 < lm.work.pushed_tokens <= 1.1 * bare.work.pushed_tokens


@pytest.mark.parametrize("kind", ["window", "longrope"])
@pytest.mark.parametrize("outcome", [Outcome("12 clocks and 345 more"), Outcome(None, "domain")])
def test_texts_that_grow_by_calls_end_within_what_the_model_can_share(
    apply: Callable[..., Any],
    rough_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    outcome: Outcome,
) -> None:
    """Demand: calls and results never carry a text over the bound; answers are those of a model with that context.

    A prompt beyond it is answered as if nothing were shared, and disturbs no other.
    """
    monkeypatch.setattr(fitness, "WINDOWED_TOKENS", 110)
    made = configured(kind, rough_tokenizer, 110, 400)
    texts = [
        "Q: how many clocks are there?\nA:",
        "Children",
        "Q: why?\nA: He",
        "Q: what is time? asked the children\nA:",
    ]
    requests = [request(text, {}, n, max_gen_toks=30, until=["\n\n\n"]) for n, text in enumerate(texts)]
    far = request("The clocks ticked there, and he wound them. " * 8, {}, 9, max_gen_toks=6)
    longest: list[int] = []

    def with_tools(**settings: Any) -> Any:
        lm = apply(
            CausalLM(made, rough_tokenizer, **settings),
            tools=("gsm8k",),
            bias=ALWAYS,
            on_error="text",
            max_argument_tokens=5,
        )
        monkeypatch.setattr(lm.tools.executor, "call", lambda *_: outcome)
        return lm

    within, alone, chooser = with_tools(), with_tools(share_prefixes=False), ToolTokenLM._chooser.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(ToolTokenLM, "_chooser", property(lambda self: watching(chooser(self), longest)))
    found = told(answers(within, requests))
    assert within.work.plain_tokens == 0 and within._sharing.refusal is None
    assert 100 < max(longest) < 110
    assert all(len(calls) > 2 for _, calls in found)
    assert told(answers(with_tools(share_prefixes=False, max_length=110), requests)) == found
    both = told(answers(within, [requests[0], far, *requests[1:]]))
    assert [both[0], *both[2:]] == found
    assert told(answers(alone, [far])) == both[1:2]
    assert within.work.plain_tokens == alone.work.plain_tokens > 0


def watching(chooser: Any, longest: list[int]) -> Any:
    """Return the chooser, the length of every text that it is asked about put on a list."""

    def choose(candidates: Any, places: Any) -> Any:
        longest.extend(len(place.prompt.token_ids) + len(place.generated) for place in places)
        return chooser(candidates, places)

    return choose


# --- the leak guard ---------------------------------------------------------------------------------------------------------

KNOWN = "How many clocks has the shop of Anna Bell?"
OTHER = "How many clocks has the shop of Carl Dorn?"


@pytest.fixture(params=["trained", "loaded"])
def leaked(apply: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that gives an LM whose rows were trained on rows of text, or were loaded from a file of such."""

    def make(rows: Sequence[Any], **options: Any) -> Any:
        common = {"prior": "zeros", "bias": 0.0, **options}
        lm = apply(train_file=write_lines(tmp_path / "leak.jsonl", rows), steps=1, **common)
        if request.param == "loaded":
            lm = apply(rows_file=lm.workdir / ROWS_FILE, **common)
        return lm

    return make


def about(question: str, procedure: str, context: str, **more: Any) -> Instance:
    return request(context, {"tool_use": {"procedure": procedure, "question": question, "calls": [], **more}})


def test_tool_choice_knows_a_training_text_whatever_white_space_ends_it(leaked: Callable[..., Any]) -> None:
    """Demand: a text up to its call is a trained one also where the space before the result is not there."""
    rows = [training_row(0, f"Question: {KNOWN}\nAnswer: The answer is ", "14", ".")]
    lm = leaked(rows)

    def ask(text: str) -> Any:
        calls = {"calls": [{"tool": "add", "start": len(text), "end": len(text)}]}
        return lm.tool_choice([Instance("tool_choice", {}, (text, calls), 0, metadata=("made_up", 0, 1))])

    for text in (f"Question: {KNOWN}\nAnswer: The answer is", f"Question: {KNOWN}\nAnswer: The answer is \n"):
        with pytest.raises(HarnessError, match="is among the rows that the tools were trained on"):
            ask(text)
    [answer] = ask(f"Question: {OTHER}\nAnswer: The answer is")
    assert [call["tool"] for call in answer["calls"]] == ["add"]


@pytest.mark.parametrize(
    ("procedure", "trained", "context"),
    [
        ("name", "Question: {}\nAnswer: The answer is ", "Question: {}\nAnswer: The answer is"),
        ("name", "{}\nIt is ", "Question: Who?\nAnswer: He\n\nQuestion: {}\nAnswer: The answer is"),
        ("calls", "Q: {}\nA: They are 3+4=", "Answer it.\n\nQ: What is 1 and 1?\nA: 1+1=2\n\nQ: {}\nA:"),
        ("calls", "Q: What is 1 and 1?\nA: 2\n\nQ: {}\nA: They are 3+4=", "{}"),
    ],
)
def test_a_question_that_was_trained_on_is_refused_and_another_is_not(
    leaked: Callable[..., Any], procedure: str, trained: str, context: str
) -> None:
    """Demand: answers to training questions mean nothing, whatever stands around these; any other question is asked."""
    rows = [training_row(0, trained.format(KNOWN), "7", " in all."), training_row(1, "Q: 2+2?\nA: 2+2=", "4", ".")]
    lm = leaked(rows)
    with pytest.raises(HarnessError, match="asks what the tools were trained on") as refused:
        answers(lm, [about(OTHER, procedure, context.format(OTHER)), about(KNOWN, procedure, context.format(KNOWN))])
    assert "\n" not in str(refused.value) and "train_file" in str(refused.value)
    for question in (
        OTHER,
        f"Has Anna Bell more clocks than Carl Dorn?\n{KNOWN}",
    ):  # the whole of it was not trained on
        [found] = answers(lm, [about(question, procedure, context.format(question))])
        assert isinstance(found.trace, list)


PLAN_TOOLS = [
    {"key": text, "name": text.strip("[]<>").lower(), "text": text, "description": "does or is a thing"}
    for text in ("[WALK]", "[OPEN]", "[END]", "<attic>", "<letter>")
]


@pytest.fixture
def plan_tools(tmp_path: Path) -> str:
    path = tmp_path / "plan_tools.json"
    path.write_text(json.dumps(PLAN_TOOLS), encoding="utf-8")
    return str(path)


def plan_prompt(goal: str) -> str:
    """Return a prompt of which only the goal is its own."""
    return f"Objects at hand:\nattic, letter\nGoal:\n{goal}\nHint:\nWhat is to be done is written below?\nPlan:\n"


def test_a_plan_that_was_trained_on_is_refused_and_another_of_the_same_scene_is_not(
    leaked: Callable[..., Any], plan_tools: str
) -> None:
    """Demand: of plans the whole prompt counts, since each of its lines is that of many others."""
    plan = ["[WALK] <attic>", "[OPEN] <letter>", "[END]"]
    rows = [{"id": "plan-0", "prompt": plan_prompt("Read the letter"), "plan": plan}]
    lm = leaked(rows, tools=(plan_tools,), positions="tools")
    known, other = plan_prompt("Read the letter"), plan_prompt("Write a letter")
    with pytest.raises(HarnessError, match="asks what the tools were trained on"):
        answers(lm, [about(known, "plan", f"Make plans.\n\n{known}")])
    [found] = answers(lm, [about(other, "plan", f"Make plans.\n\n{other}", objects=["attic", "letter"])])
    assert found.trace


def test_digests_of_texts_do_not_depend_on_white_space_but_on_words() -> None:
    """Demand: what is trained on is known by its words."""
    assert text_digest(" a  b\n") == text_digest("a b") != text_digest("ab")


# --- rows and the cache -----------------------------------------------------------------------------------------------------


def test_rows_are_the_same_to_the_byte_whatever_the_cache_held(
    apply: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: states of a text do not depend on the texts beside it, so rows do not depend on what ran before."""
    words = "and then he wound the clocks of the bank in the order in which he had bought them"
    rows = [
        training_row(n, f"Q: What is {n} {words[: 5 * n % 83]}?\nA: It is {n}+2=", str(n + 2), " it is.", tool)
        for n, tool in zip(range(24), itertools.cycle(["add", "multiply", "divide"]))
    ]
    train_file = write_lines(tmp_path / "rows.jsonl", rows)

    def made(cache: str, shots: int) -> bytes:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / cache))
        lm = apply(train_file=train_file, shots_per_tool=shots, steps=200)
        content: bytes = (lm.workdir / ROWS_FILE).read_bytes()
        return content

    fresh = made("one", 6)
    assert made("two", 6) == fresh
    few = [made("three", shots) for shots in (1, 3)]
    assert made("three", 6) == fresh and fresh not in few
    assert made("one", 6) == fresh  # all of it out of the cache


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": "0 epochs"}, {"steps": 3}])
def test_tokens_that_were_trained_on_are_counted_by_what_was_done(
    apply: Callable[..., Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Demand: without a step no token was trained on; three steps of one text each are one pass over three texts."""
    rows = [training_row(n, f"Q: What is {n}+2?\nA: {n}+2=", str(n + 2), ".") for n in range(3)]
    lm = apply(train_file=write_lines(tmp_path / "rows.jsonl", rows), **settings)
    report = json.loads((lm.workdir / "report.json").read_text(encoding="utf-8"))
    if settings["steps"] != 3:
        assert report["tokens_trained"] == 0
    else:
        ids = [lm.tokenizer.encode(row["text"]) for row in rows]
        assert 0 < report["tokens_trained"] <= sum(len(one) + 1 for one in ids)


# --- documents with equal prompts, and the journal ------------------------------------------------------------------------


def gold(key: str, arguments: str, number: int, question: str = "what is it?") -> Instance:
    call = {"tool": key, "args": arguments, "result": "?"}
    doc = {"question": question, "tool_use": {"question": question, "calls": [call]}}
    return request(f"Question: {question}\nAnswer:", doc, number)


def mixed_gold() -> list[Instance]:
    return [
        gold("add", "1, 2", 0),
        gold("lcm", "5, 6", 1),
        gold("multiply", "7, 7", 2, "and how many clocks?"),
        gold("add", "1, 2", 3),
        gold("gcd", "8, 12", 4),
    ]


@pytest.fixture(params=["oracle_call", "oracle_tool"])
def oracle(request: pytest.FixtureRequest, apply: Callable[..., Any]) -> Callable[[], Any]:
    """Return a function that gives an LM whose answers depend on what documents tell."""
    more = {} if request.param == "oracle_call" else {"bias": ALWAYS, "max_argument_tokens": 5, "prior": "zeros"}
    return lambda: apply(variant=request.param, **more)


def test_documents_with_equal_prompts_get_their_own_answers_when_a_run_goes_on(
    oracle: Callable[[], Any], tmp_path: Path
) -> None:
    """Demand: whatever of them was answered before the run was stopped, and after it was over, too."""
    lm = oracle()
    right = told(answers(lm, mixed_gold()))
    assert right[0] == right[3] and len({repr(one) for one in right}) == 4
    call = lm.tools.executor.call
    for stops_at in (1, 2, 3, 4, 99):
        times, output = itertools.count(1), tmp_path / f"run-{stops_at}"

        def stopping(*arguments: str, times: Any = times, stops_at: int = stops_at) -> Any:
            if next(times) == stops_at:
                raise KeyboardInterrupt
            return call(*arguments)

        lm.tools.executor.call = stopping
        try:
            with Journal(output, {"run": 1}).answering(lm, "made_up"):
                assert told(answers(lm, mixed_gold())) == right
        except KeyboardInterrupt:
            pass
        lm.tools.executor.call = call
        again = Journal(output, {"run": 1})
        with again.answering(lm, "made_up"):
            assert told(answers(lm, mixed_gold())) == right, stops_at
        assert stops_at < 99 or again.reused == 5


def test_a_document_that_changed_behind_its_prompt_is_asked_again(oracle: Callable[[], Any], tmp_path: Path) -> None:
    """Demand: an answer to what a document told before is not one to what it tells now."""
    lm = oracle()
    with Journal(tmp_path / "run", {"run": 1}).answering(lm, "made_up"):
        answers(lm, mixed_gold())
    changed = [*mixed_gold()[:2], gold("sqrt", "16", 2, "and how many clocks?"), *mixed_gold()[3:]]
    again = Journal(tmp_path / "run", {"run": 1})
    with again.answering(lm, "made_up"):
        found = answers(lm, changed)
    assert again.reused == 4
    assert [one.trace[0]["tool"] for one in found] == ["add", "lcm", "sqrt", "add", "gcd"]
    assert told(found) == told(answers(lm, changed))


# --- keys -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"bias": ALWAYS}, {"bias": ALWAYS, "on_error": "text"}, {"variant": "in_context"}])
def test_unfinished_answers_hold_no_keys_when_they_begin_again(
    apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Demand: where memory ran out, nothing of the first attempt takes any of it; answers are the same."""
    lm = apply(**options, max_calls=3, max_argument_tokens=5)
    right = told(answers(lm, questions(12)))
    step, begin, keep = (getattr(generation._Generation, name) for name in ("_step", "__init__", "_keep"))
    for fails_at in (4, 9):
        steps, at_start, kept = itertools.count(1), [], [0]

        def failing(self: Any, steps: Any = steps, fails_at: int = fails_at) -> None:
            if next(steps) == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            step(self)

        def beginning(self: Any, *arguments: Any, at_start: list[int] = at_start) -> None:
            gc.collect()
            at_start.append(sum(type(thing) is KeptKeys and bool(thing.layers) for thing in gc.get_objects()))
            begin(self, *arguments)

        def keeping(self: Any, *arguments: Any, kept: list[int] = kept) -> None:
            kept[0] += 1
            keep(self, *arguments)

        for name, made in (("_step", failing), ("__init__", beginning), ("_keep", keeping)):
            monkeypatch.setattr(generation._Generation, name, made)
        assert told(answers(lm, questions(12))) == right
        assert at_start == [0, 0] and kept[0] > 0
        monkeypatch.undo()


# --- errors in words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not JSON", "is no valid JSON"),
        ("[]", "does not map data sets to prompt texts"),
        ('{"sums": {"add": "no slot"}}', "has to hold one [QUESTION]"),
        ('{"sums": {"add": "[QUESTION] [QUESTION]"}}', "has to hold one [QUESTION]"),
        ('{"sums": {"add": 3}}', "does not map data sets to prompt texts"),
        ('{"sums": {"add": "Q: [QUESTION]"}}', ""),
    ],
)
def test_a_wrong_file_of_prompts_is_refused_before_weights_are_loaded(
    tiny_model: Path, tmp_path: Path, content: str, words: str
) -> None:
    """Demand: what can be found without weights is found before they are loaded."""
    rows = [training_row(n, f"Q: {n}+2?\nA: {n}+2=", str(n + 2), ".") for n in range(3)]
    file = tmp_path / "prompts.json"
    file.write_text(content, encoding="utf-8")
    run = Run(
        tasks=("tool_choice",),
        plugin="tool_tokens",
        method_args={"prompts_file": str(file)},
        model_args={"pretrained": str(tiny_model)},
        metadata={"rows": write_lines(tmp_path / "rows.jsonl", rows), "holdout": 1},
        output_path=tmp_path / "out",
    )
    if not words:
        assert list(prepare(run).tasks.tasks) == ["tool_choice"]
        return
    with pytest.raises(HarnessError) as refused:
        prepare(run)
    assert words in str(refused.value) and "\n" not in str(refused.value)


FORKS = """
import os, time
from harness_tool_tokens import tool

def _fork(parent_waits, child):
    pid = os.fork()
    if pid == 0:
        return child()
    if parent_waits:
        os.waitpid(pid, 0)
    return f"parent"

def _raise():
    raise ValueError("child")

@tool(description="Forks.", examples=["Q: a\\nA: <forks>(returns)=1", "Q: b\\nA: <forks>(2)=2"])
def forks(how):
    if how == "returns":
        return _fork(True, lambda: "child")
    if how == "raises":
        return _fork(True, _raise)
    if how == "exits":
        return _fork(True, lambda: exit(3))
    return _fork(False, lambda: time.sleep(0.3) or "late child")

@tool(description="Says it again.", examples=["Q: a\\nA: <again>(1)=1", "Q: b\\nA: <again>(2)=2"])
def again(text):
    return f"again {text}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_tool_that_forks_gives_one_result_and_later_calls_get_their_own(tmp_path: Path) -> None:
    """Demand: a child that comes back from the tool says nothing, at once or late."""
    (tmp_path / "forks.py").write_text(FORKS, encoding="utf-8")
    with Executor(Toolbox.load([str(tmp_path / "forks.py")])) as executor:
        for number, how in enumerate(("returns", "raises", "late", "exits", "returns")):
            assert executor.call("forks", how).text == "parent", how
            assert executor.call("again", str(number)).text == f"again {number}"
        late = [executor.call("again", str(number)).text for number in range(3)]
        assert late == [f"again {number}" for number in range(3)]


GENERATOR = """
from harness_tool_tokens import tool

{mark}def counts(text):
    for letter in text:
        yield letter
"""
MARK = '@tool(description="Counts.", examples=["Q: a\\nA: <counts>(1)=1", "Q: b\\nA: <counts>(2)=2"])\n'


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_generator_as_a_tool_is_refused_in_a_sentence(tmp_path: Path, is_listed: bool) -> None:
    """Demand: its result would be an object without meaning; the sentence says what to do."""
    path = tmp_path / "counts.py"
    path.write_text(GENERATOR.format(mark="" if is_listed else MARK), encoding="utf-8")
    if is_listed:
        listed = {"name": "counts", "description": "Counts.", "function": "counts.py:counts", "arity": "1"}
        path = tmp_path / "tools.json"
        path.write_text(json.dumps([listed]), encoding="utf-8")
    with pytest.raises(HarnessError, match="is a generator; make it return its result") as refused:
        Toolbox.load([str(path)])
    assert "counts" in str(refused.value) and "\n" not in str(refused.value)


def test_a_plan_is_refused_in_a_sentence_when_no_tool_is_a_token_of_plans(apply: Callable[..., Any]) -> None:
    """Demand: arithmetic makes no plan; the sentence says which tools would."""
    doc = {"tool_use": {"procedure": "plan", "question": "Read", "objects": ["letter"], "tools": ["[WALK]"]}}
    for tools in (("arithmetic",), ("gsm8k",)):
        with pytest.raises(HarnessError, match="none of the tools is a token of plans") as refused:
            answers(apply(tools=tools, bias=0.0), [request("Goal:\nRead\nPlan:\n", doc)])
        assert "\n" not in str(refused.value) and "tools=virtualhome_tools.jsonl" in str(refused.value)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("allowed", "objects", "written"),
    [
        ([], ["letter"], {""}),
        (["[FLY]"], ["letter"], {""}),  # no tool that there is
        (["<attic>"], ["letter"], {""}),  # an object that is not at hand
        (["[OPEN]"], ["letter"], {"[OPEN]", "[OPEN]\n[OPEN]"}),
        (["<letter>", "[END]"], ["lamp"], {"[END]"}),
    ],
)
def test_a_plan_in_which_nothing_may_come_next_ends(
    apply: Callable[..., Any],
    model: Any,
    tokenizer: Any,
    plan_tools: str,
    share: bool,
    allowed: list[str],
    objects: list[str],
    written: set[str],
) -> None:
    """Demand: where no token is allowed the plan is over; none that is not allowed is written."""
    lm = apply(CausalLM(model, tokenizer, share_prefixes=share), tools=(plan_tools,), bias=0.0)
    doc = {"tool_use": {"procedure": "plan", "question": "Read", "objects": objects, "tools": allowed}}
    [found] = answers(lm, [request("Goal:\nRead\nPlan:\n", doc, until=["\n\n"], max_gen_toks=9)])
    assert str(found) in written
    assert str(found).split() == [call["tool"] for call in found.trace]
    assert {call["tool"] for call in found.trace} <= set(allowed)


# --- priors -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["normalizer", "pre-tokenizer"])
def sentencepiece(request: pytest.FixtureRequest) -> Any:
    """A tokenizer of the sentencepiece kind, which puts a space before every text: in either place where files have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "▁", "▁clock", "▁the", "▁bank", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.Unigram([(word, -1.0 * min(number, 9)) for number, word in enumerate(words)], unk_id=0))
    if request.param == "normalizer":  # as Llama 2 has it: the space comes on top of one that is there
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("prior", ["head_rows", "input_rows", "hidden_mean"])
def test_a_space_before_a_name_is_no_token_where_the_tokenizer_puts_one_itself(
    model: Any, sentencepiece: Any, prior: Any
) -> None:
    """Demand: the prior of " clock" is the row of that word alone, and the same as that of "clock"."""
    lm = CausalLM(model, sentencepiece)
    [word] = sentencepiece.encode("clock", add_special_tokens=False)
    assert word == sentencepiece.convert_tokens_to_ids("▁clock")
    spaced, bare = prior_rows(lm, [" clock", "clock"], prior=prior)
    assert torch.equal(spaced, bare)
    if prior == "head_rows":
        assert torch.equal(spaced, model.get_output_embeddings().weight[word].detach())
        [two] = prior_rows(lm, [" the bank"], prior=prior)
        rows = model.get_output_embeddings().weight[sentencepiece.convert_tokens_to_ids(["▁the", "▁bank"])]
        assert torch.allclose(two, rows.mean(0).detach())


def test_a_space_before_a_name_stays_where_it_belongs_to_the_token(model: Any, tokenizer: Any) -> None:
    """Demand: byte-level tokenizers have the word with its space as one token; that is the one whose row counts."""
    lm = CausalLM(model, tokenizer)
    [word] = tokenizer.encode(" the", add_special_tokens=False)
    assert [word] != tokenizer.encode("the", add_special_tokens=False)
    [row] = prior_rows(lm, [" the"], prior="head_rows")
    assert torch.equal(row, model.get_output_embeddings().weight[word].detach())


# --- the data folder --------------------------------------------------------------------------------------------------------


def test_the_tasks_tools_are_found_in_the_folder_that_metadata_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: --metadata data_folder=D holds for rows and tools alike, with no environment variable."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    relations = [
        {"index": n, "property": f"P{n}", "name": f"relation_{n}", "description": f"gets thing {n}"} for n in range(3)
    ]
    write_lines(folder / "kamel_relations.jsonl", relations)
    rows = [
        training_row(n, f"Question: thing {n % 3} of {n}?\nAnswer: The answer is ", f"{n}", ".", f"P{n % 3}")
        for n in range(9)
    ]
    write_lines(folder / "kamel_rows.jsonl", rows)
    metadata = {"rows": "kamel_rows.jsonl", "tools": "kamel_relations.jsonl", "holdout": 1, "data_folder": str(folder)}
    own = finding.folders(None, (str(Path(data.__file__).parent),))
    docs = list(finding.load(["tool_choice"], own, metadata=metadata).tasks["tool_choice"].test_docs())
    assert sorted(doc["calls"][0]["tool"] for doc in docs) == ["P0", "P1", "P2"]
    with pytest.raises(HarnessError, match=r"kamel_relations\.jsonl"):
        finding.load(["tool_choice"], own, metadata=metadata | {"data_folder": str(tmp_path)})
