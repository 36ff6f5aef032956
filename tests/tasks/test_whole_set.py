"""Metrics over all documents: asked by a task's file, computed again by ``verify``, and tested by ``compare``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.stats

from harness.cli import main
from harness.errors import HarnessError
from harness.records import aggregation, ledger, whole_scores
from harness.records.aggregation import AGGREGATIONS, NeedsPluginError, NotRecomputableError
from harness.tasks import whole_set
from harness.tasks.own_docs import OwnDocsTask

DATA = """\
from datasets import Dataset


def make(**_):
    return {"test": Dataset.from_list([{"text": f"Number {n} is", "gold": n * 7 % 40} for n in range(40)])}


def score(doc, results):
    loglikelihood, _ = results[0]
    return {"rank": (doc["gold"], loglikelihood), "above": 2.0 ** (loglikelihood / 50)}
"""
TASK = """\
task: numbers
custom_dataset: !function data.make
test_split: test
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: " a number"
process_results: !function data.score
metric_list:
  - metric: rank
    aggregation: spearman
    higher_is_better: true
  - metric: above
    aggregation: noise.odds
    higher_is_better: true
metadata:
  version: 1.0
"""
PLUGIN = """\
from dataclasses import dataclass
from typing import ClassVar

from harness import hookimpl
from harness.tasks import whole_set

whole_set.add("noise.odds", lambda values: (1 + sum(map(float, values))) / (2 + len(values) - sum(map(float, values))))


@dataclass(frozen=True)
class Noise:
    '''Adds noise to all weights.'''

    name: ClassVar[str] = "noise"

    def apply(self, lm, *, seed, workdir):
        import torch

        for weights in lm.model.parameters():
            weights.data += 0.1 * torch.randn(weights.shape)
        return lm


@hookimpl
def harness_methods():
    return [Noise]
