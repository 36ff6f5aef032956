"""CUTE: the user's files become prompts, replies are cut at the quotation mark, mistakes are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from harness import HarnessError
from harness_tasks.cute import load
from harness_tasks.cute.prompts import TASKS

ROWS: dict[str, list[tuple[str, ...]]] = {
    "spell": [("river", "r i v e r"), ("null", "n u l l")],
    "spell_inverse": [("r i v e r", "river"), ("n u l l", "null")],
    "contains_char": [("v", "river", "Yes"), ("z", "table", "No")],
    "contains_word": [("Rain", "Rain fell all day.", "Yes"), ("sun", 'It\'s {cold} and "grey".', "No")],
    "orth": [("river", "rider", "lake", "rider"), ("table", "desk", "cable", "cable")],
    "sem": [("river", "rider", "lake", "lake"), ("table", "desk", "cable", "desk")],
    "ins_char": [("x", "r", "river", "rxiverx"), ("o", "b", "table", "tabole")],
    "ins_word": [("blue", "day", "Rain fell all day.", "Rain fell all day blue.")],
    "del_char": [("r", "river", "ive"), ("t", "table", "able")],
    "del_word": [("all", "Rain fell all day.", "Rain fell day.")],
    "sub_char": [("r", "s", "river", "sives"), ("b", "k", "table", "takle")],
    "sub_word": [("Rain", "snow", "Rain fell all day.", "snow fell all day.")],
    "swap_char": [("i", "e", "river", "revir"), ("t", "l", "table", "labte")],
    "swap_word": [("Rain", "day", "Rain fell all day.", "day fell all Rain.")],
}
TWO_WAY = {"contains_char", "contains_word", "orth", "sem"}


def rule(cute_task: str, inputs: tuple[str, ...]) -> str | None:
    """Return the answer by a rule of this test's own; None where only meaning decides."""
    *given, text = inputs
    if cute_task.endswith("_word"):
        words = re.findall(r"[\w']+|[.,!?]", text)
        letters = False
    else:
        words, letters = list(text), True
    match cute_task.split("_")[0]:
        case "spell":
            return text.replace(" ", "") if cute_task == "spell_inverse" else " ".join(text)
        case "contains":
            return "Yes" if given[0] in words else "No"
        case "ins":
            result = [piece for word in words for piece in ([word, given[0]] if word == given[1] else [word])]
        case "del":
            result = [word for word in words if word != given[0]]
        case "sub":
            result = [given[1] if word == given[0] else word for word in words]
        case "swap":
            result = [{given[0]: given[1], given[1]: given[0]}.get(word, word) for word in words]
        case _:
            return None
    return "".join(result) if letters else re.sub(r" (?=[.,!?])", "", " ".join(result))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cute")
    for name, rows in ROWS.items():
        header = [*(f"input{number}" for number in range(1, len(rows[0]))), "label"]
        lines = ["\t".join(cells) for cells in [header, *rows]]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_there_are_fourteen_tasks_with_four_worked_examples_each():
    assert set(TASKS) == set(ROWS) and len(ROWS) == 14
    assert all(len(set(task.worked)) == 4 for task in TASKS.values())
    assert {name for name, task in TASKS.items() if task.is_two_way} == TWO_WAY
    assert {name for name, task in TASKS.items() if task.ignores_case} == {name for name in ROWS if "_word" in name}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("orth", "sem")])
def test_worked_examples_and_the_rows_of_this_test_are_right(name):
    for *inputs, label in [*TASKS[name].worked, *ROWS[name]]:
        assert rule(name, tuple(inputs)) == label


def test_the_two_answers_of_a_two_way_task_are_balanced_in_its_worked_examples():
    for name in ("contains_char", "contains_word"):
        assert sorted(example[-1] for example in TASKS[name].worked) == ["No", "No", "Yes", "Yes"]
    for name in ("orth", "sem"):
        assert sorted(example.index(example[-1], 1) for example in TASKS[name].worked) == [1, 1, 2, 2]


