"""Encoders: one float32 vector a text, the same whatever stands beside it, as the folder or the user says it is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded_texts import load, requests, unit, vectors
from lm_eval.api.instance import Instance
from safetensors.torch import load_file, save_file
from tiny_models import as_sentence_folder, build_model

from harness.errors import HarnessError
from harness.models.embedding import Asked
from harness.models.encoder import Encoder
from harness.models.finding import resolve
from harness.models.guards import NotFinite

TEXTS = [
    "Forty clocks ticked there.",
    "noon",
    "Customers would ask which of them was right, and he wrote the hour of each in a ledger.",
    "What is time? asked the children; the clockmaker gave them sweets.",
    "The shop stood between a bakery and a bank",
    "a",
    "it was never quiet",
]
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


def states(lm: Encoder, ids: Sequence[int]) -> torch.Tensor:
    """Return the states (T, D) of one row, by the plain model."""
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]


@pytest.fixture
def folder_of(tiny_encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a sentence-transformers folder of the tiny encoder."""

    def make(pooling: dict[str, Any] | None = None, **more: Any) -> Path:
        made = tmp_path / f"folder-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_encoder, made)
        return as_sentence_folder(made, pooling=pooling or MEAN, more=more)

    return make


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load(tiny_encoder)


def test_an_encoder_gives_the_mean_of_all_its_states(encoder: Encoder) -> None:
    """Property 22: float32, one dimension, the right width, in the order of the requests."""
    found = encoder.embed(requests(TEXTS))
    assert encoder.model.pooler is None  # a random one would make another model of it in every process
    for text, vector in zip(TEXTS, found, strict=True):
        expected = states(encoder, encoder.tokenizer(text)["input_ids"]).mean(dim=0)
        assert vector.dtype == np.float32 and vector.shape == (32,)
        np.testing.assert_allclose(vector, unit(expected), atol=1e-6)


@pytest.mark.parametrize("pooling", ["eos", "last", "mean", "weighted_mean"])
def test_a_decoder_pools_the_text_between_beginning_and_end(tiny_model: Path, pooling: str) -> None:
    """Property 6: ``eos`` is the plain model's state at EOS for beginning, instruction, text and end."""
    lm = load(tiny_model, pooling=pooling, normalise=False)
    found = vectors(lm, TEXTS, "Find a clock")
    head = [lm.tokenizer.bos_token_id, *lm.tokenizer("Instruct: Find a clock\nQuery: ")["input_ids"]]
    for text, vector in zip(TEXTS, found, strict=True):
        ids = lm.tokenizer(text)["input_ids"]
        whole = states(lm, [*head, *ids, *([lm.tokenizer.eos_token_id] if pooling == "eos" else [])])
        inside, weights = whole[len(head) : len(head) + len(ids)], torch.arange(1.0, len(ids) + 1)
        expected = {
            "eos": whole[-1],
            "last": whole[-1],
            "mean": inside.mean(dim=0),
            "weighted_mean": (inside * weights[:, None]).sum(dim=0) / weights.sum(),
        }[pooling]
        np.testing.assert_allclose(unit(vector), unit(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "decoder with instruction"])
def test_a_text_has_one_vector_whatever_stands_beside_it(kind: str, tiny_model: Path, tiny_encoder: Path) -> None:
    """Property 1: alone, in any batch, in any order, within 1e-5 at length 1."""
    args = {} if kind == "encoder" else {"pooling": "eos"}
    folder = tiny_encoder if kind == "encoder" else tiny_model
    instruction = "Retrieve semantically similar text" if "instruction" in kind else None
    alone = load(folder, batch_size=1, **args)
    expected = np.concatenate([vectors(alone, [text], instruction) for text in TEXTS])
    for size in (2, "auto"):
        lm = load(folder, batch_size=size, **args)
        np.testing.assert_allclose(vectors(lm, TEXTS, instruction), expected, atol=1e-5)
        np.testing.assert_allclose(vectors(lm, TEXTS[::-1], instruction)[::-1], expected, atol=1e-5)