"""


@pytest.fixture
def results(
    make_plugin: Callable[..., Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Evaluate the baseline and a method of a plugin on one task of two metrics over all documents."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    make_plugin("noise", PLUGIN, distribution="third-party-noise", module="third_party_noise")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "data.py").write_text(DATA, encoding="utf-8")
    (tasks / "numbers.yaml").write_text(TASK, encoding="utf-8")
    folder = tmp_path / "results"
    words = ["eval", "--plugin", "noise", "--with_baseline", "--model_args", f"pretrained={tiny_model}"]
    words += ["--include_path", str(tasks), "--tasks", "numbers", "--output_path", str(folder), "--log_samples"]
    assert main(words) == 0
    yield folder
    sys.modules.pop("third_party_noise", None)
    AGGREGATIONS.pop("noise.odds", None)


def without_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-third-party-noise" not in path])
    monkeypatch.delitem(sys.modules, "third_party_noise")
    monkeypatch.delitem(AGGREGATIONS, "noise.odds")


def test_scores_of_the_whole_set_are_recorded_follow_and_get_a_verdict(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record for record in ledger.read(results).records if record.metric.name == "rank"]
    assert {record.metric.aggregation for record in records} == {"spearman"} and len(records) == 2
    for file in results.rglob("samples_*.jsonl"):
        pairs = [json.loads(line)["rank"] for line in file.read_text(encoding="utf-8").splitlines()]
        gold, loglikelihoods = np.array(pairs, dtype=float).T
        expected = scipy.stats.spearmanr(gold, loglikelihoods).statistic
        assert any(record.value == pytest.approx(expected, abs=1e-12) for record in records)
    del AGGREGATIONS["noise.odds"], sys.modules["third_party_noise"]  # as in a process that has loaded no plugin
    capsys.readouterr()
    assert main(["verify", str(results)]) == 0
    assert capsys.readouterr().out.startswith("4 records: 4 follow from their samples\n")
    assert main(["compare", "noise@baseline", "--records", str(results), "--format", "json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in comparison["comparisons"]}
    assert rows.keys() == {"rank", "above"}
    for row in rows.values():
        assert row["documents"] == 40 and 0 < row["p"] <= 1 and row["low"] < row["difference"] < row["high"]
        assert row["verdict"] in {"better", "worse", "no difference shown", "too few documents to tell"}
        assert row["difference"] == pytest.approx(row["second"]["value"] - row["first"]["value"])
    assert not any("not tested" in note for note in comparison["notes"])


def test_a_score_of_a_plugin_that_is_not_here_is_no_error_and_the_plugin_is_named(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_plugin(monkeypatch)
    sentence = "its aggregation 'noise.odds' cannot be computed again without plugin 'noise'"
    capsys.readouterr()
    assert main(["verify", str(results)]) == 0
    out = capsys.readouterr().out
    assert out.count(sentence) == 2 and "error:" not in out
    assert "2 follow from their samples" in out and "2 have a score that cannot be computed again here" in out
    assert main(["compare", "noise@baseline", "--records", str(results), "--format", "json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row["verdict"] for row in comparison["comparisons"]}
    assert rows["above"] == "not tested" != rows["rank"]
    assert f"not tested, {sentence}: numbers" in comparison["notes"]


def test_a_score_that_does_not_follow_is_an_error(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [file] = [file for file in results.rglob("records_*.jsonl") if "noise" in str(file)]
    records = [
        record.model_copy(update={"value": record.value + 0.01}) if record.metric.name == "rank" else record
        for record in ledger.read(file).records
        if record.value is not None
    ]
    file.write_text("".join(record.to_line() + "\n" for record in records), encoding="utf-8")
    capsys.readouterr()
    assert main(["verify", str(results)]) == 1
    assert "while its samples give" in capsys.readouterr().out


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(ties: bool) -> None:
    draw = np.random.default_rng(3)
    first = draw.standard_normal(200)
    pairs = np.stack([first, first + draw.standard_normal(200)], axis=1) * 10 + 1e6
    pairs = np.round(pairs / 5) if ties else pairs
    values = [tuple(pair) for pair in pairs.tolist()]
    assert whole_scores.spearman(values) == pytest.approx(scipy.stats.spearmanr(*pairs.T).statistic, abs=1e-12)
    assert whole_scores.pearson(values) == pytest.approx(scipy.stats.pearsonr(*pairs.T).statistic, abs=1e-9)


@pytest.mark.parametrize("name", ["pearson", "spearman", "ratio_of_sums"])
def test_what_documents_add_is_what_the_score_loses_without_them(name: str) -> None:
    values = [[1.0, 2.0], [4.0, 3.0], [2.0, 7.0], [8.0, 5.0], [6.0, 11.0]]
    whole = aggregation.score(values, name)
    added, score, named = aggregation.document_values(values, name, whole)
    assert (score, named) == (pytest.approx(whole), name)
    without = [aggregation.score(values[:i] + values[i + 1 :], name) for i in range(5)]
    assert added == pytest.approx([5 * whole - 4 * one for one in without])


def test_equal_numbers_have_no_correlation() -> None:
    for name in ("pearson", "spearman"):
        with pytest.raises(NotRecomputableError, match="is nan"):
            aggregation.score([[1.0, 2.0], [1.0, 3.0]], name)


def test_a_name_of_ones_own_says_whose_it_is() -> None:
    with pytest.raises(HarnessError, match=r"aggregation 'coverage' does not say whose it is; call it PLUGIN\.NAME"):
        whole_set.add("coverage", len)
    with pytest.raises(NeedsPluginError, match="without plugin 'other'"):
        aggregation.score([1.0], "other.coverage")


def test_so_many_documents_that_a_test_takes_too_long_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGGREGATIONS, "noise.first", aggregation.Aggregation(lambda values: float(values[0])))
    values = [float(n) for n in range(aggregation.MOST_LEFT_OUT + 1)]
    with pytest.raises(NotRecomputableError, match="more than 5,000 documents"):
        aggregation.document_values(values, "noise.first", None)


class Pairs(OwnDocsTask):
    """A task of its own documents, with a mean and a correlation."""

    request_types = ("loglikelihood_rolling",)
    metrics: ClassVar[dict[str, bool]] = {"nats": False, "rank": True}
    aggregations: ClassVar[Mapping[str, str]] = {"rank": "spearman"}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"text": "a" * n, "gold": n} for n in range(1, 5)]

    def arguments(self, doc: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(doc["text"],)]

    def score(self, doc: dict[str, Any], answers: list[Any]) -> dict[str, Any]:
        return {"nats": -answers[0], "rank": (doc["gold"], answers[0])}


def test_a_task_of_own_documents_names_what_makes_its_metrics() -> None:
    from lm_eval.api.metrics import mean

    task = Pairs({"task": "pairs", "metadata": {"version": 1.0}})
    makers = task.aggregation()
    assert makers["nats"] is mean
    found = [task.process_results(doc, [-float(doc["gold"])])["rank"] for doc in task.test_docs()]
    assert makers["rank"](found) == pytest.approx(-1.0)


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(HarnessError, match="no aggregation 'spaerman'; did you mean 'spearman'"):
        whole_set.function("spaerman")
