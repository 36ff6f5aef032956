"""The data folder, and the tasks that come with the method of tool tokens, on rows written here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from answered import training_row

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.requests import Explained
from harness.run.evaluating import evaluate
from harness.run.run import Run
from harness.tasks import finding, fit
from harness_tool_tokens.tasks import data
from harness_tool_tokens.tools import data_folder

FOLDER = Path(data.__file__).parent
COUNTS = {"calls", "calls_right", "calls_wrong", "calls_missed", "calls_false", "calls_errors"}
TEXTS = {
    "funcqa_one_hop": {"general": "Q: What is 1 and 1?\nA: 1+1=2.\n\nQ: [QUESTION]\nA:"},
    "funcqa_multi_hop": {
        "general": "Question: What is 1 and 1?\nAnswer: 1+1=2 #### 2\n\nQuestion: [QUESTION]\nAnswer:"
    },
    "gsm8k_xl": {"general": "Step by step\n\nQuestion: [QUESTION]\nAnswer:", "add": "<add>: [QUESTION]"},
    "kamel": {"general": "Question: [QUESTION]\nAnswer: The answer is"},
}
ONE_HOP = [
    {
        "id": "funcqa-oh-00",
        "question": "How many are 2 pears and 3 pears?",
        "answer": 5,
        "calls": [{"tool": "add", "args": "2, 3", "result": "5"}],
    },
    {
        "id": "funcqa-oh-01",
        "question": "What is minus lg 0.5?",
        "answer": 0.301,
        "calls": [{"raw": "-<log>(0.5)=0.301"}],
    },
    {
        "id": "funcqa-oh-02",
        "question": "What is the gcd of 4 and 6?",
        "answer": 3,
        "calls": [{"tool": "gcd", "args": "4, 6", "result": "3"}],
    },
]
MULTI_HOP = [
    {
        "id": "funcqa-mh-00",
        "question": "Twice 7 less 5?",
        "answer": "9.0",
        "calls": [
            {"tool": "multiply", "args": "2,7", "result": "14"},
            {"tool": "subtract", "args": "14,5", "result": "9"},
        ],
    }
]
ISSUES = [{"id": "funcqa-oh-02", "kind": "wrong_gold"}, {"id": "funcqa-oh-01", "kind": "unusual_call"}]
GSM8K_XL = [
    {
        "id": "gsm8k-xl-000",
        "question": "8 boxes of 27 nails, 5 lost?",
        "answer": 211.0,
        "values": [2.0, 3.0, 5.0],
        "enhanced_values": [8, 27, 5],
        "template_question": "{v_1} boxes of {v_2} nails, {v_3} lost?",
        "process": ["8*27 = 216.0", "216.0-5 = 211.0"],
    },
    {
        "id": "gsm8k-xl-001",
        "question": "A bill for {v_1}?",
        "answer": 1.0,
        "values": ["gas"],
        "enhanced_values": [],
        "template_question": "A bill for {v_1}?",
        "process": ["1*1 = 1.0"],
    },
]
RELATIONS = [
    {"index": number, "property": f"P{number}", "name": f"relation_{number}", "description": f"gets thing {number}"}
    for number in range(40)
]
KAMEL = [
    {
        "id": "kamel-30-000",
        "question": "What is the thing 3 of a shed?",
        "property": "P3",
        "answers": ["a roof", "roof"],
    },
    {"id": "kamel-30-001", "question": "What is the thing 35 of a shed?", "property": "P35", "answers": [""]},
]
ACTIONS, OBJECTS = ["[WALK]", "[FIND]", "[READ]"], ["<attic>", "<letter>", "<lamp>"]
PLAN_TOOLS = [
    *(
        {"index": n, "token": token, "kind": "action", "name": token[1:-1]}
        for n, token in enumerate([*ACTIONS, "[END]"])
    ),
    *({"index": n + 4, "token": token, "kind": "object", "name": token[1:-1]} for n, token in enumerate(OBJECTS)),
]
PLANS = [
    {
        "id": f"vh-00{number}",
        "prompt": f"Task 2:\nAt hand are attic and letter.\nGoal:\nRead {number}\nPlan:\n",
        "objects": ["attic", "letter"],
        "goal": f"Read {number}",
        "plan": ["[WALK] <attic>", "[FIND] <letter>", "[READ] <letter>", "[END]"],
    }
    for number in range(4)
]
ROWS: list[dict[str, Any]] = [
    {
        "id": f"row-{tool}-{number}",
        "text": f"Q: What is {number} {tool} 2?\nA: It is {number}{sign}2={result} in all.",
        "calls": [{"tool": tool, "args": f"{number}, 2", "result": str(result)}],
    }
    for number in range(10, 15)
    for tool, sign, result in (("add", "+", number + 2), ("multiply", "*", number * 2))
]
for row in ROWS:
    [call] = row["calls"]
    call["start"] = row["text"].rindex("=") + 1
    call["end"] = call["start"] + len(call["result"])

Load = Callable[..., Any]


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a few rows of every file, named by the environment variable."""
    folder = tmp_path / "tool-data-of-this-test"
    folder.mkdir()
    (folder / "prompts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    (folder / "funcqa_known_issues.json").write_text(json.dumps(ISSUES), encoding="utf-8")
    (folder / "virtualhome_fewshot.txt").write_text(
        "\nTask 1:\nGoal:\nWalk\nPlan:\n[WALK] <attic>\n[END]\n", encoding="utf-8"
    )
    files: dict[str, Sequence[Any]] = {
        "funcqa_one_hop_test": ONE_HOP,
        "funcqa_multi_hop_test": MULTI_HOP,
        "funcqa_train": ROWS,
        "gsm8k_xl_test": GSM8K_XL,
        "kamel_relations": RELATIONS,
        "kamel_test_30": KAMEL,
        "virtualhome_tools": PLAN_TOOLS,
        "virtualhome_plans": PLANS,
    }
    for name, rows in files.items():
        write_lines(folder / f"{name}.jsonl", rows)
    monkeypatch.setenv(data_folder.VARIABLE, str(folder))
    return folder


@pytest.fixture
def load(folder: Path) -> Load:
    """Return a function that loads one task as a run does, with the user's metadata."""

    def load_one(name: str, **metadata: Any) -> Any:
        task_set = finding.load([name], [finding.TaskFolder("tool_tokens", FOLDER)], metadata=metadata)
        return task_set.tasks[name]

    return load_one


def docs_of(task: Any) -> list[dict[str, Any]]:
    return list(task.test_docs())


def traced(text: str, *tools: str, error: str | None = None) -> Explained:
    """Return an answer whose trace has these calls, the last with ``error``."""
    made = [{"tool": tool, "error": None} for tool in tools]
    if made:
        made[-1]["error"] = error
    return Explained(text, made)


# Data folder.


def test_a_file_is_found_by_path_then_in_the_given_folder_then_in_that_of_the_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "prompts.json").write_text("{}", encoding="utf-8")
    assert data_folder.find(other / "prompts.json", str(folder)) == other / "prompts.json"
    assert data_folder.find("prompts.json", str(other)) == other / "prompts.json"
    assert data_folder.find("kamel_test_30.jsonl", str(other)) == folder / "kamel_test_30.jsonl"
    assert data_folder.find("prompts.json") == folder / "prompts.json"
    monkeypatch.chdir(other)
    assert data_folder.find("prompts.json") == Path("prompts.json")
    assert data_folder.data_file("prompts.json") == folder / "prompts.json"


