"""Training an embedder: which parameters move, in parts as in one, determinism, saving, and what is refused."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from embedding_requests import TEXTS, embedded

from harness import HarnessError
from harness.methods import adapters
from harness_contextual_embeddings.lessons import PairLesson, TokenLesson, in_parts, parts_of
from harness_contextual_embeddings.method import ContextualEmbeddings
from harness_contextual_embeddings.pairs import Pair, batches, read_pairs, read_texts

QUICK = {"steps": 2, "batch_size": 3, "rank": 2}
ROWS = [
    {"query": "What is time?", "positive": "asked the children", "negatives": ["a bakery", "a bank"], "source": "a"},
    {"query": "Forty clocks", "positive": "ticked there", "instruction": "Find what they did", "source": "a"},
    {"query": "The cuckoo", "positive": "bowed", "negatives": ["the war"], "source": "a"},
    {"query": "He wound them", "positive": "every Sunday", "source": "b"},
    {"query": "sweets", "positive": "to the children", "source": "b"},
]


@pytest.fixture
def pairs_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def made(lm, tiny_encoder, pairs_file):
    """Parts of an embedder with a fresh adapter, ready to be trained, and a lesson."""
    from harness_contextual_embeddings import making

    options = ContextualEmbeddings(encoder=str(tiny_encoder), train_file=pairs_file, **QUICK)
    found = making.make(options, lm, seed=0)
    found.embedder.requires_grad_(False)
    found.embedder.decoder = adapters.add_adapter(
        found.embedder.decoder, rank=2, alpha=4, target_modules=["all-linear"], seed=0
    )
    found.embedder.projector.requires_grad_(True)
    lesson = PairLesson(found.reader, "context_eos", read_pairs(pairs_file).pairs, 3, most_tokens=4096, temperature=0.1)
    return found, lesson


def gradients(model, lesson) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    batch = next(lesson.batches())
    loss = lesson.loss(model, batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def test_parts_of_a_step_give_the_gradients_of_the_whole(made) -> None:
    """Gradient caching: the same loss and gradients however many tokens go through the decoder at a time."""
    making, lesson = made
    whole = gradients(making.embedder, lesson)
    lesson.most_tokens = 20
    parts = gradients(making.embedder, lesson)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-5, rtol=1e-4), name


def test_passes_of_one_length_give_the_gradients_of_one_pass(made) -> None:
    """However few tokens go through the decoder in one pass, loss and gradients are those of one padded pass."""
    making, lesson = made
    making.reader.pass_tokens = 100_000
    whole = gradients(making.embedder, lesson)
    making.reader.pass_tokens = 16
    passes = gradients(making.embedder, lesson)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, passes[name], atol=1e-5, rtol=1e-4), name


def test_a_part_holds_passes_of_similar_length_within_its_bound() -> None:
    assert parts_of([3, 9, 8, 2], most_tokens=100, pass_tokens=18) == [[1, 2, 0, 3]]
    assert parts_of([3, 9, 8, 2], most_tokens=20, pass_tokens=18) == [[1, 2], [0, 3]]
    assert parts_of([3, 9, 8, 2], most_tokens=4, pass_tokens=18) == [[1], [2], [0], [3]]


def test_parts_are_never_held_together() -> None:
    weight = torch.ones(3, requires_grad=True)
    rows, held = torch.randn(7, 3), []

    def embed(part):
        held.append((len(part), torch.is_grad_enabled()))
        return rows[part] * weight

    loss = in_parts(embed, [[6, 0], [1, 2, 3], [5, 4]], lambda vectors: (vectors**3).sum())
    loss.backward()
    parts, weight.grad = weight.grad, None
    ((rows * weight) ** 3).sum().backward()
    assert torch.allclose(parts, weight.grad)
    assert held == [(2, False), (3, False), (2, False), (2, True), (3, True), (2, True)]


def test_gradients_reach_the_adapter_and_the_projector_alone_through_the_contextual_token(made) -> None:
    """Property 9: also the first layer's adapter, by way of the contextual state alone."""
    making, lesson = made
    for name, parameter in making.embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    lesson.mode = "context"
    found = gradients(making.embedder, lesson)
    assert {name.split(".")[0] for name in found} == {"decoder", "projector", "loss"}
    assert all("lora" in name for name in found if name.startswith("decoder"))
    assert all(found[name].any() for name in found if name.startswith("projector"))
    first = [name for name in found if ".layers.0." in name and "v_proj.lora_A" in name]
    assert first and all(found[name].any() for name in first)


