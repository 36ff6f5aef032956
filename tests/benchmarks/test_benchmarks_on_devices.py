"""The script for a GPU runs on a CPU, too; and what the comparison with other engines makes of texts and seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the benchmarks, importable; what is imported from it is forgotten afterwards."""
    import torch

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before, threads = set(sys.modules), torch.get_num_threads()
    torch.set_num_threads(1)  # those of this process are not there in one that it forks
    yield BENCHMARKS
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def ran(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Run the script in this process, and return its status and its JSON."""
    import on_gpu

    status = on_gpu.main(["--device", "cpu", "--scale", "0.01", *words])
    return status, json.loads(capsys.readouterr().out)


def test_the_script_for_a_gpu_prints_one_json_of_what_it_found(
    benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Demand: parts, checks and figures as JSON, status 0 when all of it is right."""
    status, found = ran(["--parts", "device", "kernels", "--seconds", "400"], capsys)
    assert (status, found["ok"], found["scale"]) == (0, True, 0.01)
    assert {name: part["status"] for name, part in found["parts"].items()} == {"device": "done", "kernels": "done"}
    checks = found["parts"]["kernels"]["checks"]
    assert checks["attend, float32, 64 wide, causal"]["error"] < 1e-4
    assert all(check["ok"] for check in checks.values())
    assert found["versions"]["torch"]


def test_a_part_that_overruns_is_cut_and_one_that_breaks_is_told(
    benchmarks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: neither stops the other parts; what was found before stays, and the status is 1."""
    import on_gpu_parts

    def endless(place: Any) -> None:
        place.check("before", ok=True)
        while True:
            pass

    def breaking(place: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(on_gpu_parts.PARTS, "kernels", endless)
    monkeypatch.setitem(on_gpu_parts.PARTS, "sharing", breaking)
    status, found = ran(["--parts", "kernels", "sharing", "--seconds", "4"], capsys)
    parts = found["parts"]
    assert status == 1
    assert (parts["kernels"]["status"], parts["sharing"]["status"]) == ("cut", "failed")
    assert parts["kernels"]["checks"] == {"before": {"ok": True}}
    assert "no kernel image is available" in parts["sharing"]["error"]


def test_texts_of_other_engines_are_told_apart_by_the_logits_where_they_part(
    benchmarks: Path, tiny_model: Path, tokenizer: Any
) -> None:
    """Demand: a text that is not ours is named, with how much likelier our token is where the two part."""
    import peers
    from peer_engines import Asked

    prompt = "The clockmaker's shop stood"
    asked = [Asked("0-shot", prompt, tokenizer(prompt).input_ids, ["\n"], 4)]
    turns = {
        name: [{"0-shot": {"texts": [text], "wall_seconds": seconds, "cpu_seconds": 1.0, "peak_bytes": 1}}]
        for name, text, seconds in (("ours", " between a bank", 2.0), ("vLLM", " between a bakery", 3.0))
    }
    found = peers.differences("0-shot", turns, asked, tiny_model)
    assert not found["ours"]["ties"] and not found["ours"]["others"]
    (line,) = found["vLLM"]["others"] or found["vLLM"]["ties"]
    assert line.startswith("vLLM, prompt 0: parts at token ")
    rows = [peers.row("0-shot", name, turns, found) for name in turns]
    assert [row["wall_ratio"] for row in rows] == [1.0, 1.5]
    assert peers.table(rows).count("\n") == 3


def test_a_gguf_file_is_written_again_in_float32(benchmarks: Path, tmp_path: Path) -> None:
    """Demand: the same keys and the same numbers, none of them rounded again."""
    import gguf
    import numpy as np
    import peers

    source, target = tmp_path / "small.gguf", tmp_path / "wide.gguf"
    weights = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    packed = gguf.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("t", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    peers.write_float32(source, target)
    reader = gguf.GGUFReader(target)
    assert reader.fields["llama.block_count"].contents() == 3
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    (tensor,) = reader.tensors
    assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(tensor.data, gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