def test_what_it_took_is_counted(tiny_model: Path) -> None:
    lm = load(tiny_model, pooling="eos")
    vectors(lm, [*TEXTS, *TEXTS], "Retrieve semantically similar text")
    rows = [row.ids for row in lm.rows([Asked(text, "Retrieve semantically similar text") for text in TEXTS])]
    assert lm.work.requested_tokens == sum(map(len, rows))
    assert lm.work.distinct_tokens <= lm.work.pushed_tokens and lm.work.forwards > 0
    lm.start_counting()
    assert lm.work.pushed_tokens == 0
    vectors(lm, TEXTS, "Retrieve semantically similar text")  # it was tried out before
    assert lm.work.distinct_tokens <= lm.work.pushed_tokens < sum(map(len, rows))


def test_padding_on_the_left_would_give_the_same(tiny_model: Path, tiny_encoder: Path) -> None:
    """Property 1: either side of padding, where places are given explicitly."""
    for folder, args in ((tiny_model, {"pooling": "last"}), (tiny_encoder, {"pooling": "last"})):
        lm = load(folder, **args)
        rows = [row.ids for row in lm.rows(list(map(asked_alone, TEXTS)))]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.no_grad():
            out = lm.model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0))
        np.testing.assert_allclose(vectors(lm, TEXTS), unit(out.last_hidden_state[:, -1]), atol=1e-5)


def asked_alone(text: str) -> Asked:
    return Asked(text)


def test_what_is_asked_alike_is_embedded_once_and_what_is_not_is_not(tiny_model: Path) -> None:
    """Property 22: deduplicated and plain runs give the same answers in the same order."""
    lm, seen = load(tiny_model, pooling="eos"), [0]
    lm.model.register_forward_pre_hook(
        lambda _, __, given: seen.__setitem__(0, seen[0] + len(given["input_ids"])), with_kwargs=True
    )
    wanted = [*requests(TEXTS[:3]), *requests(TEXTS[:2]), *requests(TEXTS[:1], "Find a clock"), *requests([TEXTS[0]])]
    found = lm.embed(wanted)
    assert seen == [4]
    assert found[0] is found[3] is found[6] and found[1] is found[4]
    assert not np.allclose(found[0], found[5])
    with pytest.raises(ValueError, match="read-only"):
        found[0][0] = 1.0


def test_rows_that_begin_alike_begin_once(tiny_model: Path) -> None:
    lm, tokens = load(tiny_model, pooling="eos"), [0]
    before = lm.tokenizer("Instruct: Retrieve semantically similar text\nQuery: ")["input_ids"]
    lm.model.register_forward_pre_hook(
        lambda _, __, given: tokens.__setitem__(0, tokens[0] + given["input_ids"].numel()), with_kwargs=True
    )
    vectors(lm, TEXTS, "Retrieve semantically similar text")
    texts = [len(lm.tokenizer(text)["input_ids"]) + 1 for text in TEXTS]
    # The beginning once, once more with the longest text to see that nothing changes, and padded texts.
    assert tokens[0] <= 2 * (len(before) + 1) + (len(TEXTS) + 2) * max(texts)


def test_texts_are_cut_at_their_end_and_counted(tiny_model: Path, tiny_encoder: Path) -> None:
    """Property 12: any length works, the end stays last and pooled, and what differs beyond the limit embeds alike."""
    long = [f"{'clock ' * 300}{word}" for word in ("noon", "war")]
    for folder, args in ((tiny_model, {"pooling": "eos", "max_length": 20}), (tiny_encoder, {})):
        lm = load(folder, **args)
        first, second, short = vectors(lm, [*long, "noon"])
        assert (first == second).all() and not np.allclose(first, short)
        assert lm.truncated == {"sts": 2}
        lm.start_counting()
        lm.count_truncated("embed", requests([*long, "noon"]))
        assert lm.truncated == {"sts": 2}
        [row] = lm.rows([asked_alone(long[0])])
        ends = lm.tokenizer.eos_token_id if folder == tiny_model else lm.tokenizer.sep_token_id
        assert len(row.ids) == lm.max_length and row.ids[-1] == ends


def test_an_instruction_that_leaves_no_room_is_refused(tiny_model: Path) -> None:
    lm = load(tiny_model, pooling="eos", max_length=8)
    with pytest.raises(HarnessError, match="max_length 8 is taken by what stands around it"):
        vectors(lm, ["noon"], "Retrieve semantically similar text")


