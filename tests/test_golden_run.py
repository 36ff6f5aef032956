"""What runs on tiny models and the committed records gave before files moved is what they give now."""

# ``python tests/test_golden_run.py --write`` writes ``golden/*.json`` from the code as it is, ``--check`` compares without
# pytest; both take names of parts. Nothing but command lines is called, since everything else may move. Floats are compared
# with a tolerance, the rest exactly; what changes from one run, version or machine to the next is left out, by name.

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).with_name("golden")
INPUTS = GOLDEN / "inputs"
BOARD = ROOT / "leaderboards"
# Ledgers only grow: these first lines of each are what the board's part looks at.
LEDGERS = {"stochastok.jsonl": 147, "tool_tokens.jsonl": 900}

TOLERANCE = 1e-5
# Losses of a report are rounded, and training carries the differences between processors on.
TRAINED_TOLERANCE = 2e-4
DIGESTED_FROM = 120  # characters; what is longer and holds no float is kept as its digest

MOST_FLOATS = 8  # of a longer list, its length and two sums

# Dotted paths whose value differs between runs, versions or machines; that they are there is kept.
LEFT_OUT = frozenset(
    {
        "created",
        "run",
        "key",
        "digest",
        "environment.*",
        "plugin.version",
        "plugin.code_digest",
        "cost.apply_seconds",
        "cost.apply_peak_bytes",
        "cost.evaluate_seconds",
        "cost.evaluate_peak_bytes",
        "cost.scoring.seconds.*",
        # How requests are cut into passes depends on the machine's memory.
        "cost.scoring.pushed_tokens",
        "cost.scoring.plain_tokens",
        "cost.scoring.check_tokens",
        "cost.scoring.scored_rows",
        "cost.scoring.forwards",
        "cost.scoring.share",
        "samples.path",
        "samples.sha256",
        "report.training.seconds",
        "report.seconds",
    }
)
OF_LM_EVAL = ("group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "task_hashes")
# What a run was asked to do is compared exactly, floats too.
ASKED = re.compile(r"\.(method|settings|seeds|command|options)\b")
PRINTED = re.compile(r"\bout\[\d+\]$")
TRAINED = re.compile(r"\breport\.|\.trained\[")
NUMBER = re.compile(r"[-+]?\d[\d,]*\.\d*(?:e[-+]?\d+)?")
WEIGHTS_WITHIN = 0.5  # drawn so wide, tiny models write varied text and no two tokens tie


# --- the parts --------------------------------------------------------------------------------------------------------------


def llama_as_it_is() -> dict[str, Any]:
    """Return what a tied Llama gives in every kind of request that needs no method, without and with examples."""
    tasks = "golden_choice,golden_next,golden_rolling,golden_writing,langgame,addition_3digit,fertility"
    return {
        "plain": evaluated("plain", "--tasks", tasks, "--limit", 2, model="llama"),
        "two examples": evaluated(
            "shots", "--tasks", "golden_choice,golden_writing", "--num_fewshot", 2, "--limit", 2, model="llama"
        ),
    }


def neox_as_it_is() -> dict[str, Any]:
    """Return what an untied GPT-NeoX gives."""
    tasks = "golden_choice,golden_next,golden_rolling,golden_writing"
    return evaluated("out", "--tasks", tasks, "--limit", 2, "--num_fewshot", 1, model="neox")


def tokenizer_alone() -> dict[str, Any]:
    """Return what a tokenizer without weights gives."""
    return evaluated("out", "--model", "tokenizer", "--tasks", "fertility", "--limit", 4, model="llama")


def stochastok() -> dict[str, Any]:
    """Return a training on split tokens beside its baseline, on two models, and all that is read from these runs."""
    small = "batch_size=2,context_length=32,train_file=inputs/train.txt,learning_rate=1e-3"
    method = ["--plugin", "stochastok", "--with_baseline", "--seed", 3]
    tasks = ["--tasks", "golden_choice,golden_rolling,tokenization_robustness", "--limit", 2]
    llama = evaluated("out", *method, *tasks, "--method_args", f"steps=3,proportion=0.4,{small}", model="llama")
    dropout = f"steps=2,scheme=bpe_dropout,dropout=0.5,rank=4,{small}"
    neox = evaluated("neox", *method, "--tasks", "golden_choice", "--limit", 1, "--method_args", dropout, model="neox")
    compare = ["compare", "stochastok@baseline", "--records", "out", "--documents", 1]
    return {
        "llama": llama,
        "neox": neox,
        "leaderboard": told("leaderboard", "out", "--task", "all"),
        "compare": until("Cost of a seed", told(*compare, "--format", "markdown")),
        "verify": told("verify", "out"),
        "show": told("show", "out", "--run", "stochastok", "--task", "golden_choice", "--limit", 1),
        "split": told_by("harness_stochastok", "Forty strawberries ticked.", "--tokenizer", "llama", "--draws", "2"),
    }


def tool_tokens() -> dict[str, Any]:
    """Return answers that call tools, by trained rows and by every kind of baseline, and the choice of tools."""
    method = ["--plugin", "tool_tokens", "--method_args"]
    letters = "tools=inputs/letters.py,train_file=examples,steps=20,learning_rate=0.01,bias=50,max_calls=2"
    sums = "tools=gsm8k,max_calls=2,max_argument_tokens=6"
    trained = f"{sums},train_file=inputs/rows.jsonl,holdout=1,steps=5 epochs,penalty=0.1,bias=20"
    choice = ["--metadata", json.dumps({"rows": "inputs/rows.jsonl", "holdout": 1})]
    own = evaluated(
        "own", *method, f"{letters},max_argument_tokens=8", "--tasks", "letter_count", "--limit", 2, model="llama"
    )
    return {
        "own tool": own,
        "trained": evaluated("rows", *method, trained, "--tasks", "golden_sums,tool_choice", *choice, model="llama"),
        "untied": evaluated(
            "untied", *method, trained, "--tasks", "tool_choice,golden_choice", "--limit", 2, *choice, model="neox"
        ),
        "right calls": evaluated(
            "right", *method, f"{sums},variant=oracle_call", "--tasks", "golden_sums", model="neox"
        ),
        "in context": evaluated(
            "context", *method, f"{sums},variant=in_context", "--tasks", "golden_sums", "--limit", 1, model="llama"
        ),
        "calls": told_by("harness_tool_tokens", "calls", "right"),
        "tools": by_line(told_by("harness_tool_tokens", "tools", "--tools", "arithmetic")),
    }


def listings() -> dict[str, Any]:
    """Return what is installed, with every option, and the page of the hooks."""
    hooks = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8").splitlines()
    return {
        "plugins stochastok": by_line(told("plugins", "stochastok")),
        "plugins tool_tokens": by_line(told("plugins", "tool_tokens")),
        "plugins tasks": by_line(told("plugins", "tasks")),
        "tasks": by_line(told("tasks")),
        # Its third line names the files it is written from.
        "hooks.md": [digest(line) for line in hooks if not line.startswith("Written by")],
    }


def board() -> dict[str, Any]:
    """Return what is rendered and computed of the committed records, line by line as digests."""
    for name, lines in LEDGERS.items():
        ledger = (BOARD / "records" / name).read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        write(Path("board/records", name), "".join(ledger))
    for name in ("samples", "commands", "reports"):  # samples behind a link are not read
        shutil.copytree(BOARD / "records" / name, Path("board/records", name))
    told("leaderboard", "board", "-o", "board.md", "-o", "board.html")
    compare = ["compare", "scheme=none", "scheme=stochastok", "--records", "board", "--documents", 1]
    some = ["--tasks", "tokenization_robustness,langgame_contains", "--metrics", "acc,bits_per_byte_p0.5,drop_p1"]
    markdown = told(*compare, *some, "--format", "markdown")
    exported = told(*compare, *some, "--format", "json")
    run = ["show", "board", "--run", "stochastok-044a5ca795"]
    # A value that was edited, in a ledger that ends early.
    edited = Path("board/records/stochastok.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    edited[2] = re.sub(r'"value": ?[0-9.]+', '"value":0.9', edited[2])
    write(Path("edited/records/stochastok.jsonl"), "".join(edited[:4]))
    for name in ("commands", "reports"):
        shutil.copytree(BOARD / "records" / name, Path("edited/records", name))
    return {
        "board.md": page("board.md"),
        "board.html": page("board.html"),
        "compare": by_line(markdown),
        "compare as json": {**exported, "out": json.loads("\n".join(exported["out"]))},
        "show": by_line(told("show", "board")),
        "show run": by_line(told(*run)),
        "show documents": by_line(told(*run, "--task", "langgame_contains", "--wrong", "--limit", 2)),
        "show changed": by_line(told(*run, "--task", "langgame_contains", "--changed", "--limit", 2)),
        "verify": told("verify", "board"),
        "verify edited": told("verify", "edited", "--without-samples"),
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "llama_as_it_is": llama_as_it_is,
    "neox_as_it_is": neox_as_it_is,
    "tokenizer_alone": tokenizer_alone,
    "stochastok": stochastok,
    "tool_tokens": tool_tokens,
    "listings": listings,
    "board": board,
}


# --- the test ---------------------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("golden_run")
@pytest.mark.parametrize("part", PARTS)
def test_a_move_changes_no_value(part: str, tmp_path: Path) -> None:
    found = differences_of(part, tmp_path / "work")
    shown = "\n".join(found[:40])
    assert not found, f"{len(found)} values of tests/golden/{part}.json differ (then, now):\n{shown}"


def test_a_changed_value_is_named() -> None:
    golden = {"rows": [{"value": 1.5, "text": "a", "out": ["| x | 0.5000 |"], "settings": {"limit": 2.0}}]}
    same = {"rows": [{"value": 1.500001, "text": "a", "out": ["| x | 0.5001 |"], "settings": {"limit": 2.0}}]}
    other = {"rows": [{"value": 1.6, "text": "b", "out": ["| y | 0.5000 |"], "settings": {"limit": 2.000001}}]}
    assert not list(differences(golden, same))
    assert list(differences(golden, other)) == [
        "rows[0].out[0]: '| x | 0.5000 |', '| y | 0.5000 |'",
        "rows[0].settings.limit: 2.0, 2.000001",
        "rows[0].text: 'a', 'b'",
        "rows[0].value: 1.5, 1.6",
    ]
    assert list(differences(golden, {"new": None})) == ["new: not there, None", f"rows: {golden['rows']!r}, not there"]


# --- the command line, and what it left -------------------------------------------------------------------------------------


def told(*words: object) -> dict[str, Any]:
    """Call the command line in this process; its exit status and the lines of its standard output."""
    from harness.cli import main

    def call() -> int:
        return main([str(word) for word in words])

    return _captured(call)


def told_by(module: str, *words: str) -> dict[str, Any]:
    """Run a plugin's own command line as ``python -m`` does, in this process."""

    def call() -> int:
        with mock.patch.object(sys, "argv", [module, *words]):
            runpy.run_module(module, run_name="__main__")
        return 0

    return _captured(call)


def evaluated(out: str, *flags: object, model: str) -> dict[str, Any]:
    """Run ``harness eval`` on a tiny model into the folder ``out``; what it printed and left there."""
    words = ["--model_args", f"pretrained={model}", "--include_path", "inputs", "--output_path", out, *flags]
    printed = told("eval", "--batch_size", 4, *words)
    assert printed["code"] == 0, printed
    folder = Path(out)
    names = sorted({_without_digests(file, folder) for file in folder.rglob("*") if file.is_file()})
    return {
        **printed,
        "other files": [name for name in names if not re.search(r"/(records|samples)_", name)],
        "records": _records(folder),
        "samples": _samples(folder),
        "tensors": _tensors(folder),
        "lm_eval": {
            _without_digests(file, folder): _of_lm_eval(file) for file in sorted(folder.rglob("results_*.json"))
        },
    }


def _captured(call: Callable[[], int]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = call()
        except SystemExit as end:
            code = end.code or 0
    # What a command says on standard error is told only if it failed.
    errors = [line for line in err.getvalue().splitlines() if line.startswith("harness: ")]
    lines = [re.sub(r"-[0-9a-f]{10}\b", "-DIGEST", line.rstrip()) for line in out.getvalue().splitlines()]
    lines = [
        re.sub(" {2,}", "  ", line.replace("│", "|").replace("┃", "|"))
        for line in lines
        if not line.startswith(("┏", "┡", "├", "└"))
    ]
    return {"code": code, "out": lines, **({"err": errors} if code else {})}


def _records(folder: Path) -> dict[str, Any]:
    """Return the records, each as what differs from the one before it."""
    found: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for file in sorted(folder.rglob("records_*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = _left_out(json.loads(line))
            name = "/".join([record["method"]["name"], record["task"]["name"], record["metric"]["name"]])
            gone = dict.fromkeys(before.keys() - record.keys(), "not there")
            changed = {key: value for key, value in record.items() if key not in before or before[key] != value}
            found[name] = {key: _without_known(value, before.get(key)) for key, value in changed.items()} | gone
            before = record
    return found


def _without_known(value: Any, before: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(before, dict) or value.keys() != before.keys():
        return value
    return {key: _without_known(below, before[key]) for key, below in value.items() if below != before[key]}


def _left_out(value: Any, path: str = "") -> Any:
    if isinstance(value, dict):
        kept = {key: _left_out(below, f"{path}.{key}".lstrip(".")) for key, below in value.items()}
        is_empty = bool(kept) and all(below == "left out" for below in kept.values())
        return "left out: " + " ".join(kept) if is_empty else kept
    if path in LEFT_OUT or f"{path.rpartition('.')[0]}.*" in LEFT_OUT:
        return "left out"
    return value[:16] if re.fullmatch("[0-9a-f]{64}", str(value)) else value


def _samples(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.rglob("samples_*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found[_without_digests(file, folder)] = [
            _row(row) for row in sorted(rows, key=lambda row: (row["doc_id"], row["filter"]))
        ]
    return found


def _row(row: dict[str, Any]) -> dict[str, Any]:
    if row["filtered_resps"] == [first for first, *_ in row["resps"]]:
        del row["filtered_resps"]
    hashes = [row.pop(name)[:8] for name in ("doc_hash", "prompt_hash", "target_hash")]
    return {**{key: _shortened(value) for key, value in row.items()}, "hashes": " ".join(hashes)}


def _tensors(folder: Path) -> dict[str, Any]:
    """Return the shapes and sizes of what was trained."""
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("artefacts/**/*.safetensors")):
        tensors = {name: tensor.astype("float64") for name, tensor in sorted(load_file(file).items())}
        found[_without_digests(file, folder)] = {
            "shapes": _shortened({name: list(tensor.shape) for name, tensor in tensors.items()}),
            "trained": [float(abs(tensor).sum()) for tensor in tensors.values()],
        }
    return found


def _of_lm_eval(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: values.get(key) for key in OF_LM_EVAL}
    # Their values are those of the records.
    kept["results"] = {task: sorted(metrics) for task, metrics in values["results"].items()}
    return {key: _shortened(value) for key, value in kept.items()}


def _without_digests(file: Path, folder: Path) -> str:
    path = re.sub(r"_\d{4}-\d\d-\d\dT[\d-]+\.\d+", "_TIME", str(file.relative_to(folder)))
    return re.sub(r"-[0-9a-f]{8,10}(?=[./]|$)", "-DIGEST", path)


def _shortened(value: Any) -> Any:
    """Keep long values without floats as their digest, and long lists of floats as their sums."""
    plain = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(plain) > DIGESTED_FROM and not re.search(r"\d\.\d{4}", plain):
        return "sha256:" + hashlib.sha256(plain.encode()).hexdigest()[:16]
    if isinstance(value, dict):
        return {key: _shortened(below) for key, below in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) > MOST_FLOATS and all(re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", str(below)) for below in value):
        floats = [float(below) for below in value]
        by_place = sum(number * place for place, number in enumerate(floats)) / len(floats)
        return {"floats": [len(floats), sum(floats), by_place]}
    return [_shortened(below) for below in value]


def by_line(printed: dict[str, Any]) -> dict[str, Any]:
    """Replace the lines that were printed by their digests, without this package's version."""
    return {**printed, "out": [digest(re.sub(r"(token-harness) [\d.]+", r"\1", line)) for line in printed["out"]]}


def until(words: str, printed: dict[str, Any]) -> dict[str, Any]:
    """Keep the lines before the first that ends in ``words``; after it come seconds and bytes."""
    [end] = [number for number, line in enumerate(printed["out"]) if line.endswith(words)]
    return {**printed, "out": printed["out"][:end]}


def page(name: str) -> dict[str, Any]:
    """Return the digest of a page, and one of each line, to tell which differs."""
    text = Path(name).read_text(encoding="utf-8")
    lines = [digest(line) for line in text.splitlines()]
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "lines": lines}


def digest(line: str) -> str:
    """Return four hexadecimal digits of a line."""
    return f"{zlib.crc32(line.encode()) & 0xFFFF:04x}"


# --- comparing --------------------------------------------------------------------------------------------------------------


def differences_of(part: str, workplace: Path) -> list[str]:
    """Return one sentence for each value of a part that is not as kept."""
    with _working_in(workplace):
        now = json.loads(json.dumps(PARTS[part]()))
    golden = json.loads((GOLDEN / f"{part}.json").read_text(encoding="utf-8"))
    return list(differences(golden, now))


def differences(golden: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield where two values differ, with what was kept and what is there now."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for key in sorted(golden.keys() | now.keys()):
            below = f"{path}.{key}" if path else key
            if key not in golden or key not in now:
                yield f"{below}: {_seen(golden, key)}, {_seen(now, key)}"
            else:
                yield from differences(golden[key], now[key], below)
    elif isinstance(golden, list) and isinstance(now, list):
        if len(golden) != len(now):
            yield f"{path}: {len(golden)} entries, {len(now)} entries"
        for number, pair in enumerate(zip(golden, now, strict=False)):
            yield from differences(*pair, f"{path}[{number}]")
    elif not _same(golden, now, path):
        yield f"{path}: {golden!r}, {now!r}"


def _seen(values: dict[str, Any], key: str) -> str:
    return repr(values[key])[:200] if key in values else "not there"


def _same(golden: Any, now: Any, path: str) -> bool:
    if golden == now and type(golden) is type(now):
        return True
    if ASKED.search(path):
        return False
    if isinstance(golden, float) and isinstance(now, float):
        return abs(golden - now) <= (TRAINED_TOLERANCE if TRAINED.search(path) else TOLERANCE) * (1 + abs(golden))
    if isinstance(golden, str) and isinstance(now, str):
        return _same_but_for_floats(golden, now, printed=bool(PRINTED.search(path)))
    return False


def _same_but_for_floats(golden: str, now: str, *, printed: bool) -> bool:
    """Say whether floats in two texts differ by no more than the tolerance or, where printed, by their last digit."""
    if NUMBER.sub("0.0", golden) != NUMBER.sub("0.0", now):
        return False
    for then, today in zip(NUMBER.findall(golden), NUMBER.findall(now), strict=True):
        before, after = (float(number.replace(",", "")) for number in (then, today))
        decimals = len(then.partition(".")[2])
        last_digit = 1.01 * 10**-decimals if printed and decimals in {3, 4} else 0.0
        if abs(before - after) > max(last_digit, TOLERANCE * (1 + abs(before))):
            return False
    return True


# --- tiny models, and a folder to work in -----------------------------------------------------------------------------------


@functools.cache
def _models() -> tempfile.TemporaryDirectory[str]:
    """Save a tied Llama and an untied GPT-NeoX, their weights drawn from a generator that is the same everywhere."""
    from tiny_models import SIZES, build_tokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

    folder = tempfile.TemporaryDirectory(prefix="golden-")
    tokenizer = build_tokenizer()
    common = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    models = {
        "llama": LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=True)),
        "neox": GPTNeoXForCausalLM(GPTNeoXConfig(**common, tie_word_embeddings=False)),
    }
    for name, model in models.items():
        _draw_weights(model)
        model.save_pretrained(Path(folder.name, name))
        tokenizer.save_pretrained(Path(folder.name, name))
    return folder


def _draw_weights(model: Any) -> None:
    import numpy
    import torch

    generator = numpy.random.RandomState(0)
    for name, weights in model.named_parameters():
        if "norm" not in name:
            drawn = generator.uniform(-WEIGHTS_WITHIN, WEIGHTS_WITHIN, size=tuple(weights.shape)).astype("float32")
            weights.data.copy_(torch.from_numpy(drawn))


@functools.cache
def _environment_text() -> str:
    from torch.utils.collect_env import get_pretty_env_info

    return str(get_pretty_env_info())


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Work in a new folder with the models, the inputs and an empty cache, so that no path but relative ones is kept."""
    from tiny_models import PARAGRAPH

    shutil.copytree(INPUTS, folder / "inputs", ignore=shutil.ignore_patterns("__pycache__"))
    write(folder / "inputs" / "train.txt", PARAGRAPH)
    for model in Path(_models().name).iterdir():
        (folder / model.name).symlink_to(model)
    environment = {"HARNESS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    before = os.getcwd()
    os.chdir(folder)
    try:
        # lm-eval asks pip what is installed in every run, which takes longer than the run.
        asked = mock.patch("torch.utils.collect_env.get_pretty_env_info", return_value=_environment_text())
        with mock.patch.dict(os.environ, environment), asked:
            os.environ.pop("HARNESS_TOOL_DATA", None)
            yield
    finally:
        os.chdir(before)


def write(file: Path, text: str) -> None:
    """Write a file into a folder that need not be there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Keep seven digits of floats, which is more than is compared."""
    if isinstance(value, dict):
        return {key: _rounded(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_rounded(below) for below in value]
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d{7,}", value):
        return f"{float(value):.6f}"
    return value


def _readable(value: Any, indent: str = "") -> str:
    """Write JSON with what fits on one line on one line, and short texts side by side."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= 180 or not isinstance(value, dict | list):
        return flat
    if isinstance(value, list) and all(isinstance(below, str) and len(below) == 4 for below in value):
        rows = [", ".join(map(json.dumps, value[start : start + 14])) for start in range(0, len(value), 14)]
        return "[" + f",\n{indent} ".join(rows) + "]"
    if isinstance(value, list):
        return "[" + f",\n{indent} ".join(_readable(below, indent + " ") for below in value) + "]"
    pairs = [f"{json.dumps(key)}: {_readable(below, indent + ' ')}" for key, below in value.items()]
    return "{" + f",\n{indent} ".join(pairs) + "}"


def main(words: list[str]) -> int:
    """Write the golden files, or say what differs."""
    command, *parts = words or [""]
    if command not in {"--write", "--check"} or not set(parts) <= PARTS.keys():
        print(f"python tests/test_golden_run.py --write|--check [{'|'.join(PARTS)} ...]", file=sys.stderr)
        return 2
    status = 0
    for part in parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            workplace = Path(folder, "work")
            if command == "--check":
                found = differences_of(part, workplace)
                print(f"{part}: {len(found)} values differ", *found, sep="\n  ")
                status |= bool(found)
                continue
            with _working_in(workplace):
                now = PARTS[part]()
            text = _readable(_rounded(now)) + "\n"
            write(GOLDEN / f"{part}.json", text)
            print(f"{part}: {len(text.encode()):,} bytes")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
