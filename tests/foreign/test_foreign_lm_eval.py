"""Results that lm-eval itself wrote, with its samples: read, paired, put beside our own, and never counted twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from small_runs import Command
from tiny_models import build_model

from harness.records import ledger, samples

DATA = """\
from datasets import Dataset

ANSWERS = ["K", "Q", "X", "Z"]


def make(**_):
    rows = [
        {"question": f"The letter of thing {n} is", "options": ANSWERS[n % 4 :] + ANSWERS[: n % 4], "answer": n * 7 % 4}
        for n in range(40)
    ]
    return {"test": Dataset.from_list(rows)}


def make_few(**_):
    return {"test": make()["test"].select(range(3, 15))}
"""
TASK = """\
task: things
custom_dataset: !function data.make
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
GROUP = """\
group: all_things
task: [things, few_things]
aggregate_metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
Results = Callable[[str], Path]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks of 40 and of 12 documents, and their group."""
    folder = tmp_path_factory.mktemp("tasks")
    few = TASK.replace("task: things", "task: few_things").replace("data.make", "data.make_few")
    files = {"data.py": DATA, "things.yaml": TASK, "few_things.yaml": few, "all_things.yaml": GROUP}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tasks: Path) -> Path:
    """A folder with what lm-eval left of two models, in ``a`` and ``b``, and the models in ``models``."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder, manager = tmp_path_factory.mktemp("lm-eval"), TaskManager(include_path=str(tasks), include_defaults=False)
    for name, settings in (("a", {}), ("b", {"hidden_size": 48, "initializer_range": 0.5})):
        build_model(folder / "models" / name, **settings)
        tracker = EvaluationTracker(output_path=str(folder / name))
        results = lm_eval.simple_evaluate(
            model="hf", model_args={"pretrained": str(folder / "models" / name)}, tasks=["all_things"], device="cpu",
            task_manager=manager, evaluation_tracker=tracker, log_samples=True,
        )  # fmt: skip
        made_samples = results.pop("samples")  # as lm-eval's own command does
        tracker.save_results_aggregated(results=results, samples=made_samples)
        for task, rows in made_samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of ``a``, to be damaged."""
    return Path(shutil.copytree(made / "a", tmp_path / "copied"))


def _file(folder: Path, pattern: str) -> Path:
    [file] = [file for file in folder.rglob(pattern) if "few_things" not in file.name]
    return file


def _column(folder: Path) -> list[float]:
    return [row["acc"] for row in samples.rows(_file(folder, "samples_*.jsonl"))]


def _things(folder: Path) -> Any:
    [record] = [record for record in ledger.read(folder).records if record.task.name == "things"]
    return record


def test_the_scores_are_those_of_the_file(made: Path) -> None:
    reading = ledger.read(made / "a")
    told = json.loads(_file(made / "a", "results_*.json").read_text(encoding="utf-8"))
    assert not reading.problems
    assert {(r.task.name, r.task.group) for r in reading.records} == {
        ("things", False), ("few_things", False), ("all_things", True),
    }  # fmt: skip
    record = _things(made / "a")
    assert record.value == told["results"]["things"]["acc,none"] and record.counts.docs == record.task.size == 40
    assert (record.seeds.random, record.seeds.fewshot) == (
        told["config"]["random_seed"],
        told["config"]["fewshot_seed"],
    )
    assert record.metric.higher_is_better is True and record.metric.aggregation == "mean"
    assert record.foreign.version == told["lm_eval_version"] and not record.states("model.digest")
    assert record.environment.transformers == told["transformers_version"] and record.environment.torch != "unknown"


def test_a_pair_is_tested_as_by_hand(made: Path, cli: Command) -> None:
    done = cli("compare", made / "a", made / "b", "--format", "json", "--documents", 0, "--tasks", "things")
    assert done.code == 0, done.err
    [row] = json.loads(done.out)["comparisons"]
    first, second = _column(made / "a"), _column(made / "b")
    up = sum(b > a for a, b in zip(first, second, strict=True))
    down = sum(b < a for a, b in zip(first, second, strict=True))
    assert up + down > 0 and (row["up"], row["down"]) == (up, down)
    fewer, flips = min(up, down), up + down
    p = min(1.0, 2 * stats.binom.cdf(fewer, flips, 0.5) - stats.binom.pmf(fewer, flips, 0.5))
    assert row["p"] == pytest.approx(p) and row["difference"] == pytest.approx((up - down) / 40)


