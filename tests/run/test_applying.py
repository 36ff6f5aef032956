"""Applying a method: once for the same inputs, honest about what changed, nothing half-done taken for finished."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.folders import cache_folder

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
MakeMethod = Callable[..., str]
Records = Callable[[Path], list[dict[str, Any]]]

SCALE = "lm.model.model.norm.weight.data.mul_(self.amount)\n"
COUNT = """
import json
path = Path({log!r})
path.write_text(path.read_text() + 'x' if path.exists() else 'x')
"""
SUBCLASS = """
from harness.models.causal import CausalLM

class Decoder(CausalLM):
    def loglikelihood(self, requests, disable_tqdm=False):
        {body}

return Decoder(lm.model, lm.tokenizer, **lm.settings)
"""


def counting(tmp_path: Path) -> tuple[str, Callable[[], int]]:
    """Return a statement for ``apply`` that leaves a trace, and a function that counts the traces."""
    log = tmp_path / "applied.log"
    return COUNT.format(log=str(log)), lambda: len(log.read_text(encoding="utf-8")) if log.exists() else 0


def hidden_litter(folder: Path) -> list[str]:
    """Return what a run that stopped must not leave: partial files, run folders, records."""
    return [path.name for path in folder.rglob("*") if not path.name.endswith(".lock")] if folder.exists() else []


@pytest.mark.parametrize(
    "body",
    [
        "return lm",
        "return lm.replace()",
        "import copy\nreturn lm.replace(model=copy.deepcopy(lm.model))",
        "import copy\nmodel = copy.deepcopy(lm.model)\nmodel.model.norm.weight.data.mul_(2)\nreturn lm",
        "lm.model.model.norm.weight.data.mul_(2).div_(2)\nreturn lm",
        # A separate head that equals the embeddings is no change of what the model says.
        "import torch\n"
        "lm.model.lm_head.weight = torch.nn.Parameter(lm.model.lm_head.weight.detach().clone())\n"
        "return lm.replace()",
        "from peft import LoraConfig, get_peft_model\n"
        "return lm.replace(model=get_peft_model(lm.model, LoraConfig(r=2, target_modules=['q_proj'], task_type='CAUSAL_LM')))",
    ],
    ids=["itself", "replaced", "copied", "change lost", "undone", "equal head", "adapter with B=0"],
)
def test_a_method_that_changes_nothing_is_an_error_unless_it_says_so(
    body: str, make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    outcome = evaluate("--plugin", make_method(body))
    assert outcome.code == 2
    assert outcome.sentence == (
        "harness: method 'invented' left every tensor and the tokenizer as they were, so its score would be the baseline's; "
        "if that is meant, it has to declare leaves_model_unchanged"
    )
    assert hidden_litter(Path("out")) == []

    honest = make_method(body, plugin="honest", members="leaves_model_unchanged: ClassVar[bool] = True")
    assert evaluate("--plugin", honest).code == 0
    [record] = records(Path("out"))
    assert record["model"]["weights_changed"] == 0


def test_a_method_that_says_it_changes_nothing_and_does_is_found_out(
    make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    """Demand: what changed is measured, whatever a method declares."""
    plugin = make_method(SCALE + "return lm", members="leaves_model_unchanged: ClassVar[bool] = True")
    assert evaluate("--plugin", plugin).code == 0
    [record] = records(Path("out"))
    assert record["model"]["weights_changed"] == 32


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (SCALE + "return lm", 32),
        ("lm.model.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1e-6\nreturn lm", 64 * 32),
        ("layers = lm.model.model.layers\nlayers[0], layers[1] = layers[1], layers[0]\nreturn lm", None),
        ("lm.model.model.layers = lm.model.model.layers[:1]\nlm.model.config.num_hidden_layers = 1\nreturn lm", None),
        ("lm.tokenizer.add_tokens(['clockmaker'])\nlm.model.resize_token_embeddings(len(lm.tokenizer))\nreturn lm", None),
        ("from peft import LoraConfig, get_peft_model\nimport torch\n"
         "config = LoraConfig(r=2, target_modules=['q_proj'], init_lora_weights=False, task_type='CAUSAL_LM')\n"
         "return lm.replace(model=get_peft_model(lm.model, config))", None),
    ],
    ids=["scaled", "one weight", "layers swapped", "layer dropped", "vocabulary", "adapter"],
)  # fmt: skip
def test_a_method_that_changes_something_gets_a_record(
    body: str, changed: int | None, make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    outcome = evaluate("--plugin", make_method(body))
    assert outcome.code == 0, outcome.err
    [record] = records(Path("out"))
    assert record["method"] == {"name": "invented", "options": {"amount": 0.5}, "inputs": None}
    assert record["model"]["weights_changed"] == changed or changed is None


def test_parts_of_the_work_stay_until_it_is_noted_as_done(
    make_method: MakeMethod, evaluate: Command, tmp_path: Path
) -> None:
    """What stops a run after its method ended empties the folder, so the parts are what the next one goes on from."""
    body = f"""
