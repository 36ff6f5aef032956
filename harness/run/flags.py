"""The flags that say what to run: lm-eval's own, and ours beside them."""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.arguments import parse_args
from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.run.run import Run
from harness.run.shard import Shard

# Flags of lm-eval that we do not take, and why.
REFUSED = {
    "use_cache": "its cache knows neither model nor method, so it would answer for the wrong one",
    "cache_requests": "its cache knows neither data nor prompts, so it would ask old questions",
    "write_out": "the prompts are in the sample files of any run",
    "predict_only": "its tasks have no score (lm-eval's bypass, 999 by definition), so there would be no record; the answers "
    "are in the sample files of any run",
    "check_integrity": "it runs lm-eval's own test suite; run `pytest` there",
    "show_config": "the configuration of each task is in the results file",
    "wandb_args": "records are the place for results here",
    "wandb_config_args": "records are the place for results here",
    "trackio_args": "records are the place for results here",
    "hf_hub_log_args": "nothing is published while evaluating",
    "max_batch_size": "--batch_size auto:N is understood, an upper bound is not",
}
UNTYPED = {"--gen_kwargs", "--metadata"}
KEY_VALUE = {"model_args", "method_args", "gen_kwargs", "metadata"}
# Those that a configuration may give several values at once, as a list.
LISTED = {"tasks", "include_path", "seed", "seeds"}
SWITCHES = {"trust_remote_code", "no_cache", "confirm_run_unsafe_code", "write_out", "with_baseline", "log_samples"}


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Declare which method runs on which model."""
    group = parser.add_argument_group("method")
    group.add_argument(
        "--plugin", metavar="NAME", help="plugin that brings the method and its tasks (`harness plugins`)"
    )
    group.add_argument("--method", metavar="NAME", help="which of its methods; `baseline` is the model as it is")
    group.add_argument(
        "--method_args",
        nargs="+",
        metavar="K=V",
        help="the method's options: k=v,k=v or JSON (`harness plugins NAME` lists them)",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        "-M",
        metavar="KIND",
        help="hf (default): a Hugging Face model; vllm: computed by vLLM, no methods "
        "(docs/vllm.md); encoder: makes vectors of texts (docs/embedding.md); tokenizer: no weights",
    )
    group.add_argument(
        "--model_args", "-a", nargs="+", metavar="K=V",
        help="pretrained=FOLDER or hub name or FILE.gguf, subfolder, tokenizer, revision, dtype, peft, max_length, "
        "prefix_token_id, add_bos_token, chat_template_args, attn_implementation, device_map ... (docs/scoring.md); "
        " without pretrained the embedded SmolLM2-135M-Instruct is used",
    )  # fmt: skip
    group.add_argument(
        "--quantization", metavar="KIND", help="none (default), int8 or nf4, by bitsandbytes, on CPU too"
    )
    group.add_argument("--device", metavar="DEVICE", help="cuda, cuda:1, cpu, mps; by default the best there is")
    group.add_argument(
        "--trust_remote_code", action="store_true", default=None, help="run code that comes with the model"
    )
    group.add_argument(
        "--seed", metavar="S", help="one seed for all, or python,numpy,torch,fewshot as lm-eval (default 0,1234,1234,1234); "
        "the first seeds the method",
    )  # fmt: skip
    group.add_argument("--no-cache", "--no_cache", dest="no_cache", action="store_true", default=None,
                       help="apply the method anew even if the same was done before")  # fmt: skip


def add_task_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what is asked and how, as ``lm_eval run`` spells it."""
    group = parser.add_argument_group("tasks (as in lm_eval run)")
    group.add_argument(
        "--tasks", "-t", nargs="+", metavar="TASK", help="names, groups, globs or YAML files, by comma or space"
    )
    group.add_argument("--num_fewshot", "-f", type=int, metavar="N", help="examples in the prompt")
    group.add_argument("--limit", "-L", type=float, metavar="N", help="documents per task; below 1 a share of them")
    group.add_argument("--samples", "-E", metavar="JSON", help="documents by number instead: '{\"task\": [0, 3]}'")
    group.add_argument(
        "--batch_size", "-b", metavar="N", help="requests at a time; auto (default): as many as are fast and fit"
    )
    group.add_argument(
        "--gen_kwargs",
        nargs="+",
        metavar="K=V",
        help="how text is generated, before what tasks say: max_gen_toks=64, until=[...], temperature=0.7 ...",
    )
    group.add_argument("--apply_chat_template", nargs="?", const=True, metavar="NAME", help="wrap prompts as chat")
    group.add_argument(
        "--fewshot_as_multiturn", nargs="?", const="true", metavar="BOOL", help="shots as turns of the chat"
    )
    group.add_argument("--system_instruction", metavar="TEXT", help="put before the prompt")
    group.add_argument("--include_path", action="append", metavar="DIR", help="another folder with task files")
    group.add_argument(
        "--metadata", nargs="+", metavar="K=V", help="for the tasks' own data: k=v or JSON, e.g. questions=50"
    )
    group.add_argument(
        "--confirm_run_unsafe_code", action="store_true", default=None, help="for tasks that run generated code"
    )
    group.add_argument(
        "--timeout_task",
        type=float,
        metavar="S",
        help="seconds one task may take; one that hangs is told, the next one asked",
    )
    group.add_argument(
        "--seeds",
        nargs="+",
        metavar="S",
        help="instead of --seed: a run with each of these, as so many commands would make",
    )
    group.add_argument(
        "--shard",
        metavar="K/N",
        help="answer the K-th of N parts: for one long task over several processes or machines with one --output_path; the "
        "last one makes the records",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_path", "-o", type=Path, metavar="DIR", help="folder for records and files (default results)"
    )
    group.add_argument("--log_samples", "-s", action=argparse.BooleanOptionalAction, default=None,
                       help="write every document, prompt and answer (default)")  # fmt: skip
    group.add_argument("--with_baseline", action="store_true", default=None, help="evaluate the untouched model first")
    group.add_argument(
        "--config", "-C", type=Path, metavar="FILE", help="YAML with any of these flags; the command line wins"
    )
    group.add_argument("--verbosity", "-v", metavar="LEVEL", help=argparse.SUPPRESS)
    for name in REFUSED:
        short = {"use_cache": ["-c"], "predict_only": ["-x"], "write_out": ["-w"]}.get(name, [])
        group.add_argument(f"--{name}", *short, nargs="*", help=argparse.SUPPRESS)