def test_a_text_that_spells_a_special_token_stays_text(tiny_model: Path, tiny_encoder: Path) -> None:
    """Property 14: the end of text inside a text moves no pooling, and the ids of the text hold no special id."""
    lm = load(tiny_model, pooling="eos")
    [row] = lm.rows([asked_alone("one <|end|> two")])
    assert row.ids.count(lm.tokenizer.eos_token_id) == 2 and row.end == len(row.ids)  # it begins texts, too
    lm = load(tiny_encoder)
    [row] = lm.rows([asked_alone("one [SEP] two [PAD]")])
    assert not set(row.ids[1:-1]) & {0, 2, 3}


def test_an_empty_text_is_refused_with_its_index_or_counts_as_zeros(tiny_encoder: Path, encoder: Encoder) -> None:
    """Property 13: the others of the batch are unchanged."""
    with pytest.raises(HarnessError, match=r"embed request 1 is empty .*document 1 in task 'sts'.*empty=zero"):
        encoder.embed(requests(["noon", " \n", "war"]))
    found = load(tiny_encoder, empty="zero").embed(requests(["noon", " \n", "war"]))
    assert not found[1].any() and found[1].shape == (32,)
    np.testing.assert_allclose(np.stack([found[0], found[2]]), vectors(encoder, ["noon", "war"]), atol=1e-6)
    with pytest.raises(HarnessError, match="every text is empty"):
        load(tiny_encoder, empty="zero").embed(requests([""]))
    assert encoder.embed([]) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("noon", {"role": "asker"}), "role 'asker'"),
        (("noon", {"instruction": 3}), "instruction that is no text"),
        (("noon", {"instructions": "x"}), "did you mean 'instruction'"),
        (("noon", "query"), "no 'embed' request"),
        ((["noon"], {}), "no 'embed' request"),
    ],
)
def test_malformed_requests_are_named(encoder: Encoder, arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        encoder.embed([Instance("embed", {}, arguments, 0, ("sts", 7, 1))])  # type: ignore[arg-type]


def test_vectors_that_are_no_numbers_or_no_direction_are_refused(tiny_model: Path) -> None:
    lm = load(tiny_model, pooling="eos")
    lm.model.norm.weight.data.zero_()
    with pytest.raises(HarnessError, match=r"document 0 in task 'sts'.*got a vector of zeros"):
        vectors(lm, ["noon"])
    lm.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NotFinite, match="NaN or infinite"):
        vectors(lm, ["noon"])


def test_other_requests_are_refused(encoder: Encoder) -> None:
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        with pytest.raises(
            HarnessError, match=f"cannot answer '{name}' requests; load a language model with --model hf"
        ):
            getattr(encoder, name)([])
    assert encoder.tokenize(requests(["noon"])) == [encoder.tokenizer("noon", add_special_tokens=False)["input_ids"]]


def test_a_folder_of_sentence_transformers_says_how(folder_of: Callable[..., Path], encoder: Encoder) -> None:
    prompts = {"prompts": {"query": "ask: ", "passage": "read: "}, "default_prompt_name": "passage"}
    lm = load(folder_of(**{"config_sentence_transformers.json": prompts}))
    assert lm.max_length == 32 and lm.way.pooling == ("mean",) and lm.way.normalise
    plain = load(folder_of())
    for role, before in (("query", "ask: "), ("document", ""), (None, "read: ")):
        expected = vectors(plain, [before + text for text in TEXTS])
        np.testing.assert_allclose(vectors(lm, TEXTS, "not read", role), expected, atol=1e-6)
    np.testing.assert_allclose(vectors(plain, ["noon"]), vectors(encoder, ["noon"]), atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, ("cls", "mean")),
        ({"pooling_mode": "lasttoken"}, ("last",)),
        ({"pooling_mode": ["max", "weightedmean"]}, ("max", "weighted_mean")),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({}, ("mean",)),
    ],
)
def test_poolings_by_their_older_and_newer_names(
    folder_of: Callable[..., Path], pooling: dict[str, Any], expected: tuple[str, ...]
) -> None:
    lm = load(folder_of({"word_embedding_dimension": 32, **pooling}), normalise=False)
    assert lm.way.pooling == expected
    whole = states(lm, lm.tokenizer(TEXTS[0])["input_ids"]).double()
    weights = torch.arange(1.0, len(whole) + 1, dtype=torch.double)
    by_name = {
        "cls": whole[0],
        "last": whole[-1],
        "mean": whole.mean(dim=0),
        "max": whole.amax(dim=0),
        "mean_sqrt_len": whole.sum(dim=0) / len(whole) ** 0.5,
        "weighted_mean": weights @ whole / weights.sum(),
    }
    found = vectors(lm, TEXTS)[0]
    np.testing.assert_allclose(found, torch.cat([by_name[name] for name in expected]), atol=1e-5)