def test_missing_folders_and_files_are_said_with_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HarnessError, match=r"no file 'none.jsonl' in '.*'; put it there, or name the folder"):
        data_folder.find("none.jsonl")
    monkeypatch.setenv(data_folder.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(HarnessError, match=r"data folder '.*nowhere' does not exist"):
        data.funcqa("one_hop")
    monkeypatch.delenv(data_folder.VARIABLE)
    with pytest.raises(HarnessError, match=r"no data folder is named; .*HARNESS_TOOL_DATA.*data_folder=DIR"):
        data.prompts()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"id": "a"', "line 1 of .* no valid JSON"),
        (b'\n{"id": "a", "question": "b", "answer": 1, "calls": []}\n[1]\n', "line 3 of .* holds a list"),
        (b'{"id": "a", "question": "b", "calls": []}\n', "line 1 of .* has no 'answer'; it has id, question, calls"),
        (
            b'{"id": "a", "question": "b", "answer": true, "calls": []}',
            "has a bool as 'answer', where int or float or str",
        ),
        (b'{"id": "a", "question": "b", "answer": 1, "calls": [3]}', "a call of 'a' in .* is a int"),
        (b'{"id": "a", "question": "b", "answer": 1, "calls": [{"tool": "add"}]}', "a call of 'a' in .* has no 'args'"),
        (b'{"id": "a", "question": "b", "answer": 1, "calls": [{"raw": "add"}]}', "not written as <tool>"),
        (b"[" * 100_000, "no valid JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"\n \n", "holds no row"),
    ],
)
def test_a_broken_file_is_refused_with_file_and_line(folder: Path, content: bytes, words: str) -> None:
    (folder / "funcqa_one_hop_test.jsonl").write_bytes(content)
    with pytest.raises(HarnessError, match=words) as error:
        data.funcqa("one_hop")
    assert "funcqa_one_hop_test.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_prompts_need_their_slot_and_are_looked_for_by_name(folder: Path) -> None:
    assert data.filled(data.prompt("gsm8k_xl", "add"), "two [QUESTION]s") == "<add>: two [QUESTION]s"
    with pytest.raises(HarnessError, match="did you mean 'gsm8k_xl'"):
        data.prompt("gsm8k_lx")
    (folder / "prompts.json").write_text('{"kamel": {"general": "no slot"}}', encoding="utf-8")
    with pytest.raises(HarnessError, match=r"must hold \[QUESTION\] once"):
        data.prompt("kamel")
    (folder / "prompts.json").write_text('{"kamel": "text"}', encoding="utf-8")
    with pytest.raises(HarnessError, match="does not map data sets to prompt texts"):
        data.prompts()