def to_runs(args: argparse.Namespace) -> list[Run]:
    """Return the runs that the flags, over those of ``--config``, describe: one, or with ``--seeds`` one for each of them.

    Raises:
        HarnessError: a flag we refuse, a malformed value, or a configuration file that cannot be used.
    """
    given = _given(args)
    words = given.pop("seeds", None)
    if words is None:
        run = run_of(given)
        if len(set(run.seeds)) == len(run.seeds):
            random, numpy, torch, shots = run.seeds
            print(
                f"--seed {given['seed']} is one run: seed {random} for Python and the method, {numpy} for NumPy, {torch} for "
                f"Torch, {shots} for few-shot examples (--seeds {given['seed']} makes a run with each)",
                file=sys.stderr,
            )
        return [run]
    if "seed" in given:
        raise HarnessError("--seed and --seeds exclude each other; give one of them")
    return [run_of(given | {"seed": seed}) for seed in several(words)]


def to_run(args: argparse.Namespace) -> Run:
    """Return the one run that the flags, over those of ``--config``, describe.

    Raises:
        HarnessError: as ``to_runs``, or there are several.
    """
    given = _given(args)
    if "seeds" in given:
        raise HarnessError("--seeds makes several runs, and here is place for one; give --seed")
    return run_of(given)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, on the command line or else in its configuration file."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    configured = _from_config(given.pop("config", None))
    for name, other in (("seed", "seeds"), ("seeds", "seed")):
        if name in given:
            configured.pop(other, None)
    return configured | given


def run_of(given: Mapping[str, Any]) -> Run:
    """Return the run that flags describe, each as the command line's parser gives it (``parsed``).

    Raises:
        HarnessError: a flag we refuse, or a malformed value.
    """
    given = dict(given)
    for name, why in REFUSED.items():
        if given.pop(name, None) is not None:
            raise HarnessError(f"--{name} is not taken: {why}")
    for name in ("execute", "debug", "verbosity", "output", "dry_run", "json"):
        given.pop(name, None)
    for name in KEY_VALUE & set(given):
        given[name] = key_values(given[name], flag=f"--{name}")
    if given.pop("trust_remote_code", False):
        given["model_args"] = given.get("model_args", {}) | {"trust_remote_code": True}
    if "seed" in given:
        given["seeds"] = _seeds(given.pop("seed"))
    converted = {name: _CONVERTERS[name](value) for name, value in given.items() if name in _CONVERTERS}
    return Run(**({"tasks": ()} | given | converted))


