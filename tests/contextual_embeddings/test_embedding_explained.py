"""Embeddings in words and neighbours in a file, by hand and by the command."""

from __future__ import annotations

import torch
from embedding_requests import TEXTS

from harness_contextual_embeddings.__main__ import main
from harness_contextual_embeddings.explaining import Explained, alignment, as_page, explain, nearest
from harness_contextual_embeddings.html_page import as_html


def test_what_an_embedding_says_are_the_head_s_likeliest_tokens(embed_with) -> None:
    lm = embed_with(pooling="eos", normalise=False)
    found = explain(lm, TEXTS, count=4)
    [layout] = lm.reader.read([(TEXTS[0], None)])
    with torch.no_grad():
        logits = lm.model.decoder(torch.tensor([layout.ids])).logits[0, -1]
    assert found[0].tokens == tuple(lm.tokenizer.decode([token]) for token in logits.topk(4).indices)
    assert found[0].hits == sum(int(token) in found[0].present for token in logits.topk(4).indices)
    assert all(0 <= one.local <= 1 and one.matched <= one.present for one in found)
    page = as_page(found)
    assert page.count("\n| ") == 3 and "Of 3 texts" in page


def test_texts_explained_together_are_explained_as_alone(embed_with) -> None:
    lm = embed_with()
    alone = [one for text in TEXTS for one in explain(lm, [text])]
    assert explain(lm, TEXTS) == alone
    told = alignment(alone)
    assert told["hit_at_k"] == sum(any(one.in_text) for one in alone) / 3
    assert told["local"] == sum(len(one.matched) / len(one.present) for one in alone) / 3
    present = set().union(*(one.present for one in alone))
    assert told["global"] == len(set().union(*(one.matched for one in alone))) / len(present)
    assert (told["texts"], told["k"]) == (3, 10)
    assert explain(embed_with(context="zero"), TEXTS) != alone


def test_a_page_shows_what_a_text_holds_and_runs_none_of_it() -> None:
    text = "<script>alert(1)</script> \"quoted\" & 'so' <img src=x onerror=alert(2)> \u202eback\x1b[31m"
    one = Explained(text, ("<b>", '" onload="x', " clock"), (False, False, True), frozenset({1}), frozenset({1, 2}))
    page = as_html([one], about="<i>decoder</i>")
    assert "<script" not in page and "<img" not in page and "<i>" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &#34;quoted&#34; &amp; &#39;so&#39;" in page
    assert "\u202e" not in page and "\x1b" not in page
    assert '<span class="token">&#34; onload=&#34;x</span>' in page and '<span class="token own"> clock</span>' in page
    assert "1 of 3" in page and "default-src &#39;none&#39;" in page and "://" not in page


def test_the_nearest_line_is_the_text_itself(embed_with) -> None:
    found = nearest(embed_with(pooling="mean", normalise=False), TEXTS[1], TEXTS, count=2)
    assert found[0][1] == TEXTS[1] and abs(found[0][0] - 1) < 1e-5
    assert len(found) == 2 and found[0][0] >= found[1][0]


def test_the_command_shows_both_and_says_what_is_wrong(tiny_decoder, tiny_encoder, tmp_path, capsys) -> None:
    file, page = tmp_path / "texts.txt", tmp_path / "page.md"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    models = ["--decoder", str(tiny_decoder), "--encoder", str(tiny_encoder), "--device", "cpu"]
    assert main(["explain", str(file), *models, "--output", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("of 10 |") == 3
    page = tmp_path / "page.html"
    assert main(["explain", str(file), *models, "--output", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("of 10</td>") == 3
    assert main(["neighbours", str(file), TEXTS[2], *models, "--pooling", "mean", "--count", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"1.000  {TEXTS[2]}\n")
    assert main(["explain", str(file), "--decoder", str(tiny_decoder)]) == 2
    assert main(["neighbours", str(file), " ", *models]) == 2
    assert "needs an encoder" in capsys.readouterr().err
