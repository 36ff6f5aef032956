"""Tasks that measure all vectors at once: scores, errors, samples without vectors, and what comes after a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from lm_eval.api.instance import Instance
from tiny_models import PARAGRAPH, build_encoder

from harness.cli import main
from harness.errors import HarnessError, NoScore
from harness.models.finding import resolve
from harness.models.kinds import kind_of
from harness.records import ledger
from harness.records.soundness import unranked_reason
from harness.run.preparing import find_model
from harness.run.run import Run
from harness.tasks.embedding import CORPUS, EmbeddingTask, embed

TASKS = """\
import numpy as np

from harness.tasks.embedding import EmbeddingTask, embed

WORDS = {words!r}


class Pairs(EmbeddingTask):
    metrics = {{"cosine_spearman": True}}
    aggregations = {{"cosine_spearman": "spearman"}}

    def make_docs(self, metadata):
        return [{{"text": " ".join(WORDS[n : n + 4]), "other": " ".join(WORDS[n + 2 : n + 5]), "gold": n * 7 % 36}}
                for n in range(36)]

    def arguments(self, doc):
        return [embed(doc["text"], "Compare"), embed(doc["other"], "Compare")]

    def measure(self, docs, vectors, corpus):
        return [{{"cosine_spearman": (doc["gold"], float(a @ b))}} for doc, (a, b) in zip(docs, vectors)]


class Search(EmbeddingTask):
    metrics = {{"mrr_at_10": True}}

    def make_docs(self, metadata):
        return [{{"text": WORDS[n], "relevant": f"d{{n}}"}} for n in range(30)]

    def corpus(self, metadata):
        texts = {{f"d{{n}}": " ".join(WORDS[n : n + 3]) for n in range(40)}} | {{"none": " "}}
        return {{name: embed(text, role="document") for name, text in texts.items()}}

    def arguments(self, doc):
        return [embed(doc["text"], "Find it", "query")]

    def measure(self, docs, vectors, corpus):
        names, matrix = list(corpus), np.stack(list(corpus.values()))
        found = []
        for doc, [query] in zip(docs, vectors):
            order = np.argsort(-(matrix @ query), kind="stable")[:10]
            ranks = [place for place, number in enumerate(order, start=1) if names[number] == doc["relevant"]]
            found.append({{"mrr_at_10": 1 / ranks[0] if ranks else 0.0}})
        return found
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tasks ``pairs`` and ``search``."""
    made = tmp_path_factory.mktemp("tasks")
    (made / "texts.py").write_text(TASKS.format(words=PARAGRAPH.split()), encoding="utf-8")
    for name in ("Pairs", "Search"):
        text = f"task: {name.lower()}\nclass: !function texts.{name}\nmetadata:\n  version: 1.0\n"
        (made / f"{name.lower()}.yaml").write_text(text, encoding="utf-8")
    return made


def words(folder: Path, model: Path, output: Path, *more: str) -> list[str]:
    given = ["eval", "--model", "encoder", "--model_args", f"pretrained={model}", "--include_path", str(folder)]
    return [*given, "--tasks", "pairs,search", "--output_path", str(output), "--log_samples", *more]


@pytest.fixture(scope="module")
def results(folder: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The runs of two encoders."""
    outputs = tmp_path_factory.mktemp("results")
    other = build_encoder(tmp_path_factory.mktemp("models") / "other", hidden_act="relu")
    for name, model in (("first", tiny_encoder), ("second", other)):
        assert main(words(folder, model, outputs / name)) == 0
    return outputs / "first", outputs / "second"


def test_scores_come_with_errors_and_samples_without_vectors(results: tuple[Path, Path]) -> None:
    records = {record.task.name: record for record in ledger.read(results[0]).records}
    pairs, search = records["pairs"], records["search"]
    assert pairs.metric.aggregation == "spearman" and search.metric.aggregation == "mean"
    for record in (pairs, search):
        assert record.value is not None and record.stderr is not None and 0 < record.stderr < 0.5
    assert pairs.counts.requests == 72 and search.counts.requests == 30
    assert search.notes == [
        "a corpus of 40 texts was searched, whole whatever --limit says",
        "texts of the corpus that are empty, and are found by no query: 1",
    ]
    [file] = results[0].rglob("samples_pairs_*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    gold, cosines = np.array([row["cosine_spearman"] for row in rows]).T
    assert pairs.value == pytest.approx(scipy.stats.spearmanr(gold, cosines).statistic, abs=1e-12)
    for row in rows:
        assert [answer.split(",")[0] for [answer] in row["resps"]] == ["vector of 32 numbers"] * 2
        assert all("sha256" in answer for answer in row["filtered_resps"])
    widths = [len(row["resps"][0][0]) for row in rows]
    assert max(widths) < 100  # of 32 numbers in decimals there are 300 characters


def test_scores_follow_and_two_encoders_are_compared_by_pair_and_by_query(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["verify", str(results[0].parent)]) == 0
    assert capsys.readouterr().out.startswith("4 records: 4 follow from their samples\n")
    flags = ["--records", str(results[0].parent), "--format", "json", "--across", "model"]
    assert main(["compare", "model=tiny-encoder", "model=other", *flags]) == 0
    comparison = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in comparison["comparisons"]}
    assert rows.keys() == {"cosine_spearman", "mrr_at_10"}
    for row in rows.values():
        assert row["is_paired"] and 0 < row["p"] <= 1 and row["low"] < row["difference"] < row["high"]
    assert rows["cosine_spearman"]["documents"] == 36 and rows["mrr_at_10"]["documents"] == 30
    assert not any("not tested" in note for note in comparison["notes"])