def _from_config(path: Path | None) -> dict[str, Any]:
    """Return the flags in a YAML file, parsed by the rules of the command line, so that one value has one meaning."""
    if path is None:
        return {}
    import yaml

    shown = printable(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"--config '{shown}' cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise HarnessError(
            f"--config '{shown}' does not parse{where}: {printable(str(error).splitlines()[0])}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise HarnessError(f"--config '{shown}' has to hold flags as `name: value`")
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name not in configurable():
            raise HarnessError(
                f"--config has '{printable(name)}', which is no flag; {suggestion(name, configurable())}"
            )
        try:
            found |= parsed(name, value)
        except HarnessError as error:
            raise HarnessError(f"--config '{shown}': {error}") from error
    return found


@functools.cache
def configurable() -> Mapping[str, argparse.Action]:
    """Return the flags that a configuration may give, by the names they have there."""
    return {action.dest: action for action in _config_parser()._actions if action.dest != "config"}


def parsed(name: str, value: Any) -> dict[str, Any]:
    """Return what ``name: value`` of a configuration says, as the command line's parser gives it; nothing for a null.

    Raises:
        HarnessError: the flag takes no such value.
    """
    return {
        name: given
        for name, given in vars(_config_parser().parse_args(_words(name, value))).items()
        if given is not None
    }


class _ConfigParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise HarnessError(printable(message))


@functools.cache
def _config_parser() -> _ConfigParser:
    parser = _ConfigParser(add_help=False, allow_abbrev=False)
    add_method_flags(parser)
    add_task_flags(parser)
    return parser


def _words(name: str, value: Any) -> list[str]:
    """Return the words of the command line that say the same as ``name: value`` in a configuration."""
    is_switch = name in SWITCHES
    if value is None or (value is False and name != "log_samples" and (is_switch or name == "apply_chat_template")):
        return []
    if is_switch and isinstance(value, bool):
        return [f"--{name}"] if value else ["--no-log_samples"]
    if value is True and name == "apply_chat_template":
        return ["--apply_chat_template"]
    if isinstance(value, Mapping):
        if name not in KEY_VALUE | {"samples"}:
            raise HarnessError(f"there is a mapping for '{name}', which takes none")
        value = json.dumps(value, default=str)
    if isinstance(value, list):
        if name not in LISTED or not all(isinstance(part, str | int) for part in value):
            raise HarnessError(f"there is a list for '{name}', which takes none")
        if name == "include_path":
            return [f"--{name}={part}" for part in value]
        value = ",".join(str(part) for part in value)
    return [f"--{name}={value}"]


def key_values(words: Sequence[str], *, flag: str) -> dict[str, Any]:
    """Return the pairs of one flag, which may be given as several words; none of them twice."""
    merged: dict[str, Any] = {}
    for word in words:
        pairs = parse_args(word, flag=flag)
        for name in merged.keys() & pairs.keys():
            raise HarnessError(f"{flag} gives '{printable(name)}' twice")
        merged |= pairs if word.lstrip().startswith("{") or flag not in UNTYPED else _literals(pairs)
    for name, value in merged.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise HarnessError(f"{flag} {printable(name)} is {value}, where a finite number is due")
    return merged


def _literals(pairs: Mapping[str, str]) -> dict[str, Any]:
    return {name: _literal(value) for name, value in pairs.items()}


def _literal(value: str) -> Any:
    """Return a number, boolean or JSON value where the text is one: these flags have no types to convert to."""
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return value


def _task_names(words: Sequence[str]) -> tuple[str, ...]:
    """Return the names between the commas; those in braces give alternatives."""
    names = (name.strip() for word in words for name in re.split(r",(?![^{}]*\})", str(word)))
    return tuple(name for name in names if name)


def _seeds(value: str) -> tuple[int | None, ...]:
    words = [word.strip() for word in value.split(",")]
    seeds = [None if word.lower() == "none" else _seed(word) for word in words]
    if len(seeds) not in {1, 4} or -1 in seeds:
        # lm-eval takes three, too, and shares them out among generators: no run would have the second one alone.
        hint = "" if len(seeds) == 1 or {-1, None} & set(seeds) else f"; --seeds {value} makes a run with each"
        raise HarnessError(
            f"--seed '{printable(value)}' is neither one whole number from 0 to 2^32-1 nor four of them by comma, of "
            f"Python, NumPy, Torch and few-shot examples{hint}"
        )
    return tuple(seeds * 4 if len(seeds) == 1 else seeds)


def several(words: Sequence[str]) -> list[str]:
    """Return the seeds of several runs. Raises ``HarnessError`` where they are none, or one is there twice."""
    seeds = [part.strip() for word in words for part in word.split(",")]
    numbers = [_seed(seed) for seed in seeds]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        raise HarnessError(
            f"--seeds '{printable(' '.join(words))}' has to be whole numbers from 0 to 2^32-1 by comma, none of them twice"
        )
    return [str(number) for number in numbers]


def _seed(word: str) -> int:
    """Return the seed that a word is, -1 where it is none."""
    return int(word) if re.fullmatch("[0-9]{1,10}", word) and int(word) < 2**32 else -1


def _batch_size(value: str) -> int | str:
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else value


def _samples(value: str) -> dict[str, list[int]]:
    try:
        samples = json.loads(value)
    except ValueError as error:
        raise HarnessError(f"--samples is not valid JSON: {error}") from error
    is_good = isinstance(samples, dict) and bool(samples) and all(_are_numbers(numbers) for numbers in samples.values())
    if not is_good:
        raise HarnessError('--samples takes a JSON object of document numbers: {"task": [0, 3]}, none of them twice')
    return dict(samples)


def _are_numbers(numbers: Any) -> bool:
    if not isinstance(numbers, list) or not numbers or any(type(n) is not int or n < 0 for n in numbers):
        return False
    return len(set(numbers)) == len(numbers)


def _truth(value: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in known:
        raise HarnessError(f"--fewshot_as_multiturn is '{printable(value)}', where true or false is due")
    return known[value.lower()]


_CONVERTERS: dict[str, Any] = {
    "tasks": _task_names,
    "batch_size": _batch_size,
    "samples": _samples,
    "fewshot_as_multiturn": _truth,
    "include_path": tuple,
    "shard": Shard.of,
}