from harness.methods.parts import Parts
from pathlib import Path
Parts(workdir, {{"seed": seed}}).part(0, dict)
(workdir / "report.json").write_text(Path({str(tmp_path / "report")!r}).read_text())
return lm
"""
    plugin = make_method(body, members="leaves_model_unchanged: ClassVar[bool] = True")
    for report, code, left in (("{", 2, 1), ("{}", 0, 0)):
        (tmp_path / "report").write_text(report, encoding="utf-8")
        assert evaluate("--plugin", plugin).code == code
        assert len(list(cache_folder().glob("methods/.unfinished/*"))) == left


def test_no_part_is_left_in_training_mode(make_method: MakeMethod, evaluate: Command) -> None:
    body = """
    import torch

    def refuse(model, inputs):
        assert not any(part.training for part in model.modules())

    with torch.no_grad():
        lm.model.model.norm.weight.mul_(2)
    lm.model.register_forward_pre_hook(refuse)
    lm.model.model.layers[0].self_attn.train()
    return lm
    """
    assert evaluate("--plugin", make_method(body)).code == 0


def test_a_decoding_method_that_says_so_changes_the_answers(
    make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    body = SUBCLASS.format(body="return [(float(-n), False) for n, _ in enumerate(requests)]")
    plugin = make_method(body, members="leaves_model_unchanged: ClassVar[bool] = True")
    assert evaluate("--plugin", plugin).code == 0
    [record] = records(Path("out"))
    assert record["value"] == 0.25  # the first option is always the likeliest, and right once in four


def test_a_decoding_method_that_overrides_how_tokens_are_scored_is_evaluated(
    make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    body = """
        from harness.models.causal import CausalLM

        class Decoder(CausalLM):
            def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
                return [(float(-n), False) for n, _ in enumerate(requests)]

        return Decoder(lm.model, lm.tokenizer, **lm.settings)
    """
    plugin = make_method(body, members="leaves_model_unchanged: ClassVar[bool] = True")
    outcome = evaluate("--plugin", plugin)
    assert outcome.code == 0, outcome.err
    assert records(Path("out"))[0]["value"] == 0.25


def test_a_separate_head_stays_separate_and_is_saved(
    make_method: MakeMethod, evaluate: Command, cli: Command, tiny_model: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    body = """
        import torch
        model = lm.model
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 3)
        after = lm.replace(model=model)
        assert after.model.lm_head.weight.data_ptr() != after.model.get_input_embeddings().weight.data_ptr()
        assert torch.equal(after.model.lm_head.weight, after.model.get_input_embeddings().weight * 3)
        return after
    """
    plugin = make_method(body)
    assert evaluate("--plugin", plugin).code == 0
    done = cli("apply", "--plugin", plugin, "--model_args", f"pretrained={tiny_model}", "--output", "headed")
    assert done.code == 0, done.err
    loaded = AutoModelForCausalLM.from_pretrained("headed")
    assert torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight * 3)


@pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("lm.model", "LlamaForCausalLM"), ("'lm'", "str")])
def test_what_is_no_lm_is_told(value: str, kind: str, make_method: MakeMethod, evaluate: Command) -> None:
    outcome = evaluate("--plugin", make_method(f"return {value}"))
    assert outcome.code == 2
    owner = "method 'invented' of plugin 'invention' (third-party-invention 1.0)"
    assert outcome.sentence == f"harness: {owner} returned {kind} from apply, where an LM is due"
    assert hidden_litter(Path("out")) == []


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("raise RuntimeError('no memory left')", "RuntimeError: no memory left"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import sys\nsys.exit('enough')", "SystemExit: enough"),
        ("raise AttributeError", "AttributeError"),
        (
            "class Own(Exception):\n    def __str__(self): return self.nothing\nraise Own",
            "failed: Own (--debug shows where)",
        ),
    ],
)
def test_a_method_that_raises_is_told_with_its_plugin_and_is_no_success(
    statement: str, cause: str, make_method: MakeMethod, evaluate: Command
) -> None:
    outcome = evaluate("--plugin", make_method(statement))
    assert outcome.code == 2
    assert cause in outcome.sentence
    assert "plugin 'invention' (third-party-invention 1.0)" in outcome.sentence
    assert hidden_litter(Path("out")) == []


def test_a_mistake_the_method_explains_is_told_in_its_words(make_method: MakeMethod, evaluate: Command) -> None:
    plugin = make_method(
        "from harness import HarnessError\nraise HarnessError('the corpus is too short; name another')"
    )
    outcome = evaluate("--plugin", plugin)
    assert (outcome.code, outcome.sentence) == (2, "harness: the corpus is too short; name another")


def test_the_same_command_again_reuses_and_says_so_and_no_cache_redoes(
    make_method: MakeMethod, evaluate: Command, records: Records, tmp_path: Path
) -> None:
    count, times = counting(tmp_path)
    body = f"""