@pytest.mark.parametrize("mode", ["context", "eos"])
def test_layers_that_run_twice_give_the_first_adapter_its_gradient(made, mode) -> None:
    """Gradient checkpointing: neither rows without a gradient nor frozen ids below it cut the adapter off."""
    making, lesson = made
    lesson.mode = mode
    for name, parameter in making.embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = gradients(making.embedder, lesson)
    making.embedder.decoder.gradient_checkpointing_enable({"use_reentrant": False})
    making.embedder.train()
    assert making.embedder.decoder.training and not making.embedder.encoder.training
    twice = gradients(making.embedder, lesson)
    assert plain.keys() == twice.keys()
    first = [name for name in twice if ".layers.0." in name and "lora_A" in name and "v_proj" in name]
    assert first and all(twice[name].any() for name in first)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, twice[name], atol=1e-5, rtol=1e-4), name


def test_training_leaves_all_else_to_the_bit(lm, embed_with, pairs_file, tiny_encoder, tmp_path) -> None:
    """Property 9; property 21: saved, loaded, the same; the encoder stays as it was unless it is asked for."""
    from transformers import AutoModel

    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    work = tmp_path / "kept"
    trained = embed_with(train_file=pairs_file, workdir=work, **QUICK)
    untouched = ("embed_tokens", "norm", "lm_head")
    after = lm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if any(part in name for part in untouched))
    assert not all(torch.equal(before[name], after[name]) for name in before)
    plain = AutoModel.from_pretrained(tiny_encoder, add_pooling_layer=False).state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in trained.model.encoder.state_dict().items())
    report = json.loads((work / "report.json").read_text())
    assert report["stages"]["contrastive"]["steps"] == 2 and report["tokens_trained"] > 0
    assert (report["width"], report["decoder_width"], report["encoder_width"]) == (64, 32, 24)
    assert set(report["mean_length_of"]) == {"context", "eos"}
    assert not trained.model.training and not any(p.requires_grad for p in trained.model.parameters())


def test_what_was_trained_is_found_again_and_fits_no_other_width(
    tiny_decoder, embed_with, pairs_file, tmp_path
) -> None:
    """Properties 11 and 21: the same vectors twice, by the work folder and by ``load``; another width is refused."""
    from tiny_models import build_encoder, build_model

    from harness.models.finding import resolve
    from harness.models.loading import load_lm

    def decoder(folder=tiny_decoder):
        return load_lm(resolve({"pretrained": str(folder)}), device="cpu", batch_size="auto")

    options = {"train_file": pairs_file, "train_encoder": True, **QUICK}
    work = tmp_path / "kept"
    given, state = decoder(), torch.random.get_rng_state()
    first = embedded(embed_with(workdir=work, given=given, **options), TEXTS)
    assert torch.equal(state, torch.random.get_rng_state())
    again = embedded(embed_with(given=decoder(), **options), TEXTS)
    reused = embedded(embed_with(workdir=work, given=decoder(), **options), TEXTS)
    loaded = embedded(embed_with(given=decoder(), load=work / "embedder"), TEXTS)
    other = embedded(embed_with(given=decoder(), seed=1, **options), TEXTS)
    assert numpy.array_equal(first, again)
    assert abs(first - reused).max() < 1e-6 and numpy.array_equal(reused, loaded)
    assert abs(first - other).max() > 1e-3
    half = embedded(embed_with(given=decoder(), load=work / "embedder", pooling="eos_after_context"), TEXTS)
    assert half.shape == (3, 32)
    wide = build_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(HarnessError, match="is for a decoder 32 wide, and this one is 64 wide"):
        embed_with(given=decoder(wide), load=work / "embedder")
    wide = build_encoder(tmp_path / "wide-encoder", hidden_size=32)
    method = ContextualEmbeddings(encoder=str(wide), load=work / "embedder")
    with pytest.raises(HarnessError, match="is for an encoder 24 wide, and this one is 32 wide"):
        method.apply(decoder(), seed=0, workdir=tmp_path)
    settings = work / "embedder" / "embedder.json"
    said = json.loads(settings.read_text()) | {"halves": ["eos", "context"]}
    settings.write_text(json.dumps(said))
    with pytest.raises(HarnessError, match="stand in the order"):
        embed_with(given=decoder(), load=work / "embedder")


