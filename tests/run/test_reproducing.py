"""A record run again: honest ones agree, invented ones do not, and what is not the same is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import board_records
import pytest
from tiny_models import build_tokenizer

from harness.errors import HarnessError
from harness.records import samples
from harness.records.record import Record, digest_of
from harness.run.named_code import refuse_unnamed
from harness.run.run import Run
from harness.verifying import agreement

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

NOISY = """\
import torch

torch.manual_seed(seed)
with torch.no_grad():
    for weights in lm.model.parameters():
        weights.add_(torch.randn_like(weights), alpha=self.amount)
return lm
"""


@pytest.fixture
def reproduce(cli: Command, own_tasks: Path) -> Command:
    """Return a function that runs ``harness reproduce`` on the folder ``out``."""

    def run(*flags: object) -> Any:
        return cli("reproduce", "out", "--include_path", own_tasks, *flags)

    return run


def only(folder: Path, *, task: str = "colours") -> tuple[Path, dict[str, Any]]:
    """Return the one file of records of a task below ``folder``, and its first line."""
    [path] = folder.rglob(f"records_{task}-*.jsonl")
    return path, json.loads(path.read_text(encoding="utf-8").splitlines()[0])


def write_sealed(path: Path, line: dict[str, Any]) -> None:
    """Write one record with key and digest as its content gives them."""
    content = {name: value for name, value in line.items() if name not in {"key", "digest"}}
    sealed = content | {"key": Record.model_validate(content).key(), "digest": digest_of(content)}
    path.write_text(json.dumps(sealed) + "\n", encoding="utf-8")


def sample_file(path: Path, line: dict[str, Any]) -> Path:
    found = samples.find(Record.model_validate({k: v for k, v in line.items() if k not in {"key", "digest"}}), path)
    assert found is not None
    return found


def test_an_honest_record_agrees_answer_by_answer(evaluate: Command, reproduce: Command) -> None:
    assert evaluate().code == 0
    outcome = reproduce("--seed", 3, "--limit", 2)
    assert outcome.code == 0, outcome
    assert "documents  2 of 4, drawn with --seed 3" in outcome.out
    assert "answers    2 of 2 the same" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("agrees: all of 2 documents come out the same; at most ")
    assert not list(Path("out").rglob("*reproduce*"))


def test_the_same_seed_draws_the_same_documents_and_all_can_be_asked(evaluate: Command, reproduce: Command) -> None:
    evaluate()
    flags = ("--seed", 5, "--limit", 2, "--format", "json")
    first, second = (json.loads(reproduce(*flags).out) for _ in range(2))
    assert first["documents"] == second["documents"]
    whole = json.loads(reproduce("--format", "json").out)
    assert whole["documents"] == [0, 1, 2, 3]
    assert whole["agrees"] is True
    assert whole["agreement"]["largest_difference"] < 1e-4
    assert whole["then"] == whole["now"]
    assert "at most 0 of all 4 can differ" in whole["verdict"]


def test_a_method_is_applied_again_with_its_options_and_seed(
    evaluate: Command, reproduce: Command, make_method: Callable[..., str]
) -> None:
    plugin = make_method(NOISY)
    assert evaluate("--plugin", plugin, "--method_args", "amount=0.05", "--seed", 7).code == 0
    outcome = reproduce("--no-cache")
    assert outcome.code == 0, outcome
    assert "the method was applied anew" in outcome.out
    path, line = only(Path("out"))
    write_sealed(path, line | {"seeds": dict.fromkeys(line["seeds"], 8)})
    assert reproduce().code == 1  # another seed, other weights, other answers


def test_a_document_gets_the_examples_it_had_whichever_others_are_asked(evaluate: Command, reproduce: Command) -> None:
    assert evaluate("--num_fewshot", 2).code == 0
    for seed in range(3):
        outcome = json.loads(reproduce("--limit", 2, "--seed", seed, "--format", "json").out)
        assert outcome["agreement"]["other_prompts"] == 0
        assert outcome["agrees"] is True


def test_generated_texts_are_compared(evaluate: Command, reproduce: Command) -> None:
    assert evaluate(tasks="write_colours").code == 0
    outcome = reproduce("--limit", 3)
    assert outcome.code == 0, outcome
    assert "answers    3 of 3 the same" in outcome.out


def test_invented_samples_pass_verify_and_are_found_by_running_again(
    evaluate: Command, reproduce: Command, cli: Command
) -> None:
    evaluate()
    path, line = only(Path("out"))
    file = sample_file(path, line)
    rows = list(samples.rows(file))
    for row in rows:  # every likeliest choice becomes the right one
        right = int(row["target"])
        row["filtered_resps"][right][0] = row["resps"][right][0][0] = "-0.5"
        row["acc"] = 1.0
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(content, encoding="utf-8")
    line["samples"]["sha256"] = hashlib.sha256(content.encode()).hexdigest()
    write_sealed(path, line | {"value": 1.0, "stderr": 0.0})
    assert cli("verify", "out").code == 0
    outcome = reproduce("--limit", 3)
    assert outcome.code == 1
    assert "does NOT agree: 3 of 3 documents come out otherwise" in outcome.out


def test_without_samples_the_scores_are_compared(evaluate: Command, reproduce: Command) -> None:
    assert evaluate("--no-log_samples").code == 0
    outcome = reproduce("--limit", 4)
    assert outcome.code == 0, outcome
    assert "agrees as far as a score can tell" in outcome.out
    path, line = only(Path("out"))
    write_sealed(path, line | {"value": 0.9})
    outcome = reproduce("--limit", 4)
    assert outcome.code == 1
    assert "does NOT agree: " in outcome.out


def test_another_model_is_refused(evaluate: Command, reproduce: Command, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    evaluate(model=model)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    outcome = reproduce()
    assert outcome.code == 2
    assert "the model here is not the record's: its digest is " in outcome.sentence
    shutil.rmtree(model)
    outcome = reproduce()
    assert outcome.code == 2
    assert f"no model folder at '{model}'" in outcome.sentence
    assert reproduce("--model_args", f"pretrained={tiny_model}").code == 0  # the same weights lie here


def test_a_plugin_that_is_gone_is_told(evaluate: Command, reproduce: Command, make_method: Callable[..., str]) -> None:
    evaluate("--plugin", make_method(NOISY))
    path, line = only(Path("out"))
    write_sealed(path, line | {"plugin": line["plugin"] | {"name": "gone"}})
    outcome = reproduce()
    assert outcome.code == 2
    assert "no plugin is called 'gone'" in outcome.sentence


def test_a_training_text_that_was_edited_is_refused(
    evaluate: Command, reproduce: Command, make_method: Callable[..., str], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("red", encoding="utf-8")
    plugin = make_method(NOISY, members="file: Path = None\n")
    assert evaluate("--plugin", plugin, "--method_args", f"file={text}").code == 0
    assert reproduce().code == 0
    elsewhere = tmp_path / "elsewhere" / "text.txt"
    elsewhere.parent.mkdir()
    shutil.copy(text, elsewhere)
    assert reproduce("--method_args", f"file={elsewhere}").code == 0
    text.write_text("green", encoding="utf-8")
    assert "the files that the options of 'invented' name are not those of the record" in reproduce().sentence


def test_changed_data_is_told(evaluate: Command, cli: Command, own_tasks: Path, tmp_path: Path) -> None:
    evaluate()
    tasks = tmp_path / "tasks"
    shutil.copytree(own_tasks, tasks, ignore=shutil.ignore_patterns("__pycache__"))
    data = tasks / "data.py"
    data.write_text(data.read_text(encoding="utf-8").replace("The colour of", "The hue of"), encoding="utf-8")
    outcome = cli("reproduce", "out", "--include_path", tasks)
    assert outcome.code == 1
    assert "4 of 4 documents are others here; the data changed" in outcome.out


def test_several_records_are_named_to_choose_from(evaluate: Command, reproduce: Command) -> None:
    evaluate(tasks="colours,write_colours")
    outcome = reproduce()
    assert outcome.code == 2
    assert "several records fit; choose with --key, --run, --task or --method: " in outcome.sentence
    key = only(Path("out"), task="write_colours")[1]["key"]
    assert key in outcome.sentence
    assert f"record     {key}: baseline on write_colours" in reproduce("--key", key[:8]).out
    assert "no record fits; choose with" in reproduce("--task", "nope").sentence


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "does not say by which command it was made"),
        ("rm -rf /", "does not say by which command it was made"),
        ("harness eval --tasks colours; touch pwned", "no model"),
        ("harness eval --tasks colours --no-such-flag", "the command in the record is not understood"),
        ("harness eval --tasks colours --config /etc/passwd", "names a --config file"),
        ("harness eval --tasks $(touch pwned) --seed 0", "no model"),
    ],
)
def test_the_command_of_a_record_is_read_and_never_executed(
    evaluate: Command, reproduce: Command, command: str, sentence: str
) -> None:
    evaluate()
    path, line = only(Path("out"))
    write_sealed(path, line | {"command": command})
    outcome = reproduce("--model_args", "pretrained=./no-such-model")
    assert outcome.code == 2
    assert sentence in outcome.sentence
    assert not Path("pwned").exists()


def test_task_files_that_a_record_names_are_code_and_need_a_word(evaluate: Command, cli: Command) -> None:
    evaluate()
    outcome = cli("reproduce", "out")
    assert outcome.code == 2
    assert "if you trust it, add --include_path" in outcome.sentence


@pytest.fixture
def files() -> Path:
    """A folder with files that run, files that do not, and tables of both kinds."""
    folder = Path("files")
    contents = {
        "code.py": "pass", "text.txt": "import os", "rows.jsonl": '{"text": "a.b"}', "tools.json": '["CODE.PY:run"]',
        "program": "x", "weights.bin": "x", "task.yaml": "a: !function b.c", "data/a.jsonl": "{}", "more/deep/b.py": "",
        "tools.toml": "f='a.py:b'",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("flag", "field", "values"),
    [
        ("--method_args", {"method_args": {"it": "files/code.py"}}, None),
        ("--method_args", {"method_args": {"it": "files/code.py[:3]"}}, None),
        ("--method_args", {"method_args": {"it": ["arithmetic", "files/program"]}}, None),
        ("--method_args", {"method_args": {"it": {"deep": ["files/tools.json"]}}}, None),
        ("--method_args", {"method_args": {"it": "files/tools.toml"}}, None),
        ("--method_args", {"method_args": {"it": "files/weights.bin"}}, None),
        ("--method_args", {"method_args": {"it": "files/task.yaml"}}, None),
        ("--method_args", {"method_args": {"it": "files/more"}}, None),
        ("--method_args", {"method_args": {"it": "elsewhere.PY"}}, None),
        ("--metadata", {"metadata": {"tokenizer": "somebody/tokenizer"}}, None),
        ("--metadata", {"metadata": {"tools": ["gsm8k", "tools.py"]}}, None),
        ("--gen_kwargs", {"gen_kwargs": {"custom_generate": "somebody/way"}}, None),
        ("--gen_kwargs", {"gen_kwargs": {"trust_remote_code": True}}, None),
        ("--model_args", {"model_args": {"attn_implementation": "somebody/kernel"}}, None),
        ("--model_args", {"model_args": {"pretrained": "m", "trust_remote_code": True}}, "pretrained"),
        (
            "",
            {"method_args": {"it": "files/text.txt", "other": ["files/rows.jsonl", "arithmetic", "files/data"]}},
            None,
        ),
        ("", {"method_args": {"it": "a prompt: {question}\n/ no file", "steps": 3, "long": "x" * 5000}}, None),
        ("", {"metadata": {"questions": 50, "tools": "gsm8k", "share": "0.5"}, "gen_kwargs": {"until": ["/"]}}, None),
        ("", {"model_args": {"pretrained": "files", "attn_implementation": "sdpa"}}, None),
    ],
)
def test_code_that_a_record_names_has_to_be_named_again(flag: str, field: Any, values: str | None, files: Path) -> None:
    record = board_records.record()
    run = Run(tasks=("t",), **field)
    if not flag:
        return refuse_unnamed(record, run, {})
    [(_, content)] = field.items()
    name = values or next(iter(content))
    with pytest.raises(
        HarnessError, match=f"names what would run as code, {flag} {name}=.*; if you trust it, give {flag} {name}="
    ):
        refuse_unnamed(record, run, {})
    refuse_unnamed(record, run, {flag: {name}})
    if flag == "--method_args":  # as the record's field says it, whatever its command says
        options = record.model_copy(update={"method": record.method.model_copy(update={"options": content})})
        with pytest.raises(HarnessError, match="names what would run as code"):
            refuse_unnamed(options, Run(tasks=("t",)), {})
    return None


def test_a_file_that_a_record_names_does_not_run(
    evaluate: Command, reproduce: Command, make_method: Callable[..., str]
) -> None:
    """The method's own file, a task file instead of a task, a way of generating, each where the record alone names it."""
    script = Path("script.py").absolute()
    script.write_text("from pathlib import Path; Path('canary').touch()", encoding="utf-8")
    plugin = make_method("exec(self.script.read_text())\n" + NOISY, members="script: Path = None\n")
    assert evaluate("--plugin", plugin, "--method_args", f"script={script}").code == 0
    Path("canary").unlink()
    outcome = reproduce("--no-cache")
    assert outcome.code == 2
    assert outcome.sentence.endswith(
        f"--method_args script={script}; if you trust it, give --method_args script=... yourself"
    )
    path, line = only(Path("out"))
    for change in (
        {"task": line["task"] | {"name": "script.yaml"}},
        {"command": f"{line['command']} --gen_kwargs custom_generate=there,trust_remote_code=True"},
    ):
        write_sealed(path, line | change)
        outcome = reproduce("--no-cache", "--method_args", f"script={script}")
        assert outcome.code == 2
        assert (
            "names what would run as code, --gen_kwargs" in outcome.sentence or "which no task has" in outcome.sentence
        )
        assert "loading" not in outcome.err
    assert not Path("canary").exists()
    write_sealed(path, line)
    assert reproduce("--no-cache", "--method_args", f"script={script}").code == 0
    assert Path("canary").exists()


