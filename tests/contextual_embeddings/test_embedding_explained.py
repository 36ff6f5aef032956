"""Embeddings in words and neighbours in a file, by hand and by the command."""

from __future__ import annotations

import torch
from embedding_requests import TEXTS

from harness_contextual_embeddings.__main__ import main
from harness_contextual_embeddings.explaining import as_page, explain, nearest


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
    assert main(["neighbours", str(file), TEXTS[2], *models, "--pooling", "mean", "--count", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"1.000  {TEXTS[2]}\n")
    assert main(["explain", str(file), "--decoder", str(tiny_decoder)]) == 2
    assert main(["neighbours", str(file), " ", *models]) == 2
    assert "needs an encoder" in capsys.readouterr().err