if not (workdir / 'factor.json').exists():
    (workdir / 'factor.json').write_text('0.25')
    {count.strip().replace(chr(10), chr(10) + "    ")}
lm.model.model.norm.weight.data.mul_(json.loads((workdir / 'factor.json').read_text()))
return lm
"""
    plugin = make_method("import json\n" + body)
    first = evaluate("--plugin", plugin)
    assert (first.code, times()) == (0, 1)
    assert "reused" not in first.err
    [before] = records(Path("out"))
    assert before["cost"]["reused"] is False

    second = evaluate("--plugin", plugin)
    assert (second.code, times()) == (0, 1)
    assert (
        "'invented' was applied before with exactly these inputs; its result is reused (--no-cache redoes it)"
        in second.err
    )
    [after] = records(Path("out"))
    assert after["cost"]["reused"] is True
    assert after["value"] == before["value"]
    assert after["cost"]["apply_seconds"] == before["cost"]["apply_seconds"]

    third = evaluate("--plugin", plugin, "--no-cache")
    assert (third.code, times()) == (0, 2)
    assert "reused" not in third.err

    assert evaluate("--plugin", plugin, "--method_args", "amount=0.75").code == 0
    assert times() == 3
    assert evaluate("--plugin", plugin, "--seed", "1").code == 0
    assert times() == 4
    assert {artefact.read_text(encoding="utf-8") for artefact in Path("out").glob("*/artefacts/factor.json")} == {
        "0.25"
    }


def test_what_a_method_did_in_parts_is_found_after_an_interruption_and_by_no_cache_forgotten(
    make_method: MakeMethod, evaluate: Command, records: Records, tmp_path: Path
) -> None:
    """Demand: the work folder is emptied as ever, and the same command goes on from the parts that were done."""
    count, times = counting(tmp_path)
    switch = tmp_path / "switch"
    body = f"""
from harness.methods.parts import Parts
assert not list(workdir.iterdir())
parts = Parts(workdir, {{"seed": seed}})
def work():
    {count.strip().replace(chr(10), chr(10) + "    ")}
    return {{"factor": 0.5}}
factor = parts.part(0, work)["factor"]
(workdir / 'half.txt').write_text('half')
if not Path({str(switch)!r}).exists():
    raise KeyboardInterrupt