def test_another_tokenizer_and_another_code_of_the_method_are_told_before_weights_are_loaded(
    evaluate: Command, reproduce: Command, make_method: Callable[..., str], tmp_path: Path, tiny_model: Path
) -> None:
    plugin = make_method(NOISY)
    assert evaluate("--plugin", plugin).code == 0
    other = tmp_path / "other"
    build_tokenizer(vocabulary=390).save_pretrained(other)
    outcome = reproduce("--model_args", f"tokenizer={other}")
    assert (outcome.code, "loading" in outcome.err) == (2, False)
    assert "the tokenizer that the model comes with is not the record's: its digest is " in outcome.sentence
    [module] = tmp_path.glob("site-*/*.py")
    module.write_text(module.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    del sys.modules[module.stem]
    outcome = reproduce()
    assert (outcome.code, "loading" in outcome.err) == (2, False)
    assert "the code of plugin 'invention' here is not the record's: its digest is " in outcome.sentence
    outcome = reproduce("--other_code")
    assert outcome.code == 0, outcome.err
    assert "other plugin code: " in outcome.out


def test_what_can_differ_beyond_the_drawn_documents_is_that_of_the_hypergeometric_distribution() -> None:
    from scipy.stats import hypergeom

    for differing, docs, of in ((0, 50, 200), (0, 50, 10_000), (2, 50, 1_000), (0, 3, 5), (5, 5, 5)):
        most = agreement.most_that_can_differ(differing, docs, of)
        if docs < of:
            assert hypergeom.cdf(differing, of, most, docs) > 0.05
            assert hypergeom.cdf(differing, of, most + 1, docs) <= 0.05
        else:
            assert most == differing


def test_rounding_is_tolerated_and_token_ids_are_not() -> None:
    tolerance = agreement.Tolerance(1e-3, 1e-4, 0.0)

    def compared(then: Any, now: Any, arguments: list[Any]) -> agreement.Agreement:
        given = {"gen_args_0": {f"arg_{i}": part for i, part in enumerate(arguments)}}
        row = {"doc_id": 0, "doc_hash": "a", "arguments": given, "filter": "none", "metrics": []}
        pair = [{("0", "none"): row | {"filtered_resps": [answer]}} for answer in (then, now)]
        return agreement.compare_rows(pair[0], pair[1], tolerance)

    assert compared(["-2.0000", "False"], ["-2.0001", "False"], ["a", " b"]).differing == []
    assert compared(["-2.0", "False"], ["-2.1", "False"], ["a", " b"]).differing == ["0"]
    assert compared(["-20000.5", "-1.25"], ["-20000.6", "-1.25"], ["a"]).differing == []
    assert compared(["20000", "31"], ["20001", "31"], ["a"]).differing == ["0"]
    assert compared("red", "red.", ["a", {"until": ["\n"]}]).differing == ["0"]


def test_answers_that_are_drawn_at_random_are_known() -> None:
    row = {"arguments": {"gen_args_0": {"arg_0": "a", "arg_1": {"do_sample": True, "temperature": 1.0}}}}
    assert agreement.is_drawn([row])
    row["arguments"]["gen_args_0"]["arg_1"] = {"do_sample": False, "temperature": 0}
    assert not agreement.is_drawn([row])
