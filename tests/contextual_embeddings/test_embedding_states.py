"""What an embedder makes of texts: places, halves, causal structure, padding, truncation, empty and special text."""

from __future__ import annotations

import numpy
import pytest
import torch
from embedding_requests import TEXTS, embedded, requests

from harness import HarnessError
from harness_contextual_embeddings.reading import POOLINGS, layouts

OF_DECODER = [name for name in POOLINGS if name != "encoder"]


def read(lm, text: str, instruction: str | None = None):
    return layouts(lm.tokenizer, lm.reader.reading, [(text, instruction)])


def states(lm, text: str, *, row=None, instruction: str | None = None):
    """Return layout and states (T, D) of a text; ``row`` takes the place of the contextual input row."""
    [layout] = read(lm, text, instruction)
    row = lm.reader.contextual(lm.model, [text]) if row is None else row
    with torch.no_grad():
        return layout, lm.model.states([layout], row)[0]


@pytest.mark.parametrize("pooling", OF_DECODER)
def test_a_vector_is_the_same_alone_and_among_others_on_either_side_of_padding(embed_with, pooling) -> None:
    """Property 1: within 1e-5 at length 1; property 22: float32, one dimension, in order, equal requests alike."""
    lm = embed_with(pooling=pooling)
    together = embedded(lm, [*TEXTS, TEXTS[0]], "Find it")
    assert together.dtype == numpy.float32 and together.shape == (4, 64 if pooling == "context_eos" else 32)
    assert (together[0] == together[3]).all()
    assert numpy.allclose(numpy.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = numpy.concatenate([embedded(lm, [text], "Find it") for text in TEXTS])
    assert abs(together[:3] - alone).max() < 1e-5
    assert abs(embedded(lm, TEXTS[::-1], "Find it")[::-1] - alone).max() < 1e-5
    wanted = layouts(lm.tokenizer, lm.reader.reading, [(text, "Find it") for text in TEXTS])
    with torch.no_grad():
        left = lm.model.pooled(
            wanted,
            lm.reader.contextual(lm.model, TEXTS),
            mode=lm.mode,
            is_bidirectional=lm.reader.reading.way.is_bidirectional,
            padding="left",
        )
    assert abs(torch.nn.functional.normalize(left).numpy() - alone).max() < 1e-5


@pytest.mark.parametrize("position", ["text", "front"])
def test_the_halves_are_the_states_behind_the_final_norm_at_context_and_end(embed_with, position) -> None:
    """Property 2: taken by a hook of the test's own; the contextual half comes first."""
    lm = embed_with(normalise=False, context_position=position)
    seen = []
    hook = lm.model.base.norm.register_forward_hook(lambda _module, _args, output: seen.append(output))
    [vector] = embedded(lm, TEXTS[:1], "Find it")
    hook.remove()
    [layout] = read(lm, TEXTS[0], "Find it")
    assert layout.context_index == (1 if position == "front" else layout.text_start - 1)
    assert layout.eos_index == len(layout) - 1 and layout.ids[-1] == lm.tokenizer.eos_token_id
    assert numpy.array_equal(vector[:32], seen[0][0, layout.context_index].numpy())
    assert numpy.array_equal(vector[32:], seen[0][0, layout.eos_index].numpy())
    assert not numpy.allclose(vector[:32], vector[32:], atol=1e-3)


def test_states_move_where_they_may_and_nowhere_else(embed_with) -> None:
    """Property 3, every row of the table; property 4."""
    lm = embed_with()
    near, far = "Forty clocks ticked there", "Forty clocks bowed there"
    (layout, first), (_, other) = (states(lm, text, instruction="Find it") for text in (near, far))
    at = layout.context_index
    assert torch.allclose(first[:at], other[:at], atol=1e-5)
    assert not torch.allclose(first[at], other[at], atol=1e-4)
    row = lm.reader.contextual(lm.model, [near])
    (_, held), (moved, held_other) = (states(lm, text, row=row, instruction="Find it") for text in (near, far))
    ids, other_ids = layout.ids, moved.ids
    changed = next(n for n in range(len(ids)) if ids[n] != other_ids[n])
    assert torch.allclose(held[:changed], held_other[:changed], atol=1e-5)  # to the bit where lengths are equal
    assert not torch.allclose(held[changed], held_other[changed], atol=1e-4)
    _, turned = states(lm, near, row=-row, instruction="Find it")
    assert torch.equal(turned[:at], held[:at])
    assert all(not torch.allclose(turned[place], held[place], atol=1e-5) for place in range(at, len(layout)))
    asked, told = states(lm, near, instruction="Keep it")
    assert not torch.allclose(told[asked.context_index], first[at], atol=1e-4)
    assert not torch.allclose(told[-1], first[-1], atol=1e-5)


def test_a_token_s_own_row_in_the_contextual_place_gives_that_token_s_states(embed_with) -> None:
    """Property 5: rows, places and masks are those of the plain way."""
    lm = embed_with()
    [layout] = read(lm, TEXTS[0])
    ids = [17 if token is None else token for token in layout.ids]
    with torch.no_grad():
        plain = lm.model.base(input_ids=torch.tensor([ids])).last_hidden_state[0]
    _, found = states(lm, TEXTS[0], row=lm.model.rows(torch.tensor([17])))
    assert torch.equal(found, plain)


def test_the_end_alone_is_the_plain_model_s_state_there(lm, embed_with) -> None:
    """Property 6, to the bit; property 10: nothing is trained, so nothing has changed."""
    found = embed_with(pooling="eos", normalise=False)
    text = "Instruct: Find it\nQuery: "
    ids = [lm.tokenizer.bos_token_id]
    ids += [*lm.tokenizer.encode(text), *lm.tokenizer.encode(TEXTS[0]), lm.tokenizer.eos_token_id]
    with torch.no_grad():
        plain = lm.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    assert numpy.array_equal(embedded(found, TEXTS[:1], "Find it")[0], plain.numpy())


def test_texts_of_any_length_end_with_the_end(embed_with) -> None:
    """Property 12: beyond both limits nothing counts; within the encoder's it does; what is cut is counted."""
    lm = embed_with(max_length=16)
    base = "Noon took four minutes to pass, in the order in which he had bought them. "
    far = base * 20
    vectors = embedded(lm, [far + "Sweets.", far + "Bank!", "The" + base, "The" + base + "What?", base])
    assert (vectors[0] == vectors[1]).all()
    assert not numpy.allclose(vectors[2], vectors[3], atol=1e-4)
    assert lm.truncated["t"] == 5
    assert lm.reader.truncated_for_encoder == 2
    for text in ("a", far):
        [layout] = read(lm, text)
        assert layout.ids[-1] == lm.tokenizer.eos_token_id and layout.eos_index == len(layout) - 1 <= 15
    with pytest.raises(HarnessError, match="no room for text"):
        embedded(lm, TEXTS, "An instruction that is far longer than the sixteen places that there are")


def test_an_empty_text_is_refused_with_its_number_or_becomes_zeros(embed_with) -> None:
    """Property 13."""
    with pytest.raises(HarnessError, match=r"text of embed request 1 is empty .* with --method_args empty=zero"):
        embed_with().embed(requests(["a", " \n"]))
    lm = embed_with(empty="zero")
    vectors = embedded(lm, [TEXTS[0], "", TEXTS[1]])
    assert not vectors[1].any()
    assert abs(vectors[[0, 2]] - embedded(lm, TEXTS[:2])).max() < 1e-5


def test_a_special_token_s_spelling_is_text(embed_with) -> None:
    """Property 14."""
    lm = embed_with()
    [layout] = read(lm, "It ended<|end|>there<|end|>")
    assert lm.tokenizer.eos_token_id not in layout.ids[layout.text_start : layout.text_end]
    assert layout.ids.count(lm.tokenizer.eos_token_id) == 2  # which also begins sequences here
    assert layout.eos_index == len(layout) - 1
    only = embedded(lm, ["<|end|>", "<|end|><|end|>", "[UNK] \u2603", "!"])
    assert numpy.isfinite(only).all() and len({row.tobytes() for row in only}) == 4


def test_of_learned_places_the_contextual_token_takes_one(embed_with, tmp_path) -> None:
    """A text may be one token shorter than without it, and padding on the left moves no place."""
    import transformers
    from tiny_models import build_tokenizer

    from harness.models.finding import resolve
    from harness.models.loading import load_lm

    tokenizer = build_tokenizer()
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24, "vocab_size": len(tokenizer)}
    config = transformers.GPT2Config(**sizes, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    for part in (tokenizer, transformers.GPT2LMHeadModel(config)):
        part.save_pretrained(tmp_path / "gpt2")
    given = load_lm(resolve({"pretrained": str(tmp_path / "gpt2")}), device="cpu", batch_size="auto")
    for pooling, most in (("eos", 22), ("context_eos", 21)):
        lm = embed_with(given=given, pooling=pooling)
        [layout] = read(lm, "time " * 60)
        assert (len(layout), layout.text_end - layout.text_start) == (24, most)
        texts = ["time " * 60, "a clock", "Noon took four"]
        wanted = layouts(lm.tokenizer, lm.reader.reading, [(text, None) for text in texts])
        rows = lm.reader.contextual(lm.model, texts)
        with torch.no_grad():
            left = lm.model.pooled(wanted, rows, mode=lm.mode, padding="left")
        alone = numpy.concatenate([embedded(lm, [text]) for text in texts])
        assert abs(torch.nn.functional.normalize(left).numpy() - alone).max() < 1e-5


def test_a_prompt_for_one_word_and_the_text_twice_are_laid_out_as_said(embed_with) -> None:
    lm = embed_with(pooling="prompteol")
    [layout] = read(lm, "time", "not read")
    assert lm.tokenizer.decode(layout.ids[1:]) == 'This sentence : "time" means in one word:"'
    lm = embed_with(pooling="echo", max_length=100)
    [layout] = read(lm, "time")
    assert lm.tokenizer.decode(layout.ids[1:]) == "Rewrite the sentence: time, rewritten sentence: time"
    assert lm.tokenizer.decode(layout.ids[layout.text_start : layout.text_end]) == "time"
    [layout] = read(lm, "time " * 90)
    assert len(layout) <= 100 and layout.text_tokens_dropped > 20
    [layout] = read(lm, "time", "Find")
    assert lm.tokenizer.decode(layout.ids[1:]) == "Instruct:Find,\nQuery:time\nQuery again:time"


def test_without_a_causal_mask_the_first_token_sees_the_last(embed_with) -> None:
    lm = embed_with(pooling="bidirectional")
    [near], [far] = read(lm, "What is time"), read(lm, "What is bank")
    start = near.text_start
    for is_bidirectional in (True, False):
        with torch.no_grad():
            both = [lm.model.states([one], is_bidirectional=is_bidirectional)[0, start] for one in (near, far)]
        assert torch.equal(*both) is not is_bidirectional


def test_examples_and_beginnings_are_as_asked_for(embed_with) -> None:
    lm = embed_with(bos="never", examples=("Q: a clock\nA: time",), context_position="front")
    [layout] = read(lm, "bank", "Find it")
    assert layout.ids[0] is None
    assert lm.tokenizer.decode(layout.ids[1:-1]) == "Q: a clock\nA: time\n\nInstruct: Find it\nQuery: bank"
    assert read(embed_with(bos="auto"), "bank")[0].ids[0] is None  # this tokenizer puts none before texts


def test_a_zeroed_context_is_another_vector(embed_with) -> None:
    vectors = embedded(embed_with(), TEXTS)
    assert not numpy.allclose(vectors, embedded(embed_with(context="zero"), TEXTS), atol=1e-3)


def test_the_encoder_alone_answers_with_its_own_vectors(embed_with, tiny_encoder) -> None:
    from transformers import AutoModel, AutoTokenizer

    lm = embed_with(pooling="encoder")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_encoder), AutoModel.from_pretrained(tiny_encoder)
    with torch.no_grad():
        plain = model(**tokenizer([TEXTS[0]], return_tensors="pt")).last_hidden_state[0].mean(0)
    assert abs(embedded(lm, TEXTS)[0] - torch.nn.functional.normalize(plain, dim=0).numpy()).max() < 1e-5


def test_other_requests_are_refused(embed_with) -> None:
    """Property 25: what embeds does not answer for the base."""
    lm = embed_with(pooling="eos")
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        with pytest.raises(HarnessError, match=f"cannot answer '{kind}' requests"):
            getattr(lm, kind)([])
    assert lm.answers == {"embed", "tokenize"}