factor *= parts.part(1, work)["factor"]
parts.forget()
(workdir / 'half.txt').unlink()
lm.model.model.norm.weight.data.mul_(factor)
return lm
"""
    plugin = make_method(body)
    assert (evaluate("--plugin", plugin).code, times()) == (130, 1)
    assert (evaluate("--plugin", plugin).code, times()) == (130, 1)
    assert (evaluate("--plugin", plugin, "--no-cache").code, times()) == (130, 2)
    switch.touch()
    going_on = evaluate("--plugin", plugin)
    assert (going_on.code, times()) == (0, 3)
    assert "an interrupted run had done 1 parts of this work" in going_on.err
    [record] = records(Path("out"))
    assert record["cost"]["reused"] is False


def test_the_work_of_an_edited_plugin_and_of_another_model_is_not_reused(
    make_method: MakeMethod, evaluate: Command, tiny_model: Path, tmp_path: Path
) -> None:
    plugin = make_method(SCALE + "return lm")
    assert evaluate("--plugin", plugin).code == 0
    [module] = tmp_path.glob("site-*/*.py")
    module.write_text(module.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    del sys.modules[module.stem]
    assert "reused" not in evaluate("--plugin", plugin).err
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}), encoding="utf-8")
    assert "reused" not in evaluate("--plugin", plugin, model=other).err
    assert "reused" in evaluate("--plugin", plugin).err


def test_an_edited_training_file_is_another_input(make_method: MakeMethod, evaluate: Command, tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    plugin = make_method(SCALE + "return lm", members="file: Path | None = None")
    missing = evaluate("--plugin", plugin, "--method_args", f"file={file}")
    assert (missing.code, missing.sentence) == (2, f"harness: no file or folder at '{file}'")
    assert "loading tiny" not in missing.err
    for content, is_reused in (("one", False), ("one", True), ("two", False)):
        file.write_text(content, encoding="utf-8")
        assert ("reused" in evaluate("--plugin", plugin, "--method_args", f"file={file}").err) == is_reused


def test_a_baseline_is_asked_once_for_the_same_questions(
    make_method: MakeMethod,
    evaluate: Command,
    records: Records,
    own_tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "versions"
    shutil.copytree(own_tasks, folder)
    file = folder / "colours.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("colours", "shades"), encoding="utf-8")
    plugin = make_method(SCALE + "return lm")

    def reused(*flags: object) -> bool:
        words = ["--plugin", plugin, "--with_baseline", "--include_path", folder, *flags]
        outcome = evaluate(*words, tasks="shades")
        assert outcome.code == 0, outcome.err
        assert outcome.err.count("evaluating baseline") == ("the baseline's records" not in outcome.err)
        return "the baseline's records of an earlier run are reused" in outcome.err

    (folder / "long_colours.yaml").unlink()
    (folder / "write_colours.yaml").unlink()
    assert not reused()
    assert reused("--method_args", "amount=0.75")
    assert not reused("--limit", "2")
    assert not reused("--num_fewshot", "1")
    text = (
        file.read_text(encoding="utf-8")
        .replace("{{question}}", "Think. {{question}}")
        .replace("version: 1.0", "version: 2.0")
    )
    file.write_text(text, encoding="utf-8")
    assert not reused()
    versions = sorted(r["task"]["version"] for r in records(Path("out")) if r["method"]["name"] == "baseline")
    assert versions == ["1.0", "1.0", "1.0", "2.0"]


def test_what_a_failed_run_left_is_not_found_by_the_next(
    make_method: MakeMethod, evaluate: Command, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    body = f"""
