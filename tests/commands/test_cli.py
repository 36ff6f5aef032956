"""The command line: lm-eval's flags taken or refused with a reason, configuration files, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.cli import build_parser, main
from harness.run.flags import to_run, to_runs
from harness.run.run import Run

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

# A value for each flag of lm-eval that takes one, different from our default.
VALUES = {
    "tasks": "colours", "model": "tokenizer", "model_args": "pretrained=x", "limit": "3", "use_cache": "answers.db",
    "num_fewshot": "2", "batch_size": "3", "max_batch_size": "64", "device": "cpu", "gen_kwargs": "temperature=1",
    "output_path": "elsewhere", "samples": '{"colours": [0]}', "system_instruction": "Be brief.", "include_path": "here",
    "verbosity": "INFO", "wandb_args": "project=x", "wandb_config_args": "x=1", "trackio_args": "x=1", "hf_hub_log_args": "x=1",
    "seed": "7", "metadata": "a=1", "apply_chat_template": "name", "fewshot_as_multiturn": "false", "cache_requests": "refresh",
}  # fmt: skip
# Not a part of a run: what they ask for is what happens anyway, or how loud lm-eval is.
WITHOUT_EFFECT = {"verbosity", "log_samples"}


def parse(*words: str) -> Run:
    return to_run(build_parser().parse_args(["eval", *words]))


def lm_eval_flags() -> list[argparse.Action]:
    from lm_eval._cli.harness import HarnessCLI

    [commands] = [a for a in HarnessCLI()._parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [action for action in commands.choices["run"]._actions if action.dest not in {"help", "config"}]


def test_every_flag_of_lm_eval_is_taken_or_refused_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    faults, untouched = [], Run(tasks=())
    for action in lm_eval_flags():
        given = [[VALUES[action.dest]]] if action.nargs != 0 else []
        without_value = [[]] if action.nargs in {0, "?"} else []
        for spelling in action.option_strings:
            for value in given + without_value:
                words = " ".join([spelling, *value])
                try:
                    run = parse(spelling, *value)
                except SystemExit:
                    faults.append(f"{words}: {capsys.readouterr().err.strip()}")
                except HarnessError as error:
                    start = f"--{action.dest} is not taken: "
                    if not str(error).startswith(start) or len(str(error)) < len(start) + 15:
                        faults.append(f"{words}: {error}")
                else:
                    if run == untouched and action.dest not in WITHOUT_EFFECT and words != "--fewshot_as_multiturn":
                        faults.append(f"{words}: accepted without any effect")
    assert faults == []


def test_the_configuration_flag_of_lm_eval_is_taken_in_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("limit: 4\n", encoding="utf-8")
    for spelling in ("--config", "-C"):
        assert parse(spelling, str(tmp_path / "run.yaml")).limit == 4


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--tasks", "a,b", "c"], "tasks", ("a", "b", "c")),
        (["--model_args", "pretrained=x,dtype=float32"], "model_args", {"pretrained": "x", "dtype": "float32"}),
        (["--model_args", "pretrained=x", "dtype=float32"], "model_args", {"pretrained": "x", "dtype": "float32"}),
        (["--model_args", '{"pretrained": "a,b"}'], "model_args", {"pretrained": "a,b"}),
        (["--gen_kwargs", "temperature=0.5,do_sample=True"], "gen_kwargs", {"temperature": 0.5, "do_sample": True}),
        (["--gen_kwargs", 'until=["\\n"]'], "gen_kwargs", {"until": ["\n"]}),
        (["--metadata", "questions=50,seed=1"], "metadata", {"questions": 50, "seed": 1}),
        (["--metadata", '{"questions": 50}'], "metadata", {"questions": 50}),
        (["--seed", "3"], "seeds", (3, 3, 3, 3)),
        (["--seed", "1,2,3,4"], "seeds", (1, 2, 3, 4)),
        (["--seed", "none,2,3,none"], "seeds", (None, 2, 3, None)),
        (["--limit", "0.5"], "limit", 0.5),
        (["--batch_size", "auto:4"], "batch_size", "auto:4"),
        (["--include_path", "a", "--include_path", "b"], "include_path", ("a", "b")),
        (["--apply_chat_template"], "apply_chat_template", True),
        (["--apply_chat_template", "name"], "apply_chat_template", "name"),
        (["--fewshot_as_multiturn", "False"], "fewshot_as_multiturn", False),
        (["--no-log_samples"], "log_samples", False),
        (["--trust_remote_code"], "model_args", {"trust_remote_code": True}),
        (["--no-cache"], "no_cache", True),
    ],
)
def test_flags_become_fields_of_the_run(words: list[str], field: str, value: object) -> None:
    assert getattr(parse(*words), field) == value


def test_several_seeds_are_several_runs_and_four_are_the_generators_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    def runs(*words: str) -> list[Run]:
        return to_runs(build_parser().parse_args(["eval", *words]))

    Path("run.yaml").write_text("seeds: [1, 2]\nlimit: 3\n", encoding="utf-8")
    one, two = ({"tasks": (), "seeds": (seed,) * 4} for seed in (1, 2))
    assert runs("--seeds", "1,2") == runs("--seeds", "1", "2") == [Run(**one), Run(**two)]
    assert runs("--config", "run.yaml") == [Run(**one, limit=3), Run(**two, limit=3)]
    assert runs("--config", "run.yaml", "--seed", "5") == [Run(tasks=(), seeds=(5, 5, 5, 5), limit=3)]
    with pytest.raises(HarnessError, match="--seeds makes several runs, and here is place for one; give --seed"):
        parse("--config", "run.yaml")
    assert capsys.readouterr().err == ""
    assert len(runs("--seed", "1,2,3,4")) == 1
    assert "--seed 1,2,3,4 is one run: seed 1 for Python and the method, 2 for NumPy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--limit", "0"], "--limit 0 is neither a number of documents (1 or more) nor a share between 0 and 1"),
        (["--limit", "-1"], "--limit -1 is neither"),
        (["--limit", "2.5"], "--limit 2.5 is neither"),
        (["--limit", "nan"], "--limit nan is neither"),
        (["--limit", "inf"], "--limit inf is neither"),
        (["--num_fewshot", "-1"], "--num_fewshot is -1; it has to be 0 or more"),
        (["--batch_size", "0"], "--batch_size is '0'; it has to be a whole number of 1 or more, or auto"),
        (["--batch_size=-4"], "--batch_size is '-4'"),
        (["--batch_size", "many"], "--batch_size is 'many'"),
        (["--batch_size", "auto:x"], "--batch_size is 'auto:x'"),
        (["--batch_size", "²"], "--batch_size is '²'"),
        (["--batch_size=--5"], "--batch_size is '--5'"),
        (["--seed", "1,2"], "--seed '1,2' is neither one whole number from 0 to 2^32-1 nor four of them by comma"),
        (["--seed=-1"], "--seed '-1' is neither"),
        (["--seed", "99999999999"], "--seed '99999999999' is neither"),
        (["--seed", "1.5"], "--seed '1.5' is neither"),
        (["--seed", "1_0"], "--seed '1_0' is neither"),
        (
            ["--seed", "1,2,3"],
            "--seed '1,2,3' is neither one whole number from 0 to 2^32-1 nor four of them by comma, of "
            "Python, NumPy, Torch and few-shot examples; --seeds 1,2,3 makes a run with each",
        ),
        (["--seed", "1,2,3,4,5"], "--seed '1,2,3,4,5' is neither"),
        (["--seeds", "1,2,1"], "--seeds '1,2,1' has to be whole numbers from 0 to 2^32-1 by comma, none of them twice"),
        (["--seeds", "1,none"], "--seeds '1,none' has to be whole numbers"),
        (["--seeds", "1", "-2"], "--seeds '1 -2' has to be whole numbers"),
        (["--seeds", "1,"], "--seeds '1,' has to be whole numbers"),
        (["--seeds", "1,2", "--seed", "3"], "--seed and --seeds exclude each other; give one of them"),
        (["--samples", "{"], "--samples is not valid JSON: "),
        (["--samples", '{"colours": []}'], "--samples takes a JSON object of document numbers: "),
        (["--samples", '{"colours": [-1]}'], "--samples takes a JSON object of document numbers: "),
        (["--samples", "[1]"], "--samples takes a JSON object of document numbers: "),
        (["--samples", '{"colors": [0]}'], "--samples names task 'colors', which is not among --tasks"),
        (["--samples", '{"colours": [99]}'], "--samples "),
        (
            ["--samples", '{"colours": [0]}', "--limit", "2"],
            "--limit and --samples exclude each other; give one of them",
        ),
        (["--fewshot_as_multiturn", "perhaps"], "--fewshot_as_multiturn "),
        (["--gen_kwargs", "temperature=NaN"], "--gen_kwargs "),
        (["--gen_kwargs", "temperature"], "--gen_kwargs takes k=v,k=v or a JSON object; 'temperature' is neither"),
        (["--metadata", "length=1e999"], "--metadata "),
        (["--metadata", '{"length": 1'], "--metadata begins like JSON but does not parse: "),
        (["--model_args", "pretrained=x,pretrained=y"], "--model_args gives 'pretrained' twice"),
        (["--model_args", "pretrained=x", "pretrained=y"], "--model_args gives 'pretrained' twice"),
        (["--model_args", "pretraind=x"], "--model_args has no 'pretraind'; did you mean 'pretrained'?"),
        (
            ["--model_args", "load_in_4bit=True"],
            "--model_args load_in_4bit does not work with transformers 5; use --quantization",
        ),
        (["--model_args", "max_length=long"], "--model_args max_length is 'long', where a whole number is due"),
        (["--method", "stochastok"], "--method and --method_args need --plugin NAME (`harness plugins` lists them)"),
        (["--method_args", "steps=1"], "--method and --method_args need --plugin NAME (`harness plugins` lists them)"),
        (
            ["--plugin", "stochastok", "--method", "stochastic"],
            "plugin 'stochastok' has no method 'stochastic'; did you mean",
        ),
        (
            ["--plugin", "stochastok", "--method_args", "split=1"],
            "method 'stochastok' has no option 'split'; it has train_file, ",
        ),
        (
            ["--plugin", "stochastok", "--method_args", "proportion=nan"],
            "option 'proportion' of method 'stochastok' is 'nan'",
        ),
        (["--plugin", "stochastok", "--method_args", "proportion=-1"], "method 'stochastok' refuses its options: "),
    ],
)
def test_a_bad_value_is_told_before_anything_is_loaded(flags: list[str], sentence: str, evaluate: Command) -> None:
    outcome = evaluate(*flags)
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"harness: {sentence}")
    assert outcome.err.count("\n") == 1
    assert not list(Path("out").glob("*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "harness: the following arguments are required: COMMAND (see harness --help)"),
        (["evaluate"], "harness: argument COMMAND: invalid choice: 'evaluate'"),
        (
            ["eval", "--limit", "few"],
            "harness: argument --limit/-L: invalid float value: 'few' (see harness eval --help)",
        ),
        (["eval", "--taks", "x"], "harness: unrecognized arguments: --taks x"),
        (["eval", "\x1b[31m"], "harness: unrecognized arguments: ␛[31m"),
        (["apply"], "harness: the following arguments are required: --output/-o"),
    ],
)
def test_a_mistake_in_the_words_themselves_is_one_line(words: list[str], sentence: str, cli: Command) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(sentence)
    assert outcome.err.count("\n") == 1


def test_a_configuration_file_is_the_command_line_and_loses_to_it(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "tasks: [a, b]\nlimit: 3\nmodel_args:\n  pretrained: x\n  max_length: 64\ngen_kwargs: max_gen_toks=5\nseed: 4\n"
        "metadata: {questions: 9}\noutput_path: there\nbatch_size: 2\nwith_baseline: true\nlog_samples: false\n"
        "include_path: here\n",
        encoding="utf-8",
    )
    run = parse("--config", str(tmp_path / "run.yaml"), "--limit", "7")
    assert run == Run(
        tasks=("a", "b"), limit=7, model_args={"pretrained": "x", "max_length": 64}, gen_kwargs={"max_gen_toks": 5},
        seeds=(4, 4, 4, 4), metadata={"questions": 9}, output_path=Path("there"), batch_size=2, with_baseline=True,
        log_samples=False, include_path=("here",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "--config 'run.yaml' cannot be read: No such file or directory"),
        ("limit: [1\n", "--config 'run.yaml' does not parse"),
        ("limit: 1\n\tx: 2\n", "--config 'run.yaml' does not parse"),
        ("\udcff", "--config 'run.yaml' does not parse"),
        ("- limit\n", "--config 'run.yaml' has to hold flags as `name: value`"),
        ("", "--config 'run.yaml' has to hold flags as `name: value`"),
        ("1: 2\n", "--config 'run.yaml' has to hold flags as `name: value`"),
        ("limits: 3\n", "--config has 'limits', which is no flag; did you mean 'limit'"),
        ("use_cache: answers\n", "--use_cache is not taken: "),
        ("predict_only: true\n", "--predict_only is not taken: "),
        ("batch_size: 1.5\n", "--batch_size is '1.5'; it has to be a whole number of 1 or more, or auto"),
        ("limit: 0\n", "--limit 0 is neither"),
    ],
)
def test_a_configuration_file_that_cannot_be_used_is_told_in_one_sentence(
    content: str | None, sentence: str, evaluate: Command
) -> None:
    if content is not None:
        Path("run.yaml").write_bytes(content.encode("utf-8", "surrogateescape"))
    outcome = evaluate("--config", "run.yaml")
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"harness: {sentence}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        "limit: few", "limit: [1]", "num_fewshot: two", "num_fewshot: 1.5", "num_fewshot: true", "with_baseline: sometimes",
        "log_samples: sometimes", "no_cache: 7", "model_args: [1]", "model_args: 5", "method_args: 5", "gen_kwargs: [[1]]",
        "metadata: true", "plugin: [a]", "method: {a: b}", "model: [hf]", "device: {a: b}", "quantization: [nf4]",
        "tasks: {a: b}", "tasks: [[a]]", "seed: {a: b}", "seed: [a]", "include_path: {a: b}", "include_path: [[a]]",
        "system_instruction: [a]", "output_path: [a]", "samples: 5",
        "apply_chat_template: [a]", "fewshot_as_multiturn: [a]",
    ],
)  # fmt: skip
def test_a_configured_value_of_the_wrong_type_is_told_with_its_flag(content: str) -> None:
    Path("run.yaml").write_text(content + "\n", encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        parse("--config", "run.yaml")
    assert content.partition(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_file_that_does_not_parse_is_told_with_its_line(cli: Command) -> None:
    Path("run.yaml").write_text("limit: 3\nseed: 1\ntasks: [a\n", encoding="utf-8")
    assert "line" in cli("eval", "--config", "run.yaml").sentence


def test_debug_shows_the_cause_of_an_error(evaluate: Command, make_plugin: Any) -> None:
    make_plugin("broken", "raise RuntimeError('deep down')")
    with pytest.raises(HarnessError) as caught:
        evaluate("--plugin", "broken", "--debug")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_no_command_gives_help_a_bad_exit_status(cli: Command) -> None:
    shown = cli("--help")
    assert shown.code == 0
    for name in ("eval", "apply", "plugins", "tasks", "leaderboard"):
        assert name in shown.out
        assert cli(name, "--help").code == 0
    assert cli("--version").out.startswith("token-harness ")


def test_the_examples_of_the_help_text_parse(cli: Command) -> None:
    text = cli("--help").out.split("examples:\n")[1].replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("harness ")]
    assert len(lines) >= 7
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        args = build_parser().parse_args(words)
        if words[0] in {"eval", "apply"}:
            to_run(args)


@pytest.mark.parametrize(
    "run",
    [
        Run(tasks=("a", "b")),
        Run(tasks=("a",), plugin="p", method="m", method_args={"x": 1, "y": "b c", "z": [1, 2], "w": None, "v": True}),
        Run(tasks=("a",), model_args={"pretrained": "a folder, with commas=and [brackets]", "max_length": 5}),
        Run(tasks=("a",), seeds=(1, None, 3, 4), limit=0.25, num_fewshot=2, batch_size="auto"),
        Run(tasks=("a",), samples={"a": [0, 3]}, log_samples=False, with_baseline=True, no_cache=True),
        Run(tasks=("a",), gen_kwargs={"until": ["\n"], "temperature": 0.5, "do_sample": True}, metadata={"x": "1"}),
        Run(
            tasks=("a",), apply_chat_template=True, fewshot_as_multiturn=False, system_instruction="Be brief, 'please'."
        ),
        Run(tasks=("a",), apply_chat_template="name", device="cpu", quantization="nf4", model="hf"),
        Run(tasks=("a",), system_instruction="--brief"),
        Run(tasks=("a",), include_path=("one", "two")),
        Run(tasks=("a",), output_path=Path("an odd, folder 🎉"), confirm_run_unsafe_code=True),
    ],
)
def test_the_command_of_a_run_gives_the_same_run(run: Run) -> None:
    words = shlex.split(run.command())
    assert words[:2] == ["harness", "eval"]
    again = parse(*words[2:])
    texts = {name: str(value) for name, value in run.method_args.items()}
    assert {name: str(value) for name, value in again.method_args.items()} == texts
    for name in Run.__dataclass_fields__:
        if name in {"method_args", "model_args"}:
            continue  # their values are text until a method or a model gives them types
        assert getattr(again, name) == getattr(run, name), name
    assert {n: str(v) for n, v in again.model_args.items()} == {n: str(v) for n, v in run.model_args.items()}


def test_the_written_command_repeats_the_values(
    make_method: Callable[..., str], evaluate: Command, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = make_method("lm.model.model.norm.weight.data.mul_(self.amount)\nreturn lm")
    flags = ["--plugin", plugin, "--method_args", '{"amount": 0.25}', "--num_fewshot", 1, "--seed", 5, "--limit", 3]
    assert evaluate(*flags, "--with_baseline", tasks="colours,write_colours").code == 0
    first = records(Path("out"))
    for file in Path("out").glob("*/command.txt"):
        words = shlex.split(file.read_text(encoding="utf-8"))
        assert words.count("--output_path") == 1
        words[words.index("--output_path") + 1] = "again"
        assert main(words[1:]) == 0
    second = records(Path("again"))
    assert len(first) == 4
    assert {record["key"]: record["value"] for record in second} == {record["key"]: record["value"] for record in first}
    for record in first:
        assert record["command"] in {
            file.read_text(encoding="utf-8").strip() for file in Path("out").glob("*/command.txt")
        }


def test_a_reader_that_stops_early_gets_no_traceback(tmp_path: Path) -> None:
    program = f"{shlex.quote(sys.executable)} -m harness.cli plugins stochastok | head -n 1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_terminal_without_unicode_gets_no_traceback(make_plugin: Any, tmp_path: Path) -> None:
    make_plugin("köln🎉", "answer = 42", distribution="third-party-cologne", module="third_party_cologne")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words in (["plugins"], ["plugins", "köln🎉"], ["tasks"]):
        command_line = [sys.executable, "-m", "harness.cli", *words]
        done = subprocess.run(command_line, capture_output=True, timeout=60, check=False, env=environment)
        assert b"Traceback" not in done.stderr, done.stderr.decode("ascii", "replace")


def test_a_model_kind_there_is_not_is_told_with_those_there_are(evaluate: Command) -> None:
    outcome = evaluate("--model", "openai-chat")
    assert outcome.code == 2
    assert outcome.sentence.startswith(
        "harness: --model 'openai-chat' is unknown; there is encoder, hf, tokenizer, vllm (API models have no weights"
    )
    assert "did you mean 'hf'?" in evaluate("--model", "hff").sentence


def test_a_run_given_as_json_and_as_pairs_is_one_run() -> None:
    pairs = parse("--model_args", "pretrained=x,max_length=64", "--metadata", "a=1")
    assert pairs.model_args == {"pretrained": "x", "max_length": "64"}
    text = json.dumps({"pretrained": "x", "max_length": "64"})
    assert parse("--model_args", text, "--metadata", '{"a": 1}') == pairs
