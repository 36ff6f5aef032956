"""Words that name several sides beside ``--across``: the one that is meant, and the question where several may be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from compared_runs import write_run

from harness.cli import main
from harness.comparing.completing import completed
from harness.comparing.sides import Pool

VALUES = [1.0, 0.0, 1.0] * 20


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Results of one method and of the untouched model, each on a model, quantised, with an adapter, and a larger one."""
    kinds: list[dict[str, Any]] = [
        {},
        {"model": {"quantization": "nf4", "dtype": "bfloat16"}},
        {"model": {"digest": "ada9"}, "settings": {"model_args": {"peft": "mine"}}},
        {"model": {"name": "large", "digest": "1a59e"}},
    ]
    for more in kinds:
        write_run(tmp_path, {"t": {"acc": VALUES}}, **more)
        write_run(tmp_path, {"t": {"acc": VALUES}}, method="split", options={"rate": 0.5}, **more)
    return tmp_path


PLAIN = "model=tiny,adapter=none,quantization=none"


@pytest.mark.parametrize(
    ("words", "across", "sides"),
    [
        ("quantization=nf4 baseline", "quantization", f"quantization=nf4,baseline baseline,{PLAIN}"),
        ("baseline quantization=nf4", "quantization", f"baseline,{PLAIN} quantization=nf4,baseline"),
        ("split,quantization=nf4 baseline", "quantization", f"split,quantization=nf4 baseline,{PLAIN}"),
        ("split,quantization=nf4 split", "quantization", f"split,quantization=nf4 split,{PLAIN}"),
        ("baseline,adapter=mine baseline", "adapter", f"baseline,adapter=mine baseline,{PLAIN}"),
        ("baseline,model=large baseline", "model", f"baseline,model=large baseline,{PLAIN}"),
    ],
)
def test_the_side_that_differs_in_nothing_else_is_meant(
    crowd: Path, words: str, across: str, sides: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(words.split(), Pool(crowd), [across]) == sides.split()
    assert main(["compare", *words.split(), "--across", across, "--records", str(crowd), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [side["label"] for side in told["sides"]] == sides.split()


def test_where_several_may_be_meant_the_words_that_are_advised_work(
    crowd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --across, and with three quantisations; the side that is named already is not advised."""
    write_run(crowd, {"t": {"acc": VALUES}}, model={"quantization": "int8"})
    for flags in ([], ["--across", "quantization"]):
        assert main(["compare", "baseline,quantization=nf4", "baseline", *flags, "--records", str(crowd)]) == 2
        [advised] = re.findall("say which, as in '([^']*)'", capsys.readouterr().err)
        words = ["compare", "baseline,quantization=nf4", advised, "--records", str(crowd)]
        assert main([*words, "--across", "quantization,model,adapter"]) == 0
        capsys.readouterr()


def test_words_that_name_nothing_are_left_to_what_says_so(crowd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["nobody", "baseline"], ["baseline@split", "baseline"], ["baseline"]):
        assert completed(words, Pool(crowd), ["quantization"]) == words
    assert completed(["baseline", "split"], Pool(crowd), ["num_fewshot"]) == ["baseline", "split"]
    assert main(["compare", "nobody", "baseline", "--across", "quantization", "--records", str(crowd)]) == 2
    assert "no record in" in capsys.readouterr().err
