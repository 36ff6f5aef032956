"""A plugin written against the docs alone runs to records that verify and compare know; its imports are `test_house`'s."""

from __future__ import annotations

import html
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lm_eval_answers import asking
from small_runs import Command, Outcome
from test_house import is_within
from tiny_models import build_model

from harness.errors import HarnessError
from harness.methods.loglikelihoods import token_loglikelihoods
from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.layers import readers
from harness.models.loading import load_lm

PACKAGE = Path(__file__).parent / "contrastive_plugin"
TEXT = "Noon took four minutes <b>& more</b>"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin, installed as its pyproject.toml says: its package and its metadata on ``sys.path``."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    [(name, module)] = project["entry-points"]["harness"].items()
    (info / "entry_points.txt").write_text(f"[harness]\n{name} = {module}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.syspath_prepend(str(site))
    yield importlib.import_module(module)
    for loaded in [loaded for loaded in sys.modules if is_within(loaded, module)]:
        del sys.modules[loaded]
    from harness.records.aggregation import AGGREGATIONS

    AGGREGATIONS.pop("contrastive.distinct_2", None)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head of its own and large weights: other random ones say one token again and again."""
    return build_model(tmp_path_factory.mktemp("models") / "untied", tie_word_embeddings=False, initializer_range=0.3)


@pytest.fixture(scope="module")
def plain(untied: Path) -> CausalLM:
    return load_lm(resolve({"pretrained": str(untied)}), device="cpu", batch_size=1)


@pytest.fixture
def against(plugin: ModuleType, plain: CausalLM) -> Callable[..., CausalLM]:
    """Return a function that sets the tiny model against one of its layers."""
    from harness_contrastive.lm import ContrastiveLM  # type: ignore[import-not-found]

    return lambda layer, alpha: ContrastiveLM(plain.model, plain.tokenizer, layer=layer, alpha=alpha, **plain.settings)


def test_the_contrast_of_two_logit_vectors_is_the_one_computed_by_hand(plugin: ModuleType) -> None:
    from harness_contrastive.contrast import LEFT_OUT, contrast  # type: ignore[import-not-found]

    final = torch.tensor([0.5, 0.3, 0.15, 0.05]).log() + 7  # logits are probabilities but for a constant
    early = torch.tensor([0.4, 0.1, 0.25, 0.25]).log() - 2
    expected = torch.tensor([0.5 / 0.4, 0.3 / 0.1, 0.15 / 0.25]).log()
    found = contrast(final, early, alpha=0.2)  # 0.05 is less than a fifth of 0.5
    assert torch.allclose(found[:3], expected, atol=1e-6) and found[3] == LEFT_OUT
    assert contrast(final, early, alpha=1.0)[1:].tolist() == [LEFT_OUT] * 3
    assert contrast(torch.stack([final, early]), torch.stack([early, final]), alpha=0.2).shape == (2, 4)


def test_against_its_last_layer_every_token_that_is_kept_is_as_likely(
    against: Callable[..., CausalLM], plain: CausalLM
) -> None:
    last = len(readers(plain.model)) - 1
    ids = torch.tensor([plain.tokenizer.encode("Noon took four", add_special_tokens=False)])
    late = plain.forward(ids)[0].log_softmax(-1)
    found = against(last, 0.5).forward(ids)[0].log_softmax(-1)
    is_kept = late >= late.amax(-1, keepdim=True) + torch.tensor(0.5).log()
    counts = is_kept.sum(-1, keepdim=True)
    assert counts.max() > 1
    assert torch.allclose(found[is_kept], -counts.log().expand_as(late)[is_kept], atol=1e-4)
    assert found[~is_kept].max() < -900


def test_scores_and_texts_are_those_of_the_hidden_states_that_transformers_gives(
    against: Callable[..., CausalLM], plain: CausalLM
) -> None:
    from harness_contrastive.contrast import contrast

    lm, ids = against(1, 0.01), plain.tokenizer.encode("The clockmaker", add_special_tokens=False)

    def expected(token_ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            out = plain.model(torch.tensor([token_ids]), output_hidden_states=True)
            early = plain.model.get_output_embeddings()(out.hidden_states[1])
        return contrast(out.logits[0], early[0], alpha=0.01)

    scores = expected([plain.tokenizer.eos_token_id, *ids]).log_softmax(-1)
    [found] = token_loglikelihoods(lm, [ids])
    assert found == pytest.approx(scores[torch.arange(len(ids)), torch.tensor(ids)].tolist(), abs=1e-3)

    settings = {"until": ["<|end|>"], "do_sample": False, "max_gen_toks": 6}
    prompts = ["The clockmaker", "Noon took four minutes"]  # of two lengths: in a batch one is padded
    requests = asking("generate_until", *((prompt, settings) for prompt in prompts))
    texts = lm.generate_until(requests)
    assert texts != plain.generate_until(requests)
    for prompt, text in zip(prompts, texts, strict=True):
        start = plain.tokenizer.encode(prompt, add_special_tokens=False)
        written = list(start)
        while len(written) < len(start) + 6 and written[-1] != plain.tokenizer.eos_token_id:
            written.append(int(expected(written)[-1].argmax()))
        assert text == plain.tokenizer.decode(written[len(start) :], skip_special_tokens=True)
    assert all(not part._forward_pre_hooks for part in readers(plain.model))


def test_options_survive_replace_and_what_no_model_has_is_refused(
    plugin: ModuleType, against: Callable[..., CausalLM], plain: CausalLM, tmp_path: Path
) -> None:
    [method] = plugin.harness_methods()
    again = against(1, 0.3).replace(tokenizer=plain.tokenizer)
    assert (again.settings["layer"], again.settings["alpha"]) == (1, 0.3)
    for wrong in ({"layer": -1}, {"alpha": 0.0}, {"alpha": 1.5}):
        with pytest.raises(ValueError, match="has to be 0 or more, alpha"):
            method(**wrong)
    with pytest.raises(HarnessError, match="no layer 3; give 0 to 2"):
        method(layer=3).apply(plain, seed=0, workdir=tmp_path)
    with pytest.raises(HarnessError, match="load weights with --model hf"):
        method().apply(object(), seed=0, workdir=tmp_path)


def test_distinct_2_counts_a_pair_of_words_once_in_all_texts(plugin: ModuleType) -> None:
    from harness_contrastive.diversity import distinct_2  # type: ignore[import-not-found]

    assert distinct_2([("a", "b", "a", "b"), ("a", "b"), ("c",)]) == pytest.approx(2 / 4)
    assert distinct_2([("a",), ()]) == 0.0


def test_a_run_leaves_records_that_verify_and_compare_know(
    plugin: ModuleType,
    fresh: None,
    evaluate: Command,
    cli: Command,
    untied: Path,
    records: Callable[[Path], list[dict[str, Any]]],
) -> None:
    method = ["--plugin", "contrastive", "--method_args", "layer=1,alpha=0.01", "--with_baseline", "--log_samples"]
    assert_done(evaluate(*method, tasks="going_on,colours", model=untied))
    found = {(record["method"]["name"], record["metric"]["name"]): record for record in records(Path("out"))}
    assert found.keys() == {(name, m) for name in ("baseline", "contrast_layers") for m in ("distinct_2", "acc")}
    made = found["contrast_layers", "distinct_2"]
    assert made["metric"]["aggregation"] == "contrastive.distinct_2" and 0 < made["value"] <= 1
    assert made["plugin"]["distribution"] == "harness-contrastive" and made["report"] == {"layers": 2}
    verified = cli("verify", "out")
    assert_done(verified)
    assert verified.out == "4 records: 4 follow from their samples\n"
    compared = cli("compare", "contrastive@baseline", "--records", "out", "--format", "json")
    assert_done(compared)
    rows = {row["metric"]: row for row in json.loads(compared.out)["comparisons"]}
    assert rows.keys() == {"distinct_2", "acc"}
    assert 0 < rows["distinct_2"]["p"] <= 1 and rows["distinct_2"]["documents"] == 5


def assert_done(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err


def test_the_page_is_one_file_that_fetches_nothing_and_runs_no_text(
    plugin: ModuleType, untied: Path, tmp_path: Path
) -> None:
    main = importlib.import_module("harness_contrastive.__main__").main
    file = tmp_path / "page.html"
    assert main(["page", str(untied), TEXT, "--alpha", "1e-3", "--output", str(file)]) == 0
    page = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|<img|<b>|\bsrc=|\bhref=|@import|url\(", page)
    assert "default-src 'none'" in html.unescape(page)
    spans = re.findall(r'<span class="(\w+)" title="[^"]+ nats before, [^"]+">(.*?)</span>', page, re.DOTALL)
    assert html.unescape("".join(text for _, text in spans)) == TEXT
    assert {"gone"} < {kind for kind, _ in spans} <= {"more", "less", "gone"}


def test_the_command_says_an_error_in_one_sentence(plugin: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("harness_contrastive.__main__").main
    for words, part in (
        (["no-such-folder/model", "text"], "no-such-folder/model"),
        (["model", "text", "--alpha", "2"], "alpha 2 above 0 and at most 1"),
        (["model", "text", "--layer", "one"], "option 'layer' of method 'contrast_layers' is"),
    ):
        assert main(["page", *words]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and part in line


def test_it_is_written_in_few_lines() -> None:
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert 100 < len(lines) < 250