def test_a_limit_cuts_queries_and_no_corpus(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    assert main(words(folder, tiny_encoder, tmp_path / "some", "--limit", "12")) == 0
    [some] = [record for record in ledger.read(tmp_path / "some").records if record.task.name == "search"]
    assert some.counts.docs == 12 and some.notes[0].startswith("a corpus of 40 texts")


def test_cut_texts_of_a_corpus_are_noted_and_are_no_cut_requests(
    folder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    """A corpus may have many more texts than there are queries: the scores keep their rank, and say what was cut."""
    given = words(folder, tiny_encoder, tmp_path / "cut")
    given[given.index(f"pretrained={tiny_encoder}")] += ",max_length=6"
    assert main(given) == 0
    [cut] = [record for record in ledger.read(tmp_path / "cut").records if record.task.name == "search"]
    assert cut.counts.truncated_requests == 0 and unranked_reason(cut) == ""
    [said] = [note for note in cut.notes if "cut at their end" in note]
    assert (
        said.startswith("texts of the corpus that are longer than the model reads") and 0 < int(said.split()[-1]) <= 40
    )


def test_a_model_without_embed_is_told_before_anything_is_loaded(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", "--model_args", f"pretrained={tiny_model}", "--include_path", str(folder), "--tasks", "pairs"]
    assert main([*given, "--output_path", str(tmp_path)]) == 2
    assert "task 'pairs' sends 'embed' requests, which CausalLM cannot answer" in capsys.readouterr().err
    with pytest.raises(HarnessError, match="--model_args pooling is for --model encoder"):
        find_model(Run(tasks=("pairs",), model_args={"pretrained": str(tiny_model), "pooling": "eos"}))


class Few(EmbeddingTask):
    """Three documents and a corpus of two."""

    metrics = {"number": True}  # noqa: RUF012

    def make_docs(self, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"text": text} for text in ("noon", "war", "bank")]

    def corpus(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"a": embed("clock"), "b": embed("sweets"), "c": embed("")}

    def arguments(self, doc: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [embed(doc["text"])]

    def measure(self, docs: Sequence[Any], vectors: Sequence[Any], corpus: Mapping[str, Any]) -> Sequence[Any]:
        assert [v.shape for v in vectors] == [(1, 2)] * len(docs) and corpus.keys() == {"a", "b"}
        return [{"number": float(vector[0, 0])} for vector in vectors]


def asked(**settings: Any) -> tuple[Few, list[Instance]]:
    task = Few({"task": "few", "metadata": {"version": 1.0}})
    task.build_all_requests(**settings)
    return task, list(task.instances)


def answer(instances: Sequence[Instance], vectors: Sequence[Any]) -> None:
    for instance, vector in zip(instances, vectors, strict=True):
        instance.resps.append(np.array(vector, dtype=np.float32))


def test_a_corpus_is_asked_once_beside_the_documents() -> None:
    task, instances = asked(limit=2)
    assert [instance.args[0] for instance in instances] == ["noon", "war", "clock", "sweets"]
    assert [instance.doc_id for instance in instances] == [0, 1, CORPUS, CORPUS]
    answer(instances, [[1, 0], [2, 0], [0, 1], [1, 1]])
    task.apply_filters()
    docs = list(task.test_docs())
    assert [task.process_results(doc, []) for doc in docs[:2]] == [{"number": 1.0}, {"number": 2.0}]
    assert len({doc["corpus"] for doc in docs}) == 1


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ([[1, 0], [0, 0], [1, 1], [1, 2], [2, 1]], "the vector of 'war' is all zeros"),
        ([[1, 0], [float("nan"), 0], [1, 1], [1, 2], [2, 1]], "the vector of 'war' holds NaN"),
        ([[1, 0], [1, 0, 0], [1, 1], [1, 2], [2, 1]], r"the vector of 'war' has shape \(3,\)"),
        ([[1, 0.5]] * 5, r"all 5 vectors are one \(their variance is 0.0e\+00"),
    ],
)
def test_vectors_that_say_nothing_give_no_score(vectors: Any, sentence: str) -> None:
    task, instances = asked()
    answer(instances, vectors)
    with pytest.raises(NoScore, match=sentence):
        task.apply_filters()


def test_one_of_several_processes_is_refused() -> None:
    with pytest.raises(HarnessError, match="task 'few' measures all documents at once; run it in one process"):
        asked(world_size=2)


def test_a_killed_run_keeps_its_vectors_to_the_last_bit(tiny_encoder: Path, tmp_path: Path) -> None:
    from harness.run.journal import Journal

    lm = kind_of("encoder").load(resolve({"pretrained": str(tiny_encoder)}), "cpu", "auto")
    _, instances = asked()
    for reused in (0, len(instances)):
        journal = Journal(tmp_path, {"model": "tiny"})
        with journal.answering(lm, "few"):
            found = lm.embed(instances)  # type: ignore[attr-defined]
        assert journal.reused == reused
        assert [one.dtype for one in found] == [np.float32] * 5
        if not reused:
            expected = [one.tobytes() for one in found]
    assert [one.tobytes() for one in found] == expected