assert not list(workdir.iterdir()), sorted(workdir.iterdir())
(workdir / 'half.txt').write_text('half')
if not Path({str(switch)!r}).exists():
    raise KeyboardInterrupt
{SCALE}
return lm
"""
    plugin = make_method(body)
    stopped = evaluate("--plugin", plugin)
    assert stopped.code == 130
    assert hidden_litter(Path("out")) == []
    switch.touch()
    finished = evaluate("--plugin", plugin)
    assert (finished.code, "reused" in finished.err) == (0, False)


@pytest.mark.parametrize("exception", ["KeyboardInterrupt", "HarnessError('broken off')"])
def test_a_run_that_stops_while_asking_leaves_no_record_and_says_how_it_ended(
    exception: str, make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    members = "leaves_model_unchanged: ClassVar[bool] = True"
    body = SUBCLASS.format(body=f"from harness import HarnessError; raise {exception}")
    outcome = evaluate("--plugin", make_method(body, members=members))
    assert outcome.code == (130 if exception == "KeyboardInterrupt" else 2)
    assert [path.name for path in Path("out").rglob("*") if path.suffix in {".partial", ".jsonl"}] == []
    assert records(Path("out")) == []
    [status] = Path("out").glob("*/run.json")
    expected = "interrupted" if exception == "KeyboardInterrupt" else "finished with failures"
    assert json.loads(status.read_text(encoding="utf-8"))["status"] == expected


def test_whatever_a_methods_own_code_raises_while_asking_is_told_and_the_next_task_asked(
    make_method: MakeMethod, evaluate: Command, records: Records
) -> None:
    members = "leaves_model_unchanged: ClassVar[bool] = True"
    body = SUBCLASS.format(body="raise OSError(28, 'No space left on device')")
    outcome = evaluate("--plugin", make_method(body, members=members))
    assert outcome.code == 1
    assert outcome.sentence == (
        "harness: task 'colours' failed: OSError: [Errno 28] No space left on device (--debug shows where)"
    )
    assert records(Path("out")) == []


@pytest.mark.parametrize("stage", ["samples", "records"])
def test_a_disk_that_refuses_leaves_no_record_and_the_scores_on_the_terminal(
    stage: str, make_method: MakeMethod, evaluate: Command, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.records import ledger
    from harness.run import folder

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    if stage == "samples":
        monkeypatch.setattr(folder.samples, "sha256", refuse)
    else:
        monkeypatch.setattr(ledger, "write_atomic", refuse)
    members = "leaves_model_unchanged: ClassVar[bool] = True"
    outcome = evaluate("--plugin", make_method("return lm", members=members))
    assert outcome.code == 1
    assert "No space left on device" in outcome.sentence
    assert re.search(r"colours +│ acc", outcome.out)
    assert records(Path("out")) == []


def test_a_report_becomes_part_of_the_record(make_method: MakeMethod, evaluate: Command, records: Records) -> None:
    body = (
        "(workdir / 'report.json').write_text('{\"steps\": 3, \"note\": \"ünï\"}', encoding='utf-8')\n"
        + SCALE
        + "return lm"
    )
    assert evaluate("--plugin", make_method(body)).code == 0
    [record] = records(Path("out"))
    assert record["report"] == {"steps": 3, "note": "ünï"}


@pytest.mark.parametrize(
    "report",
    [
        '{"loss": NaN}', '{"a": {"b": [Infinity]}}', "[1]", '{"a": 1', "", b"\xff", '{"loss": 1e999}', '{"a": "\\ud800"}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_report_that_no_record_can_hold_is_told_before_anything_is_asked(
    report: str | bytes, make_method: MakeMethod, evaluate: Command
) -> None:
    content = report.encode() if isinstance(report, str) else report
    plugin = make_method(f"(workdir / 'report.json').write_bytes({content!r})\n" + SCALE + "return lm")
    outcome = evaluate("--plugin", plugin)
    assert outcome.code == 2
    assert "report.json" in outcome.sentence
    assert "evaluating" not in outcome.err
    assert hidden_litter(Path("out")) == []


def test_every_generator_is_seeded_for_the_method(make_method: MakeMethod, evaluate: Command, records: Records) -> None:
    body = """
        import json, random
        import numpy, torch
        draws = [random.random(), float(numpy.random.rand()), float(torch.rand(1))]
        (workdir / "report.json").write_text(json.dumps({"draws": draws, "seed": seed}))
        lm.model.model.norm.weight.data.mul_(0.5)
        return lm
    """
    plugin = make_method(body)
    seen = []
    for number, seed in enumerate((3, 3, 4)):
        assert evaluate("--plugin", plugin, "--seed", seed, "--no-cache", "--output_path", f"out{number}").code == 0
        seen.append(records(Path(f"out{number}"))[-1]["report"])
    assert [report["seed"] for report in seen] == [3, 3, 4]
    assert seen[0] == seen[1]
    assert all(one != other for one, other in zip(seen[1]["draws"], seen[2]["draws"], strict=True))


def test_apply_writes_a_folder_that_lm_eval_loads_with_the_same_score(
    make_method: MakeMethod, evaluate: Command, cli: Command, tiny_model: Path, records: Records
) -> None:
    plugin = make_method("lm.model.model.layers[0].mlp.up_proj.weight.data.mul_(-3)\nreturn lm")
    assert evaluate("--plugin", plugin).code == 0
    done = cli("apply", "--plugin", plugin, "--model_args", f"pretrained={tiny_model}", "--output", "changed")
    assert done.code == 0, done.err
    assert done.out == "wrote a model to changed: `lm_eval --model hf --model_args pretrained=changed`\n"
    assert evaluate("--output_path", "again", model="changed").code == 0
    assert records(Path("again"))[0]["value"] == records(Path("out"))[0]["value"]
    again = cli("apply", "--plugin", plugin, "--model_args", f"pretrained={tiny_model}", "--output", "changed")
    assert (again.code, again.sentence) == (2, "harness: 'changed' exists already; name a new folder with --output")


def test_apply_refuses_what_no_folder_can_hold(make_method: MakeMethod, cli: Command, tiny_model: Path) -> None:
    body = SUBCLASS.format(body="return []")
    plugin = make_method(body, members="leaves_model_unchanged: ClassVar[bool] = True")
    outcome = cli("apply", "--plugin", plugin, "--model_args", f"pretrained={tiny_model}", "--output", "folder")
    assert outcome.code == 2
    assert "method 'invented' makes a Decoder" in outcome.sentence
    assert not Path("folder").exists()


@pytest.mark.xdist_group("runs")
def test_ctrl_c_and_kill_leave_nothing_that_a_later_run_takes_for_finished(
    make_method: MakeMethod,
    evaluate: Command,
    cli: Command,
    forked: Command,
    tiny_model: Path,
    own_tasks: Path,
    tmp_path: Path,
    records: Records,
) -> None:
    switch, started = tmp_path / "switch", tmp_path / "started"
    body = f"""