def test_tokens_are_learned_from_lines_of_text(embed_with, tmp_path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("Forty clocks ticked there\n\n, !\nHe wound them every Sunday\nWhat is time?\n", encoding="utf-8")
    for pooling, target in (("prompteol", "data_then_model"), ("context_eos", "mixed")):
        work = tmp_path / pooling
        lm = embed_with(workdir=work, pooling=pooling, objective="tokens", train_file=path, target=target, max_df=0.6,
                        learning_rate=1e-2, steps=4, batch_size=3, rank=4, part_tokens=30)  # fmt: skip
        stages = json.loads((work / "report.json").read_text())["stages"]
        names = ["tokens_data", "tokens_model"] if target == "data_then_model" else ["tokens_mixed"]
        assert list(stages) == names
        assert stages[names[0]]["losses"][-1] < stages[names[0]]["losses"][0]
        assert embedded(lm, TEXTS).shape == (3, 32 if pooling == "prompteol" else 64)
    assert (
        json.loads((tmp_path / "prompteol" / "report.json").read_text())["stages"]["tokens_data"]["skipped_texts"] == 1
    )


def test_key_tokens_may_be_read_out_of_both_halves(made) -> None:
    """The mean of both losses, and its gradients those of the two together, in parts as in one."""
    making, _ = made
    targets = [[(5 + place, 0.5), (9, 0.5)] for place in range(len(TEXTS))]
    tokens = {
        mode: TokenLesson(making.reader, mode, TEXTS, targets, batch_size=3, most_tokens=4096)
        for mode in ("context_eos", "context", "eos")
    }
    both, context, end = (gradients(making.embedder, tokens[mode]) for mode in tokens)
    tokens["context_eos"].most_tokens = 12
    parts = gradients(making.embedder, tokens["context_eos"])
    assert both["loss"] > 0
    for name, gradient in both.items():
        halves = sum(side.get(name, torch.zeros(())) for side in (context, end)) / 2
        assert torch.allclose(gradient, halves, atol=1e-5, rtol=1e-4), name
        assert torch.allclose(gradient, parts[name], atol=1e-5, rtol=1e-4), name
    options = {"encoder": "e", "objective": "tokens"}
    assert [ContextualEmbeddings(token_halves=half, **options).token_mode for half in ("eos", "both")] == [
        "eos", "context_eos",
    ]  # fmt: skip


def test_what_was_trained_may_be_saved_where_one_likes(embed_with, given_fresh, pairs_file, tmp_path) -> None:
    """The folder embeds as the run did, has its report, and is refused before any work where something lies in it."""
    folder, empty = tmp_path / "mine" / "saved", tmp_path / "empty"
    empty.mkdir()
    first = embedded(embed_with(train_file=pairs_file, save=folder, **QUICK), TEXTS)
    assert {path.name for path in folder.iterdir()} == {
        "adapter", "embedder.json", "projector.safetensors", "report.json",
    }  # fmt: skip
    assert not list(folder.parent.glob(".*"))
    report = json.loads((folder / "report.json").read_text())
    assert report["alignment"]["texts"] == 13 and 0 <= report["alignment"]["hit_at_k"] <= 1
    loaded = embedded(embed_with(given=given_fresh(), load=folder), TEXTS)
    assert abs(first - loaded).max() < 1e-6
    method = ContextualEmbeddings(pooling="eos", train_file=pairs_file, save=folder, steps=2)
    with pytest.raises(HarnessError, match="is there already, and is no empty folder"):
        method.fingerprint()
    method = ContextualEmbeddings(pooling="eos", train_file=pairs_file, save=empty, **QUICK)
    before = method.fingerprint()
    method.apply(given_fresh(), seed=0, workdir=tmp_path)
    assert (empty / "adapter").is_dir() and method.fingerprint() == before  # it was looked at before


def test_key_tokens_may_come_before_pairs(embed_with, pairs_file, tmp_path) -> None:
    work = tmp_path / "both"
    embed_with(workdir=work, objective="tokens_then_contrastive", train_file=pairs_file, max_df=1.0, **QUICK)
    assert list(json.loads((work / "report.json").read_text())["stages"]) == ["tokens_data", "contrastive"]


def test_a_loss_that_is_no_number_stops_with_its_step_and_keeps_nothing(embed_with, lm, pairs_file, tmp_path) -> None:
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(HarnessError, match="training broke down at step 1"):
        embed_with(workdir=tmp_path / "broken", train_file=pairs_file, pooling="eos", **QUICK)
    assert not list((tmp_path / "broken").iterdir())


def test_texts_that_were_trained_on_are_told(embed_with, pairs_file, capsys) -> None:
    lm = embed_with(train_file=pairs_file, **QUICK)
    embedded(lm, ["What is time?", "Noon"])
    assert "1 of the 2 texts to embed were trained on" in capsys.readouterr().err


def test_batches_have_one_source_each() -> None:
    rows = [Pair(f"q{n}", f"p{n}", source="ab"[n % 2]) for n in range(9)]
    found = batches(rows, 2, seed=0)
    epoch = [next(found) for _ in range(4)]
    assert all(len({pair.source for pair in batch}) == 1 and len(batch) == 2 for batch in epoch)
    assert len({pair.query for batch in epoch for pair in batch}) == 8
    assert [next(batches(rows, 2, seed=0)) for _ in range(2)] == [epoch[0]] * 2


def test_a_batch_of_one_without_negatives_is_refused() -> None:
    """Property 8."""
    with pytest.raises(HarnessError, match="a batch of one query without negatives has no loss"):
        next(batches([Pair("q", "p"), Pair("r", "s")], 1, seed=0))
    with pytest.raises(HarnessError, match="a batch of one query"):
        next(batches([Pair("q", "p", source="a"), Pair("r", "s", source="b")], 8, seed=0))
    assert len(next(batches([Pair("q", "p", ("n",)), Pair("r", "s")], 1, seed=0))) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"query": "q"}, "positive"), ({"query": "q", "positive": " "}, "row 1 has an empty text"),
        ({"query": "q", "positive": "p", "negatives": "n"}, "no list of texts"),
        ({"query": "q", "positive": "p", "source": 3}, "'source' is no text"),
    ],
)  # fmt: skip
def test_training_rows_that_are_none_are_named(tmp_path, row, said) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(HarnessError, match=said):
        read_pairs(path)


