"""Broken, odd and hostile input: one sentence before anything heavy, or the right answer; never a score of nothing."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tokenizer

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]
Change = Callable[[Path], object]


@pytest.fixture
def model_copy(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the tiny model to a folder and changes it there."""

    def copy(change: Change = lambda _: None, *, name: str = "broken") -> Path:
        folder = tmp_path / "models" / name
        shutil.copytree(tiny_model, folder)
        change(folder)
        return folder

    return copy


def remove(*patterns: str) -> Change:
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def rewrite(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def configure(**settings: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")

    return change


def cut(size: int) -> Change:
    return lambda folder: os.truncate(folder / "model.safetensors", size)


def edit_tensors(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def add_tokens(folder: Path) -> None:
    build_tokenizer(420).save_pretrained(folder)


BROKEN: dict[str, tuple[Change, list[str]]] = {
    "no config": (remove("config.json"), ["is no model folder: it has no config.json"]),
    "config that is no JSON": (rewrite("config.json", "{'a': 1"), ["config.json in '", "' is not valid JSON"]),
    "config that is a list": (rewrite("config.json", "[]"), ["config.json in '", "is no JSON object"]),
    "config that is no text": (rewrite("config.json", b"\xff\xfe\xff"), ["config.json"]),
    "config that is empty": (rewrite("config.json", "{}"), ["model 'broken' has no usable configuration"]),
    "config of an unknown kind": (configure(model_type="nonesuch"), ["model 'broken' has no usable configuration", "nonesuch"]),
    "config with a negative size": (configure(num_attention_heads=-4), ["model 'broken'"]),
    "config with text for a number": (configure(hidden_size="wide"), ["model 'broken'"]),
    "config of other shapes": (configure(hidden_size=64), ["model 'broken'"]),
    "config with too many layers": (configure(num_hidden_layers=4), ["model 'broken'", "layers.2"]),
    "no tokenizer": (remove("tokenizer*", "special_tokens*"), ["usable tokenizer|empty vocabulary", "tokenizer="]),
    "tokenizer that is no JSON": (rewrite("tokenizer.json", "{"), ["model 'broken' comes without a usable tokenizer"]),
    "tokenizer with too many tokens": (add_tokens, ["the tokenizer of 'broken' has 420 ids, but the model embeds 400"]),
    "no weights": (remove("*.safetensors"), ["has no weights"]),
    "weights that are empty": (cut(0), ["could not load model 'broken'"]),
    "weights cut short": (cut(5_000), ["could not load model 'broken'"]),
    "weights cut by a byte": (lambda f: cut((f / "model.safetensors").stat().st_size - 1)(f), ["could not load model 'broken'"]),
    "weights with an endless header": (
        rewrite("model.safetensors", struct.pack("<Q", 2**63) + b"{}"), ["could not load model 'broken'"]
    ),
    "weights that are words": (rewrite("model.safetensors", "these are not the weights you look for"), ["could not load model"]),
    "weights without a tensor": (
        edit_tensors(lambda t: t.pop("model.layers.1.mlp.up_proj.weight")), ["model 'broken'", "up_proj"]
    ),
    "weights of another shape": (
        edit_tensors(lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:8].clone()})), ["model 'broken'"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_model_folder_is_told_in_one_sentence_and_scores_nothing(
    fault: str, model_copy: Callable[..., Path], evaluate: Command
) -> None:
    change, parts = BROKEN[fault]
    outcome = evaluate(model=model_copy(change))
    assert outcome.code == 2, outcome.out
    assert outcome.out == ""
    for part in parts:
        assert any(choice in outcome.sentence for choice in part.split("|"))
    assert "Traceback" not in outcome.err
    assert not list(Path("out").glob("*"))


@pytest.mark.parametrize(
    "change",
    [configure(num_hidden_layers=1), edit_tensors(lambda t: t.update({"layers.1.x": t["model.norm.weight"] * 2}))],
)
def test_weights_that_no_layer_takes_are_told(
    change: Change, model_copy: Callable[..., Path], evaluate: Command, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = evaluate(model=model_copy(change))
    assert outcome.code in {0, 2}
    assert "layers.1." in outcome.err + caplog.text


@pytest.mark.parametrize(
    ("pretrained", "sentence"),
    [
        ("./nowhere", "harness: no model folder at './nowhere'"),
        ("/nowhere/at/all", "harness: no model folder at '/nowhere/at/all'"),
        ("~/nowhere", "harness: no model folder at '~/nowhere'"),
        ("nobody/nothing", "harness: model 'nobody/nothing' has no usable configuration: "),
        ("nothing", "harness: model 'nothing' has no usable configuration: "),
        ("nothing.gguf", "harness: "),
        ("", "harness: "),
        ("\x1b[31mred", "harness: model '␛[31mred' has no usable configuration: "),
        ("a/../b", "harness: "),
    ],
)
def test_a_model_that_is_not_there_is_told(pretrained: str, sentence: str, evaluate: Command) -> None:
    outcome = evaluate(model=pretrained)
    assert outcome.code == 2
    assert outcome.sentence.startswith(sentence)
    assert "\x1b" not in outcome.err
    assert "loading" not in outcome.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--device", "quantum"], "harness: device 'quantum' cannot be used: "),
        (["--device", "cuda:99"], "harness: device 'cuda:99' cannot be used: "),
        (["--device", "meta"], "harness: device 'meta' cannot be used"),
        (["--device", ""], "harness: device '' cannot be used"),
        (["--quantization", "int3"], "harness: quantization 'int3' is unknown; did you mean 'int8'?"),
        (["--quantization", ""], "harness: quantization '' is unknown; there is int8, nf4, none"),
        (["--quantization", "nf4", "--model", "tokenizer"], "harness: task 'colours' sends 'loglikelihood' requests"),
        (["--model_args", "dtype=float31"], "harness: dtype 'float31' is unknown; did you mean 'float32'"),
        (["--model_args", "dtype=int8"], "harness: "),
        (["--model_args", "peft=./nowhere"], "harness: "),
        (["--model_args", "attn_implementation=telepathy"], "harness: "),
        (["--model_args", "max_length=0"], "harness: "),
        (["--model_args", "max_length=-5"], "harness: "),
        (["--model_args", "prefix_token_id=4000"], "harness: "),
    ],
)
def test_what_no_model_can_be_loaded_with_is_told(
    flags: list[str], sentence: str, cli: Command, tiny_model: Path, own_tasks: Path
) -> None:
    words = ["eval", "--include_path", own_tasks, "--tasks", "colours", "--output_path", "out"]
    model_args = [f"pretrained={tiny_model}", *(flags[1:] if flags[0] == "--model_args" else [])]
    rest = [] if flags[0] == "--model_args" else flags
    outcome = cli(*words, "--model_args", *model_args, *rest)
    assert outcome.code == 2
    assert outcome.sentence.startswith(sentence)
    assert not list(Path("out").rglob("records_*"))


@pytest.mark.parametrize("where", ["file/out", "file"])
def test_a_folder_that_cannot_be_written_is_told_before_loading(
    where: str, evaluate: Command, cli: Command, tiny_model: Path
) -> None:
    Path("file").write_text("in the way", encoding="utf-8")
    outcome = evaluate("--output_path", where)
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"harness: cannot write to {where}: ")
    assert "loading" not in outcome.err
    words = ["apply", "--plugin", "stochastok", "--method_args", "steps=0", "--model_args", f"pretrained={tiny_model}"]
    applied = cli(*words, "--output", where)
    assert applied.code == 2
    assert where.split("/")[0] in applied.sentence
    assert "loading" not in applied.err
    assert Path("file").read_text(encoding="utf-8") == "in the way"


def test_a_cache_that_cannot_be_written_is_told(
    make_method: Any, evaluate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("HARNESS_CACHE", "file/cache")
    outcome = evaluate("--plugin", make_method("lm.model.model.norm.weight.data.mul_(2)\nreturn lm"))
    assert outcome.code == 2
    assert "file/cache" in outcome.sentence


@pytest.mark.parametrize("task", ["colours", "write_colours"])
def test_a_task_with_nan_has_no_score_and_the_request_is_named(
    task: str, model_copy: Callable[..., Path], evaluate: Command, records: Records
) -> None:
    model = model_copy(edit_tensors(lambda tensors: tensors["model.norm.weight"].fill_(float("nan"))), name="nan")
    outcome = evaluate(model=model, tasks=task)
    assert outcome.code == 1
    assert task in outcome.sentence
    assert "of document " in outcome.sentence
    assert "dtype=float32" in outcome.sentence
    assert "no score" in outcome.out
    [written] = records(Path("out"))
    assert (written["status"], written["value"]) == ("invalid", None)
    assert written["counts"]["not_finite"] == (16 if task == "colours" else 1)


SPOIL = """
def ids_of(text):
    return lm.tokenizer.encode(text, add_special_tokens=False)

others = "The colour of grass snow coal is green white black red"
token = next(token for token in ids_of("{word}") if token not in ids_of(others))

def spoil(module, inputs, output):
    output[inputs[0] == token] = float("nan")
    return output

lm.model.get_input_embeddings().register_forward_hook(spoil)
return lm
"""
UNCHANGED = "leaves_model_unchanged: ClassVar[bool] = True"


def test_the_tasks_after_one_with_nan_are_asked(make_method: Any, evaluate: Command, records: Records) -> None:
    plugin = make_method(SPOIL.format(word=" so it is said. so"), members=UNCHANGED)
    outcome = evaluate("--plugin", plugin, tasks="long_colours,colours")
    assert outcome.code == 1
    written = {one["task"]["name"]: one for one in records(Path("out"))}
    assert (written["long_colours"]["status"], written["colours"]["status"]) == ("invalid", "ok")


def test_one_nan_among_many_scores_leaves_no_score(make_method: Any, evaluate: Command, records: Records) -> None:
    outcome = evaluate("--plugin", make_method(SPOIL.format(word=" blood"), members=UNCHANGED))
    assert outcome.code == 1
    assert "got the score nan" in outcome.sentence
    assert "document 3 in task 'colours'" in outcome.sentence
    [written] = records(Path("out"))
    assert (written["value"], written["counts"]["not_finite"]) == (None, 4)  # its four options


def test_prompts_longer_than_the_context_are_asked_told_and_counted(evaluate: Command, records: Records) -> None:
    outcome = evaluate(tasks="long_colours")
    assert outcome.code == 0
    told = [line for line in outcome.err.splitlines() if "longer than the context" in line]
    assert told == ["16 requests of long_colours were longer than the context of 256 tokens and were cut on the left"]
    [written] = records(Path("out"))
    assert (written["counts"]["docs"], written["counts"]["truncated_requests"]) == (4, 16)


def test_cut_prompts_are_counted_for_their_own_task_alone(evaluate: Command, records: Records) -> None:
    assert evaluate(tasks="colours,long_colours").code == 0
    counts = {written["task"]["name"]: written["counts"]["truncated_requests"] for written in records(Path("out"))}
    assert counts == {"colours": 0, "long_colours": 16}


def test_a_prompt_that_fits_to_the_token_is_not_counted(
    evaluate: Command, records: Records, tiny_model: Path, own_tasks: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    options = ["green", "white", "black", "red"]
    lengths = [
        len(tokenizer.encode(f"The colour of {thing} is {option}", add_special_tokens=False))
        for thing in ("grass", "snow", "coal", "blood")
        for option in options
    ]
    for length in (max(lengths) - 1, max(lengths) - 3):
        model_args = json.dumps({"pretrained": str(tiny_model), "max_length": length})
        assert evaluate("--model_args", model_args, "--output_path", f"out{length}").code == 0
        # One token more than the context fits: the last one is only predicted.
        expected = sum(number > length + 1 for number in lengths)
        [written] = records(Path(f"out{length}"))
        assert written["counts"]["truncated_requests"] == expected


@pytest.mark.parametrize("flags", [["--apply_chat_template"], ["--apply_chat_template", "rag"]])
def test_a_chat_template_that_is_not_there_is_told(flags: list[str], evaluate: Command) -> None:
    outcome = evaluate(*flags)
    assert outcome.code == 2
    assert "chat template" in outcome.sentence
    assert not list(Path("out").glob("*"))


def test_an_answer_longer_than_the_context_is_told(evaluate: Command) -> None:
    outcome = evaluate("--gen_kwargs", "max_gen_toks=300", tasks="write_colours")
    assert outcome.code == 2
    assert (
        "asks for 300 new tokens, but the model's context holds 256; lower it with --gen_kwargs max_gen_toks="
        in outcome.sentence
    )
    assert not list(Path("out").rglob("records_*"))


@pytest.mark.parametrize(
    "name",
    [
        "模型 🎉 ñ",
        "a b, c=d",
        "model[b]",
        "m[bold]x[",
        "x" * 120,
        "--help",
        "e\u0301",
        "\x1b[31mred",
        "a\nb",
        "\u202egnp",
        "'\"`$(id)",
    ],
)
def test_a_model_folder_of_any_name_is_evaluated_and_harmless(
    name: str, model_copy: Callable[..., Path], evaluate: Command, cli: Command, records: Records
) -> None:
    outcome = evaluate(model=model_copy(name=name))
    assert outcome.code == 0, outcome.err
    [written] = records(Path("out"))
    assert written["model"]["name"] == name
    assert (Path("out") / written["run"] / written["samples"]["path"]).is_file()
    board = cli("leaderboard", "out")
    assert (board.code, board.err) == (0, "")
    for text in (outcome.out, outcome.err, board.out):
        assert not {"\x1b", "\u202e", "\x07"} & set(text)
    assert len([line for line in board.out.splitlines() if line.startswith("| ")]) == 2  # the head and one row


@pytest.mark.skipif(not hasattr(os, "fsencode") or os.name == "nt", reason="file names are text here")
def test_a_model_folder_whose_name_is_no_text_is_evaluated_or_told(
    model_copy: Callable[..., Path], evaluate: Command, tiny_model: Path
) -> None:
    name = os.fsdecode(b"model-\xff")
    outcome = evaluate(model=model_copy(name=name))
    assert outcome.code in {0, 2}
    assert "Traceback" not in outcome.err


def test_a_model_named_with_markup_by_its_path_is_harmless(model_copy: Callable[..., Path], evaluate: Command) -> None:
    model = model_copy(name="model[/b]")  # a folder `model[` with a folder `b]` in it
    outcome = evaluate(model=model)
    assert outcome.code == 0, outcome.err
    told = evaluate(model=str(model) + "[/b]")
    assert (told.code, told.sentence) == (2, f"harness: no model folder at '{model}[/b]'")


def test_plugins_methods_and_tasks_with_emoji_names_run_to_a_record(
    make_plugin: Any, evaluate: Command, cli: Command, records: Records
) -> None:
    source = """
        from dataclasses import dataclass
        from typing import ClassVar
        from harness import hookimpl

        @dataclass(frozen=True)
        class Method:
            "Halves the last norm 🎉."
            name: ClassVar[str] = "größe/½ 🎉"
            amount: float = 0.5

            def apply(self, lm, *, seed, workdir):
                lm.model.model.norm.weight.data.mul_(self.amount)
                return lm

        @hookimpl
        def harness_methods():
            return [Method]
    """
    make_plugin("köln 🎉", source, distribution="third-party-cologne", module="third_party_cologne")
    assert "köln 🎉" in cli("plugins").out
    assert "größe/½ 🎉" in cli("plugins", "köln 🎉").out
    outcome = evaluate("--plugin", "köln 🎉", "--method", "größe/½ 🎉")
    assert outcome.code == 0, outcome.err
    [written] = records(Path("out"))
    assert (written["plugin"]["name"], written["method"]["name"]) == ("köln 🎉", "größe/½ 🎉")
    [folder] = [path for path in Path("out").iterdir() if path.is_dir()]
    assert folder.name.isascii()
    assert "did you mean 'köln 🎉'" in cli("plugins", "köln").sentence


def test_an_answer_cache_is_refused_whatever_it_is_called(evaluate: Command) -> None:
    for flags in (["--use_cache", "answers"], ["--cache_requests", "true"], ["--cache_requests"]):
        outcome = evaluate(*flags)
        assert outcome.code == 2
        assert f"{flags[0]} is not taken: " in outcome.sentence
    assert not list(Path.cwd().rglob("*answers*"))