import time
found = sorted(path.name for path in workdir.iterdir())
if 'whole.txt' not in found:
    (workdir / 'half.txt').write_text('half')
    Path({str(started)!r}).touch()
    if not Path({str(switch)!r}).exists():
        time.sleep(120)
    (workdir / 'report.json').write_text('{{"found": ' + str(len(found)) + '}}')
    (workdir / 'whole.txt').write_text('whole')
{SCALE}
return lm
"""
    plugin = make_method(body)
    model = ["--model_args", f"pretrained={tiny_model}", "--plugin", plugin]
    commands = {
        signal.SIGINT: ["eval", *model, "--include_path", own_tasks, "--tasks", "colours", "--output_path", "out"],
        signal.SIGKILL: ["apply", *model, "--output", "written"],
    }
    for number, words in commands.items():
        started.unlink(missing_ok=True)
        process = forked(*words)
        for _ in range(1200):
            if started.exists() or process.has_ended:
                break
            time.sleep(0.05)
        assert started.exists(), process.err
        process.send(number)
        ended = process.wait()
        assert ended.code == (130 if number == signal.SIGINT else -number), ended.err
        assert ended.out == ""
        if number == signal.SIGINT:
            assert (
                ended.err.splitlines()[-1]
                == "harness: stopped; what was finished is kept, and the same command goes on from there"
            )
            assert "Traceback" not in ended.err
    assert hidden_litter(Path("out")) == []
    assert not Path("written").exists()

    switch.touch()
    applied = cli("apply", *model, "--output", "written")
    assert (applied.code, "reused" in applied.err) == (0, False)
    assert (Path("written") / "model.safetensors").is_file()
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["out", "written"]
    assert evaluate("--plugin", plugin).code == 0
    [record] = records(Path("out"))
    assert record["report"] == {"found": 0}
    assert record["cost"]["reused"] is True


def test_a_run_that_takes_the_place_of_another_says_so_and_which_scores_are_others(evaluate: Command) -> None:
    """Given again, a command replaces its records: nothing of that is silent, and nothing is said where nothing was there."""
    first = evaluate()
    assert "gave way" not in first.err
    again = evaluate()
    assert "1 record of the same run, made 20" in again.err and "the scores are the same" in again.err
    [file] = Path("out").rglob("records_colours-*.jsonl")
    line = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(
        json.dumps(line | {"value": 0.125, "digest": None}).replace(', "digest": null', "") + "\n", encoding="utf-8"
    )
    assert re.search(r"other scores now: colours acc 0\.1250 → 0\.\d{4}", evaluate().err)
    assert "gave way" not in evaluate("--limit", "2").err
