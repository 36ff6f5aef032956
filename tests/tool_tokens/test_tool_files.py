"""The file of tool rows: what comes back, for which tools, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness import HarnessError
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness_tool_tokens.rows.saving import ToolRows, head_fingerprint, model_name
from harness_tool_tokens.rows.settings import Settings
from harness_tool_tokens.rows.states import frozen_states
from harness_tool_tokens.rows.texts import CallPlace, Row, encode_row, rows_digest
from harness_tool_tokens.rows.training import measure, train
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

TOOLBOX = Toolbox((Tool("tick", "tick", "counts ticks", "1"), Tool("tock", "tock"), Tool("chime", "chime")))
ROWS = [
    Row("a", "Forty clocks ticked there, noon took 4 minutes", (CallPlace("tick", 37, 38),)),
    Row("b", "None, said he, but together 12 of them", (CallPlace("tock", 28, 30),)),
    Row("c", "The bell rings 7 times", (CallPlace("chime", 15, 16),)),
]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def trained(lm: Any) -> Any:
    """Return rows trained on three texts, and the states of these."""
    states = frozen_states(lm, [encode_row(lm, row, TOOLBOX) for row in ROWS])
    start = torch.zeros(3, 32)
    rows, report = train(states, start, start, Settings(steps=30, learning_rate=0.1))
    settings = {"penalty": 0.0, "report": {"steps": report["steps"]}}
    made = ToolRows.of(lm, TOOLBOX, rows, start + 0.5, bias=0.25, settings=settings, training_rows=rows_digest(ROWS))
    return made, states


def test_saved_and_loaded_rows_score_identically(lm: Any, trained: Any, tmp_path: Path, capsys: Any) -> None:
    """Acceptance property 17."""
    made, states = trained
    made.save(tmp_path / "rows.safetensors")
    loaded = ToolRows.load(tmp_path / "rows.safetensors", lm=lm, toolbox=TOOLBOX)
    assert torch.equal(loaded.rows, made.rows) and torch.equal(loaded.prior, made.prior)
    assert measure(states, loaded.rows, loaded.bias) == measure(states, made.rows, made.bias)
    for name in ("tools", "bias", "model", "head", "settings", "training_rows", "missing"):
        assert getattr(loaded, name) == getattr(made, name)
    assert loaded.tools[0] == {"key": "tick", "name": "tick", "description": "counts ticks", "arity": "1"}
    assert capsys.readouterr().err == ""


def test_equal_rows_make_equal_bytes(lm: Any, trained: Any, tmp_path: Path) -> None:
    """Acceptance properties 9 and 17."""
    made, _ = trained
    made.save(tmp_path / "one")
    made.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_size < 4000


def test_rows_of_another_width_are_refused(lm: Any, trained: Any, tmp_path: Path) -> None:
    """Acceptance property 17."""
    from tiny_models import build_model

    trained[0].save(tmp_path / "rows")
    wider = build_model(tmp_path / "wider", hidden_size=64)
    other = load_lm(resolve({"pretrained": str(wider)}), device="cpu", batch_size=1)
    with pytest.raises(
        HarnessError, match=r"are 32 wide, made for 'tiny', but this model is 64 wide; train rows for it"
    ):
        ToolRows.load(tmp_path / "rows", lm=other, toolbox=TOOLBOX)


def test_another_output_head_is_warned_of(lm: Any, trained: Any, tmp_path: Path, capsys: Any) -> None:
    """Acceptance property 17."""
    from tiny_models import build_model

    trained[0].save(tmp_path / "rows")
    other = load_lm(
        resolve({"pretrained": str(build_model(tmp_path / "other", initializer_range=0.05))}),
        device="cpu",
        batch_size=1,
    )
    loaded = ToolRows.load(tmp_path / "rows", lm=other, toolbox=TOOLBOX)
    assert torch.equal(loaded.rows, trained[0].rows)
    assert "made for the output head of 'tiny', which is not this model's" in capsys.readouterr().err
    assert head_fingerprint(other) != head_fingerprint(lm) and model_name(other) == "other"


def test_removing_a_tool_leaves_the_rows_of_others_and_their_logits(
    lm: Any, trained: Any, tmp_path: Path, capsys: Any
) -> None:
    """Acceptance property 18."""
    made, states = trained
    made.save(tmp_path / "rows")
    fewer = Toolbox((TOOLBOX[2], TOOLBOX[0]))
    loaded = ToolRows.load(tmp_path / "rows", lm=lm, toolbox=fewer)
    assert torch.equal(loaded.rows, made.rows[[2, 0]]) and torch.equal(loaded.prior, made.prior[[2, 0]])
    assert torch.equal(states.hidden @ loaded.rows[1], states.hidden @ made.rows[0])
    assert [tool["key"] for tool in loaded.tools] == ["chime", "tick"]
    assert "rows of rows for tock are left out" in capsys.readouterr().err


def test_adding_a_tool_leaves_the_rows_of_others_and_its_own_can_be_filled_in(
    lm: Any, trained: Any, tmp_path: Path, capsys: Any
) -> None:
    """Acceptance property 18."""
    made, _ = trained
    made.save(tmp_path / "rows")
    more = Toolbox((Tool("gong", "gong"), *TOOLBOX))
    loaded = ToolRows.load(tmp_path / "rows", lm=lm, toolbox=more)
    assert loaded.missing == ("gong",) and torch.equal(loaded.rows[1:], made.rows)
    assert torch.equal(loaded.rows[0], torch.zeros(32))
    assert "has no rows for gong; they are untrained" in capsys.readouterr().err
    new = torch.ones(4, 32)
    filled = loaded.filled(new)
    assert torch.equal(filled.rows[0], new[0]) and torch.equal(filled.prior[0], new[0])
    assert torch.equal(filled.rows[1:], made.rows) and filled.missing == ()


def test_a_file_for_none_of_the_tools_is_refused(lm: Any, trained: Any, tmp_path: Path) -> None:
    trained[0].save(tmp_path / "rows")
    with pytest.raises(
        HarnessError, match="has no row for any of the tools asked for; it has rows for tick, tock, chime"
    ):
        ToolRows.load(tmp_path / "rows", lm=lm, toolbox=Toolbox((Tool("gong", "gong"),)))


def test_files_that_are_no_tool_rows_are_refused(lm: Any, trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with pytest.raises(HarnessError, match="there are no tool rows at"):
        ToolRows.load(path, lm=lm, toolbox=TOOLBOX)
    trained[0].save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(HarnessError, match="cannot be read"):
        ToolRows.load(path, lm=lm, toolbox=TOOLBOX)
    for metadata in (None, {"tool_rows": "{}"}, {"tool_rows": "[]"}):
        save_file({"rows": torch.zeros(3, 32), "prior": torch.zeros(3, 32)}, path, metadata=metadata)
        with pytest.raises(HarnessError, match="is no file of tool rows"):
            ToolRows.load(path, lm=lm, toolbox=TOOLBOX)


def test_a_file_that_cannot_be_written_is_named(lm: Any, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HarnessError, match="tool rows cannot be written to"):
        trained[0].save(tmp_path / "file" / "rows")