def test_a_file_without_text_is_refused(tmp_path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(HarnessError, match="holds no text"):
        read_texts(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs an encoder"), ({"temperature": 0, "pooling": "eos"}, "temperature is 0"),
        ({"pooling": "eos", "steps": 3}, "train_file is missing"),
        ({"pooling": "eos", "template": "Query:"}, "no {task}"),
        ({"pooling": "eos", "max_df": 2}, "share from 0 to 1"), ({"pooling": "eos", "batch_size": 0}, "batch_size is 0"),
        ({"pooling": "eos", "train_encoder": True}, "no contextual token"),
        ({"pooling": "eos", "target_modules": ()}, "target_modules is empty"),
        ({"pooling": "eos", "save": "x"}, "nothing is trained that could be saved"),
        ({"pooling": "eos", "token_halves": "both"}, "has no contextual half"),
    ],
)  # fmt: skip
def test_options_that_no_run_could_use_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        ContextualEmbeddings(**options)


def test_options_that_contradict_each_other_are_refused(pairs_file, tmp_path) -> None:
    with pytest.raises(ValueError, match="trained already"):
        ContextualEmbeddings(pooling="eos", steps=2, train_file=pairs_file, load=tmp_path)
    with pytest.raises(ValueError, match="the encoder alone"):
        ContextualEmbeddings(pooling="encoder", encoder="e", train_file=pairs_file)


def test_a_folder_without_an_embedder_is_refused(tmp_path) -> None:
    with pytest.raises(HarnessError, match=r"holds no embedder\.json"):
        ContextualEmbeddings(pooling="eos", load=tmp_path).fingerprint()


def test_a_step_has_queries_then_positives_then_negatives_with_their_instructions(made) -> None:
    _, lesson = made
    lesson.instruction = "Read"
    [first, second] = [Pair("q", "p", ("n", "m")), Pair("r", "s", instruction="Find")]
    texts = [("q", "Read"), ("r", "Find"), ("p", None), ("s", None), ("n", None), ("m", None)]
    assert lesson.wanted([first, second]) == texts
    lesson.instructs_documents = True
    assert lesson.wanted([first, second])[2:] == [("p", "Read"), ("s", "Find"), ("n", "Read"), ("m", "Read")]