def test_a_prompt_may_be_left_out_of_the_mean(folder_of: Callable[..., Path]) -> None:
    prompts = {"prompts": {"query": "what is time? "}}
    lm = load(folder_of({**MEAN, "include_prompt": False}, **{"config_sentence_transformers.json": prompts}))
    ids = lm.tokenizer("what is time? noon")["input_ids"]
    skipped = len(lm.tokenizer("what is time? ")["input_ids"]) - 1
    expected = states(lm, ids)[skipped:].mean(dim=0)
    np.testing.assert_allclose(vectors(lm, ["noon"], role="query")[0], unit(expected), atol=1e-6)


def test_a_layer_after_the_pooling_is_read(folder_of: Callable[..., Path]) -> None:
    folder = folder_of()
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[2:] = [{"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "2_Dense").mkdir()
    said = {
        "in_features": 32,
        "out_features": 5,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense" / "config.json").write_text(json.dumps(said), encoding="utf-8")
    torch.manual_seed(1)
    tensors = {"linear.weight": torch.randn(5, 32), "linear.bias": torch.randn(5)}
    save_file(tensors, str(folder / "2_Dense" / "model.safetensors"))
    lm = load(folder)
    mean = states(lm, lm.tokenizer("noon")["input_ids"]).mean(dim=0)
    expected = torch.tanh(tensors["linear.weight"] @ mean + tensors["linear.bias"])
    np.testing.assert_allclose(vectors(lm, ["noon"])[0], expected, atol=1e-5)
    said["activation_function"] = "my.own.Activation"
    (folder / "2_Dense" / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(HarnessError, match="2_Dense cannot be taken: it is more than a matrix"):
        load(folder)


def test_what_makes_the_vectors_is_part_of_the_model(folder_of: Callable[..., Path]) -> None:
    digests = {
        resolve({"pretrained": str(folder)}).digest
        for folder in (folder_of(), folder_of({"pooling_mode": "cls"}), folder_of(**{"sentence_bert_config.json": {}}))
    }
    assert len(digests) == 3


def test_a_decoder_in_such_a_folder_is_read_as_it_says(tmp_path: Path) -> None:
    prompts = {"config_sentence_transformers.json": {"prompts": {"query": "What is time? "}}}
    folder = as_sentence_folder(build_model(tmp_path / "decoder"), pooling={"pooling_mode": "lasttoken"}, more=prompts)
    lm = load(folder)
    rows = [lm.tokenizer("What is time? " + text)["input_ids"][: lm.max_length] for text in TEXTS]
    expected = unit([states(lm, row)[-1].tolist() for row in rows])
    np.testing.assert_allclose(vectors(lm, TEXTS, role="query"), expected, atol=1e-5)
    alone = load(folder, share_prefixes=False)
    np.testing.assert_allclose(vectors(alone, TEXTS, role="query"), expected, atol=1e-5)


def test_weights_may_lie_in_a_part_of_the_folder(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = folder_of()
    whole = vectors(load(folder), TEXTS)
    part = folder / "0_Transformer"
    part.mkdir()
    apart = {"modules.json", "1_Pooling", "0_Transformer"}
    for path in [path for path in folder.iterdir() if path.name not in apart]:
        path.rename(part / path.name)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = part.name
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for place in (folder, part):
        lm = load(place)
        assert lm.max_length == 32
        np.testing.assert_array_equal(vectors(lm, TEXTS), whole)


def test_files_that_do_not_say_it_are_refused(folder_of: Callable[..., Path]) -> None:
    for name, content, sentence in (
        ("modules.json", "[{", "modules.json is not valid JSON"),
        ("modules.json", "{}", "modules.json is no list of parts"),
        (
            "modules.json",
            '[{"type": "sentence_transformers.models.LSTM"}]',
            "a part of the kind '.*LSTM'; known here are",
        ),
        ("modules.json", '[{"type": "custom.Transformer"}]', "a part of the kind 'custom.Transformer'"),
        ("modules.json", '[{"type": "sentence_transformers.models.Transformer"}]', "names no Pooling"),
        ("1_Pooling/config.json", '{"pooling_mode": "middle"}', "pooling 'middle' is unknown"),
        ("sentence_bert_config.json", "[]", "is no JSON object"),
    ):
        folder = folder_of()
        (folder / name).write_text(content, encoding="utf-8")
        with pytest.raises(HarnessError, match=sentence):
            load(folder)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({}, "'tiny' is a decoder .* choose with --model_args pooling=eos"),
        ({"pooling": "middle"}, "pooling 'middle' is unknown"),
        ({"pooling": "cls"}, "has seen no other"),
        ({"pooling": "eos", "empty": "skip"}, "empty is 'skip'"),
        ({"pooling": "eos", "prefix_token_id": 1}, "prefix_token_id is not taken by --model encoder"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_model: Path, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        load(tiny_model, **args)


def test_a_template_may_put_words_behind_the_text(tiny_model: Path, tiny_encoder: Path) -> None:
    lm = load(tiny_model, pooling="last", template='This: "{text}" means:"')
    [row] = lm.rows([asked_alone("noon")])
    assert lm.tokenizer.decode(row.ids[1:]) == 'This: "noon" means:"' and row.end == len(row.ids)
    with pytest.raises(HarnessError, match=r"holds \{text\}, which only a decoder"):
        load(tiny_encoder, template="{text}")


def test_a_head_beside_the_states_is_left_out_and_missing_weights_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    untied = build_model(tmp_path / "untied", tie_word_embeddings=False)
    np.testing.assert_allclose(
        vectors(load(untied, pooling="eos"), TEXTS), vectors(load(tiny_model, pooling="eos"), TEXTS), atol=1e-6
    )
    tensors = load_file(untied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, str(untied / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(HarnessError, match=r"lacks weights: layers\.1\.mlp\.up_proj\.weight"):
        load(untied, pooling="eos")


def test_in_four_bits_a_text_has_one_vector_too(tiny_model: Path) -> None:
    """Property 24: invariance within 1e-2."""
    lm = load(tiny_model, pooling="eos", quantization="nf4")
    expected = np.concatenate([vectors(lm, [text]) for text in TEXTS])
    np.testing.assert_allclose(vectors(lm, TEXTS), expected, atol=1e-2)


def test_mteb_is_given_what_the_model_answers(tiny_model: Path) -> None:
    from types import SimpleNamespace

    from harness.models.for_mteb import ForMTEB

    lm = load(tiny_model, pooling="eos")
    model = ForMTEB(lm, name="mine/tiny")
    batches = [{"text": TEXTS[:4]}, {"text": TEXTS[4:]}]
    search = SimpleNamespace(name="Search", prompt={"query": "Find a clock"})
    for side, instruction in (("query", "Find a clock"), ("document", None)):
        found = model.encode(batches, task_metadata=search, hf_split="test", prompt_type=SimpleNamespace(value=side))
        np.testing.assert_array_equal(found, vectors(lm, TEXTS, instruction, side))
    alike = model.encode(batches, task_metadata=SimpleNamespace(name="STS", prompt="Compare"), hf_split="test")
    np.testing.assert_array_equal(alike, vectors(lm, TEXTS, "Compare"))
    pairs = model.similarity(alike, 2 * alike)
    np.testing.assert_allclose(np.diag(pairs), model.similarity_pairwise(alike, alike), atol=1e-6)
    assert found.dtype == np.float32 and pairs.shape == (len(TEXTS), len(TEXTS))