def test_a_board_has_both_models_with_ranks(made: Path, cli: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(made / name, tmp_path / name)
    done = cli("leaderboard", tmp_path, "--task", "all")
    assert done.code == 0, done.err
    assert done.out.count("| lm_eval | 1 |") == done.out.count(", rank ") == 6


def test_our_own_run_pairs_with_lm_evals_and_is_counted_once(
    made: Path, tasks: Path, cli: Command, tmp_path: Path
) -> None:
    words = ["--include_path", tasks, "--tasks", "all_things", "--output_path", tmp_path / "ours"]
    done = cli("eval", "--model_args", f"pretrained={made / 'models' / 'a'}", *words)
    assert done.code == 0, done.err
    record = _things(tmp_path / "ours")
    assert record.foreign is None and list((tmp_path / "ours").rglob("results_*.json"))
    theirs = _things(made / "a")
    assert (theirs.task.docs_digest, theirs.task.prompts_digest) == (
        record.task.docs_digest,
        record.task.prompts_digest,
    )
    done = cli("compare", tmp_path / "ours", made / "a", "--format", "json")
    rows = {row["task"]: row for row in json.loads(done.out)["comparisons"]}
    assert {name: row["documents"] for name, row in rows.items()} == {"things": 40, "few_things": 12, "all_things": 52}
    assert all(row["is_paired"] and row["difference"] == 0 for row in rows.values())
    inside = _file(tmp_path / "ours", "results_*.json").parent
    assert not ledger.read(inside).records
    [problem] = ledger.read(next(inside.glob("results_*.json"))).problems
    assert "it lies in a run of this harness" in problem


def test_results_without_samples_give_an_unpaired_interval(copied: Path, made: Path, cli: Command) -> None:
    _file(copied, "samples_*.jsonl").unlink()
    record = _things(copied)
    assert record.samples is None and not record.states("task.docs_digest") and record.counts.docs == 40
    done = cli("compare", made / "b", copied, "--format", "json", "--tasks", "things")
    [row] = json.loads(done.out)["comparisons"]
    assert not row["is_paired"] and row["low"] < row["difference"] < row["high"] and row["p"] is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text + text, "a document stands in them twice"),
        (lambda text: "".join(text.splitlines(keepends=True)[:30]), "they are of 30 documents, the score is of 40"),
        (lambda text: text[: len(text) // 2], "its samples are left out"),
        (lambda text: "", "there is none in their file"),
        (lambda text: "[1, 2]\n", "its samples are left out"),
    ],
)
def test_samples_that_are_not_those_of_the_score_are_left_out_and_told(
    damage: Callable[[str], str], words: str, copied: Path
) -> None:
    file = _file(copied, "samples_*.jsonl")
    file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
    reading = ledger.read(copied)
    assert any(words in problem for problem in reading.problems), reading.problems
    assert (
        all(record.samples is None for record in reading.records if record.task.name != "few_things")
        and len(reading.records) == 3
    )


def test_a_score_that_its_samples_contradict_is_not_compared(copied: Path, made: Path, cli: Command) -> None:
    file = _file(copied, "results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["results"]["things"]["acc,none"] = 0.9
    file.write_text(json.dumps(content), encoding="utf-8")
    done = cli("compare", made / "b", copied, "--tasks", "things")
    assert done.code == 1 and "value is 0.9, while its samples give" in done.err
    assert cli("verify", copied).code == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("config"), "has no scores under 'results', or no 'config'"),
        (lambda content: content.update(results={"things": {"alias": "things"}}), "has no number of task 'things'"),
        (lambda content: content.update(results={"things": 3}), "has no number of task 'things'"),
    ],
)
def test_a_results_file_of_another_form_says_so(
    change: Callable[[dict[str, Any]], Any], words: str, copied: Path
) -> None:
    file = _file(copied, "results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    reading = ledger.read(copied)
    assert not reading.records and words in reading.problems[0]


def test_a_score_that_is_no_number_is_invalid(copied: Path) -> None:
    file = _file(copied, "results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["results"]["things"]["acc,none"] = float("nan")
    file.write_text(json.dumps(content), encoding="utf-8")
    assert (_things(copied).status, _things(copied).value) == ("invalid", None)


def test_samples_of_an_older_version_get_digests(copied: Path, made: Path) -> None:
    file = _file(copied, "samples_*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            del row[name]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert _things(copied).task.docs_digest == _things(made / "a").task.docs_digest


def test_a_cut_file_and_one_of_nobody(copied: Path, cli: Command) -> None:
    file = _file(copied, "results_*.json")
    file.write_bytes(file.read_bytes()[:400])
    [problem] = ledger.read(copied).problems
    assert "is no whole JSON, it may be cut" in problem
    other = copied / "other.json"
    other.write_text('{\n "key": 1\n}\n', encoding="utf-8")
    done = cli("leaderboard", other)
    assert done.code == 2 and "neither a file of records nor a result of lm-eval, inspect, mteb" in done.sentence


def test_an_empty_folder_and_a_read_only_one(copied: Path, tmp_path: Path, cli: Command) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("compare", tmp_path / "empty", copied).code == 2
    files = sorted(path for path in copied.rglob("*"))
    copied.chmod(0o555)
    try:
        assert cli("leaderboard", copied).code == 0
    finally:
        copied.chmod(0o755)
    assert sorted(path for path in copied.rglob("*")) == files