# Tasks that generate.


def test_one_hop_documents_hold_the_filled_prompt_and_what_an_lm_with_tools_needs(load: Load) -> None:
    first, second, third = docs_of(load("funcqa_one_hop"))
    assert first["prompt"] == "Q: What is 1 and 1?\nA: 1+1=2.\n\nQ: How many are 2 pears and 3 pears?\nA:"
    assert (first["answer"], second["answer"], third["id"]) == ("5", "0.301", "funcqa-oh-02")
    told = first["tool_use"]
    assert (told["procedure"], told["question"], told["prompts"]) == ("calls", first["question"], "funcqa_one_hop")
    assert told["question"] in first["prompt"]
    assert told["tools"] is None
    assert told["calls"] == [{"before": "", "tool": "add", "args": "2, 3", "result": "5"}]
    assert second["tool_use"]["calls"] == [{"before": "-", "tool": "log", "args": "0.5", "result": "0.301"}]


def test_two_loads_give_the_same_documents_and_one_prompt_a_document(load: Load) -> None:
    for name in ("funcqa_one_hop", "gsm8k_xl", "kamel_30", "virtualhome_plan"):
        metadata = {"holdout": 2} if name == "virtualhome_plan" else {}
        first, second = load(name, **metadata), load(name, **metadata)
        assert docs_of(first) == docs_of(second)
        assert [first.doc_to_text(doc) for doc in docs_of(first)] == [doc["prompt"] for doc in docs_of(first)]


def test_rows_with_a_wrong_gold_answer_can_be_left_out(load: Load) -> None:
    kept = [doc["id"] for doc in docs_of(load("funcqa_one_hop", wrong_gold="drop"))]
    assert kept == ["funcqa-oh-00", "funcqa-oh-01"]
    with pytest.raises(HarnessError, match="wrong_gold in the task's metadata is 'dorp'; did you mean 'drop'"):
        load("funcqa_one_hop", wrong_gold="dorp")