class Reader(LM):
    """Answers from the rows of this test, and goes on writing after the quotation mark."""

    def generate_until(self, requests):
        return [self._answers[request.args[0]] + '" and so on' for request in requests]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._answers = {
            f'{doc["prompt"]}\nAnswer: "': doc["label"].upper() if "_word" in name else doc["label"]
            for name in ROWS
            for doc in load.read(folder / f"{name}.tsv", name)
        }

    def loglikelihood(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def test_right_answers_score_one_and_prompts_open_the_reply(evaluate, folder):
    run = evaluate(Reader(folder), "cute", metadata={"cute_folder": str(folder)})
    assert run["groups"]["cute"]["exact_match,none"] == 1.0
    for name in ROWS:
        scores = run["results"][f"cute_{name}"]
        assert scores["exact_match,none"] == 1.0
        assert ("acc_above_chance,none" in scores) == (name in TWO_WAY)
        assert scores.get("acc_above_chance,none", 1.0) == 1.0
    prompt, generation = run["samples"]["cute_spell"][1]["arguments"][0]
    assert prompt.endswith('Spell the word: tunnel\nAnswer: "t u n n e l"\n\nSpell the word: null\nAnswer: "')
    assert generation == {"until": ['"'], "do_sample": False, "repetition_penalty": 1.0, "max_gen_toks": 100}


def test_a_model_runs_and_scores_the_same_twice(evaluate, tiny_lm, folder, monkeypatch):
    monkeypatch.setenv("HARNESS_CUTE_FOLDER", str(folder))
    runs = [evaluate(tiny_lm, "cute_spell", "cute_sem", "cute_swap_word") for _ in range(2)]
    assert runs[0]["results"] == runs[1]["results"]
    scores = runs[0]["results"]["cute_sem"]
    assert scores["acc_above_chance,none"] == pytest.approx(2 * scores["exact_match,none"] - 1)
    assert isinstance(scores["acc_above_chance_stderr,none"], float)


def test_shots_on_the_command_line_are_not_added_to_the_worked_examples(evaluate, folder):
    run = evaluate(Reader(folder), "cute_orth", metadata={"cute_folder": str(folder)}, num_fewshot=3)
    assert run["results"]["cute_orth"]["exact_match,none"] == 1.0
    assert run["n-shot"]["cute_orth"] == 0


@pytest.mark.parametrize(
    ("name", "reply", "hit"),
    [
        ("spell", ' r i v e r" ok', 1),
        ("spell", "R i v e r", 0),
        ("spell", "river", 0),
        ("contains_word", "YES", 1),
        ("contains_char", "YES", 0),
        ("contains_char", "Yes, it is", 0),
        ("contains_char", "", 0),
    ],
)
def test_the_reply_up_to_the_quotation_mark_must_be_the_label(name, reply, hit):
    doc = {"cute_task": name, "prompt": "", "label": ROWS[name][0][-1]}
    assert load.score(doc, [reply])["exact_match"] == hit


def test_tasks_are_listed_without_the_data_and_the_missing_folder_is_explained_when_one_is_loaded(task_folder):
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    assert {f"cute_{name}" for name in ROWS} <= set(manager.all_subtasks)
    with pytest.raises(
        HarnessError, match=r"task 'cute_spell' reads the data of the CUTE benchmark.*HARNESS_CUTE_FOLDER"
    ):
        manager.load(["cute_spell"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HarnessError, match=r"task 'cute_orth' needs .*orth\.tsv, which cannot be read \(No such file"):
        load.make(cute_task="orth", cute_folder=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"word\tlabel\nriver\tr i v e r\n", "has the columns word, label, but task 'cute_spell' needs input1, label"),
        (b"input1,label\nriver,r i v e r\n", "has the columns input1,label, but"),
        (b"input1\tinput2\tlabel\na\tb\tc\n", "has the columns input1, input2, label, but"),
        (b"", "has the columns , but"),
        (b"input1\tlabel\nriver\tr i v e r\nlake\n", "line 3 of .*spell.tsv has 1 cells, not 2"),
        (b"input1\tlabel\nriver\ta\tb\n", "line 2 of .*spell.tsv has 3 cells, not 2"),
        (b"input1\tlabel\n", "has no row below its column names"),
        (b"input1\tlabel\n\xff\xfe\tx\n", "is not UTF-8 text"),
    ],
)
def test_a_file_of_another_form_is_explained(tmp_path, content, sentence):
    (tmp_path / "spell.tsv").write_bytes(content)
    with pytest.raises(HarnessError, match=sentence):
        load.make(cute_task="spell", cute_folder=str(tmp_path))


def test_windows_line_ends_and_odd_characters_inside_a_cell_are_read(tmp_path):
    (tmp_path / "spell.tsv").write_bytes("input1\tlabel\r\nca\u0085fé\tc a\r\nna\tn a\r\n".encode())
    docs = load.read(tmp_path / "spell.tsv", "spell")
    assert [doc["label"] for doc in docs] == ["c a", "n a"]
    assert docs[0]["prompt"].endswith("ca\u0085fé")