def test_the_folder_can_be_given_as_metadata(load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(data_folder.VARIABLE)
    assert len(docs_of(load("funcqa_one_hop", data_folder=str(folder)))) == 3
    with pytest.raises(HarnessError, match="no data folder is named"):
        load("funcqa_one_hop")


def test_missing_prompts_stop_a_task_with_a_sentence(load: Load, folder: Path) -> None:
    (folder / "prompts.json").unlink()
    with pytest.raises(HarnessError, match=r"no file 'prompts.json' in "):
        load("gsm8k_xl")


def test_answers_of_several_lines_are_not_cut_at_the_first_newline(load: Load) -> None:
    for name in ("funcqa_multi_hop", "gsm8k_xl"):
        settings = load(name).config.generation_kwargs
        assert settings["until"] == ["\n\n", "Question:"]
        assert (settings["do_sample"], settings["max_gen_toks"]) == (False, 256)
    assert load("funcqa_one_hop").config.generation_kwargs["until"] == ["\n"]


def test_rows_with_open_slots_are_skipped_and_steps_become_gold_calls(load: Load) -> None:
    [doc] = docs_of(load("gsm8k_xl"))
    assert (doc["id"], doc["answer"]) == ("gsm8k-xl-000", "211")
    assert doc["tool_use"]["tools"] == ["add", "subtract", "multiply", "divide"]
    assert [(call["tool"], call["args"]) for call in doc["tool_use"]["calls"]] == [
        ("multiply", "8, 27"),
        ("subtract", "216, 5"),
    ]


def test_one_hop_answers_are_judged_by_their_last_number_and_their_calls_counted(load: Load) -> None:
    task = load("funcqa_one_hop")
    doc = docs_of(task)[0]
    plain = task.process_results(doc, [" 2+3=5. So, the answer is 5.00."])
    assert plain.keys() == {"within_0_1_percent", "two_decimals"} | COUNTS == task.aggregation().keys()
    assert (plain["within_0_1_percent"], plain["two_decimals"], plain["calls"], plain["calls_missed"]) == (1, 1, 0, 1)
    called = task.process_results(doc, [traced(" 2+3=6", "power", "add", error="arity")])
    assert (called["within_0_1_percent"], called["calls"], called["calls_right"]) == (0, 2, 1)
    assert (called["calls_false"], called["calls_errors"]) == (1, 1)
    assert task.process_results(doc, ["no idea"])["two_decimals"] == 0


def test_multi_hop_answers_are_judged_by_the_number_after_the_marker(load: Load) -> None:
    task = load("funcqa_multi_hop")
    [doc] = docs_of(task)
    right = task.process_results(doc, [traced("2*7=14\n14-5=9\n#### 9 in 1 go", "multiply", "subtract")])
    assert (right["within_0_1_percent"], right["calls_right"], right["calls_missed"]) == (1, 2, 0)
    assert task.process_results(doc, ["2*7=14; 14-5=9"])["within_0_1_percent"] == 0


def test_kamel_is_right_by_the_called_property_or_without_a_call_by_the_text(load: Load) -> None:
    task = load("kamel_30")
    first, second = docs_of(task)
    assert first["prompt"] == "Question: What is the thing 3 of a shed?\nAnswer: The answer is"
    assert (first["tool_use"]["procedure"], len(first["tool_use"]["tools"])) == ("name", 30)
    assert task.process_results(first, [traced(" <P3>", "P3")])["acc"] == 1
    # Once a tool is called, the text is not looked at.
    assert task.process_results(first, [traced(" a roof <P4>", "P4")])["acc"] == 0
    assert task.process_results(first, [" a roof."])["acc"] == 1
    assert task.process_results(first, [" a floor."])["acc"] == 0
    # An empty accepted answer occurs in every text and counts for none.
    assert task.process_results(second, [" anything"])["acc"] == 0
    assert task.process_results(first, [traced(" <P4>", "P4")])["calls_wrong"] == 1


def test_plans_are_the_last_ones_with_the_worked_plans_before_them(load: Load) -> None:
    docs = docs_of(load("virtualhome_plan", holdout=2))
    assert [doc["id"] for doc in docs] == ["vh-002", "vh-003"]
    assert docs[0]["prompt"] == (
        "\nTask 1:\nGoal:\nWalk\nPlan:\n[WALK] <attic>\n[END]\n\n"
        "Task 2:\nAt hand are attic and letter.\nGoal:\nRead 2\nPlan:\n"
    )
    told = docs[0]["tool_use"]
    assert (told["procedure"], told["end"], told["objects"]) == ("plan", "[END]", ["attic", "letter"])
    assert (told["actions"], told["tools"]) == (ACTIONS, [*ACTIONS, "[END]", *OBJECTS])
    assert [call["tool"] for call in told["calls"]][:3] == ["[WALK]", "<attic>", "[FIND]"]
    for holdout in (0, 5, "all", True):
        with pytest.raises(HarnessError, match=r"holdout in the task's metadata is .*; give 1 to 4 plans"):
            load("virtualhome_plan", holdout=holdout)


def test_plans_are_scored_as_computed_by_hand(load: Load) -> None:
    task = load("virtualhome_plan", holdout=1)
    [doc] = docs_of(task)

    def scores(text: str) -> list[float]:
        metrics = task.process_results(doc, [text])
        return [metrics[name] for name in ("grounding", "grounded_lines", "exact_plan", "line_f1")]

    assert scores("[WALK] <attic>\n[FIND]  <letter>\n\n[READ] <letter>\n[END]\n[FLY] <moon>") == [1, 1, 1, 1]
    # The lamp is a known object, but not at hand; two of three lines are the reference's.
    assert scores("[WALK] <attic>\n[FIND] <lamp>\n[READ] <letter>") == pytest.approx([0, 2 / 3, 0, 2 / 3])
    assert scores("[JUMP] <attic>") == [0, 0, 0, 0]
    assert scores("") == [0, 0, 0, 0]
    # Lines from the ninth on are not looked at.
    assert scores("[WALK] <attic>\n" * 8 + "nonsense") == pytest.approx([1, 1, 0, 2 / 11])


# Tasks that ask which tool would be called.


def test_tool_choice_asks_about_held_out_rows_with_the_places_of_their_calls(load: Load, folder: Path) -> None:
    task = load("tool_choice", holdout=2)
    docs = docs_of(task)
    assert sorted(doc["calls"][0]["tool"] for doc in docs) == ["add", "add", "multiply", "multiply"]
    assert docs == docs_of(load("tool_choice", holdout=2))
    assert docs != docs_of(load("tool_choice", holdout=2, holdout_seed=1))
    written = {row["text"]: row["calls"][0] for row in ROWS}
    for doc in docs:
        [(text, told)] = task.arguments(doc)
        [call] = told["calls"]
        assert call == {key: written[text][key] for key in ("tool", "start", "end")}
    assert fit.request_types(task) == {"tool_choice"}
    with pytest.raises(HarnessError, match=r"holdout in the task's metadata is 0; give a whole number of 1 or more"):
        load("tool_choice", holdout=0)


def test_tool_choice_takes_rows_and_tools_of_ones_own(load: Load, tmp_path: Path) -> None:
    write_lines(tmp_path / "tools.jsonl", [{"key": "add", "name": "add", "description": "adds"}])
    write_lines(tmp_path / "rows.jsonl", ROWS)
    task = load("tool_choice", holdout=1, rows=str(tmp_path / "rows.jsonl"), tools=str(tmp_path / "tools.jsonl"))
    assert [doc["calls"][0]["tool"] for doc in docs_of(task)] == ["add"]


def test_kamel_choice_asks_after_the_answer_is_about_plugged_in_relations_only(load: Load) -> None:
    task = load("tool_choice_kamel_30")
    [doc] = docs_of(task)
    text = "Question: What is the thing 3 of a shed?\nAnswer: The answer is"
    assert task.arguments(doc) == [(text, {"calls": [{"tool": "P3", "start": len(text), "end": len(text)}]})]


def test_tool_choice_is_scored_as_computed_by_hand(load: Load) -> None:
    task = load("tool_choice", holdout=1)
    right = {"tool": "add", "best": "add", "rank": 1, "fires": True, "margin_to_word": 2.0, "margin_to_tool": 1.0}
    silent = {**right, "fires": False, "margin_to_word": -1.0}
    wrong = {**right, "best": "multiply", "rank": 4, "margin_to_word": -4.0, "margin_to_tool": -3.0}
    answer = {"word_positions": 20, "false": 3, "calls": [right, silent, wrong]}
    scores = task.process_results({}, [answer])
    assert scores == pytest.approx(
        {"selection": 2 / 3, "recall": 1 / 3, "rank_reciprocal": 2.25 / 3, "margin": -1.0, "false": 0.15}
    )
    assert scores.keys() == task.higher_is_better().keys() == task.aggregation().keys()
    nothing = task.process_results({}, [{"word_positions": 0, "false": 0, "calls": []}])
    assert set(nothing.values()) == {0.0}


def test_a_plain_model_is_told_that_it_cannot_choose_tools(load: Load) -> None:

    with pytest.raises(HarnessError, match="task 'tool_choice' sends 'tool_choice' requests, which CausalLM cannot"):
        fit.check_fit({"tool_choice": load("tool_choice", holdout=1)}, CausalLM)


# Runs.


def test_the_plain_model_answers_and_no_record_or_sample_names_the_data_folder(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    names = ("funcqa_one_hop", "funcqa_multi_hop", "gsm8k_xl", "kamel_30")
    run = Run(
        tasks=names,
        model_args={"pretrained": str(tiny_model)},
        include_path=(str(FOLDER),),
        gen_kwargs={"max_gen_toks": 8},
        output_path=tmp_path / "out",
    )
    records = evaluate(run)
    values = {(record.task.name, record.metric.name): record.value for record in records}
    assert {name for name, _ in values} == set(names)
    assert {metric for name, metric in values if name == "funcqa_one_hop"} == {
        "within_0_1_percent",
        "two_decimals",
        *COUNTS,
    }
    assert values["funcqa_one_hop", "calls"] == 0.0
    assert values["funcqa_multi_hop", "calls_missed"] == 2.0
    ways = {record.metric.name: record.metric.higher_is_better for record in records}
    assert (ways["acc"], ways["calls"], ways["calls_missed"]) == (True, None, False)
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert folder.name not in file.read_text(encoding="utf-8"), file.name


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
