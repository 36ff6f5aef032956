"""The parts of ``on_gpu.py``: each finds something out on one device and tells it as it goes."""

from __future__ import annotations

import gc
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import on_gpu_models as models
import scoring
import torch
from scoring_cases import Cases, read_questions

from harness.methods import adapters, gradients, training
from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.loading import load_lm, pick_device
from harness.models.tree import attention
from harness.models.tree.memory import Budget, bytes_per_token, cache_bytes_per_token
from harness.run.environment import measured_peak

GIB = 1 << 30
HALVES = (torch.bfloat16, torch.float16)
# A sum of log-probabilities in float32, of a few tokens; and how much further from float32 than plain answers ours may be.
TOLERANCE, MOST_RATIO = 1e-3, 2.0


class Absent(Exception):
    """A part cannot run here; the message says what is missing."""


class Place:
    """The device of a part, the share of all sizes, and where to tell what was found.

    ``write(kind, name, ok=..., **values)`` takes kind ``check`` or ``figure``.
    """

    def __init__(self, device: str | None, scale: float, write: Callable[..., None]) -> None:
        self.device, self.scale, self._write = torch.device(pick_device(device)), scale, write

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU of NVIDIA's, or one that torch calls so."""
        return self.device.type == "cuda"

    @property
    def halves(self) -> tuple[torch.dtype, ...]:
        """The types of 16 bits that are tried: on a CPU the one that it is not slow with."""
        return HALVES if self.is_cuda else HALVES[:1]

    def check(self, name: str, /, ok: bool, **values: Any) -> None:
        """Tell of something that has to hold."""
        self._write("check", name, ok=ok, **values)

    def figure(self, name: str, /, **values: Any) -> None:
        """Tell of something that was measured."""
        self._write("figure", name, **values)

    def count(self, whole: int, least: int = 1) -> int:
        """Return a count at this scale."""
        return max(least, round(whole * self.scale))

    def wait(self) -> None:
        """Wait until the device has done what it was told."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def device(place: Place) -> None:
    """What is here, and whether it computes."""
    product = torch.ones(64, 64, device=place.device) @ torch.ones(64, 64, device=place.device)
    place.check("a product", bool((product == 64).all()))
    if place.is_cuda:
        told = torch.cuda.get_device_properties(place.device)
        free, total = torch.cuda.mem_get_info(place.device)
        place.figure("device", name=told.name, capability=f"{told.major}.{told.minor}", free_gib=free / GIB,
                     total_gib=total / GIB, cuda=torch.version.cuda, tf32=torch.backends.cuda.matmul.allow_tf32)  # fmt: skip
    else:
        place.figure("device", name=str(place.device), threads=torch.get_num_threads())
    for dtype in (torch.float32, *HALVES) if place.is_cuda else ():
        place.figure(f"products in {_name(dtype)}", tflops=scoring.multiply_rate(place.device, dtype) / 1e12)


def kernels(place: Place) -> None:
    """Our attention with its log-sum-exp, of every kind we ask for, against float64; and how fast it is."""
    for dtype in (torch.float32, *place.halves):
        for width in (64, 80, 128):
            for kind in ("whole", "causal", "biased"):
                error, error_of_sums = _kernel_error(place, dtype, width, kind)
                most = 1e-4 if dtype is torch.float32 else 0.03
                place.check(f"attend, {_name(dtype)}, {width} wide, {kind}", max(error, error_of_sums) <= most,
                            error=error, error_of_sums=error_of_sums)  # fmt: skip
    size = place.count(2048, 64)
    for dtype in (torch.float32, *place.halves):
        query, key, value = (torch.randn(1, 16, size, 64, device=place.device, dtype=dtype) for _ in range(3))
        how = attention.How(scale=0.125)
        for needs_sum in (True, False):
            seconds = _seconds(
                place, partial(attention.attend, query, key, value, how, is_causal=True, needs_sum=needs_sum)
            )
            flops = 4 * 16 * size * size * 64 / 2
            place.figure(f"attend, {_name(dtype)}, {size} causal, {'with' if needs_sum else 'without'} sums",
                         milliseconds=1e3 * seconds, tflops=flops / seconds / 1e12)  # fmt: skip


def _kernel_error(place: Place, dtype: torch.dtype, width: int, kind: str) -> tuple[float, float]:
    torch.manual_seed(0)
    queries, keys = 37, 37 if kind == "causal" else 53
    query, key, value = (torch.randn(2, 3, n, width, device=place.device).to(dtype) for n in (queries, keys, keys))
    how = attention.How(scale=width**-0.5)
    hidden = torch.zeros(queries, keys, dtype=torch.bool, device=place.device)
    bias = None
    if kind == "causal":
        hidden = ~torch.ones_like(hidden).tril()
    elif kind == "biased":
        hidden = torch.rand(queries, keys, device=place.device) < 0.3
        bias = attention.hide(hidden, dtype)[None, None]
    result, sums = attention.attend(query, key, value, how, bias=bias, is_causal=kind == "causal")
    scores = (query.double() @ key.double().transpose(-1, -2) * how.scale).masked_fill(hidden, -math.inf)
    expected = scores.softmax(-1) @ value.double()
    assert sums is not None
    return float((result - expected).abs().max()), float((sums - scores.logsumexp(-1)).abs().max())


def sharing(place: Place) -> None:
    """Answers that share beginnings against plain ones: equal in float32; in 16 bits no further from float32 than these."""
    tokenizer = models.tokenizer(place)
    for name, build in models.ARCHITECTURES.items():
        exact = build(len(tokenizer)).to(place.device)
        asked = models.requests(place.count(12, 3))
        reference = models.answers(CausalLM(exact, tokenizer, share_prefixes=False), asked)
        for dtype in (torch.float32, *place.halves):
            label = f"{name}, {_name(dtype)}"
            try:
                _compare(place, label, build(len(tokenizer)).to(place.device, dtype), tokenizer, asked, reference)
            except Exception as error:
                place.check(label, ok=False, error=f"{type(error).__name__}: {str(error)[:300]}")


def _compare(place: Place, label: str, model: Any, tokenizer: Any, asked: Any, reference: Any) -> None:
    lm = CausalLM(model, tokenizer)
    ours, plain = models.answers(lm, asked), models.answers(CausalLM(model, tokenizer, share_prefixes=False), asked)
    apart = models.largest(ours, plain)
    texts = sum(a == b for a, b in zip(ours.texts, plain.texts, strict=True))
    values: dict[str, Any] = {"difference": apart, "equal_texts": texts, "texts": len(plain.texts)}
    is_shared = lm.work.reason is None and lm.work.plain_tokens == 0
    if model.dtype is torch.float32:
        ok = is_shared and apart <= TOLERANCE and ours.greedy == plain.greedy and texts == len(plain.texts)
    else:
        own, other = models.spread(ours, reference), models.spread(plain, reference)
        values |= {"from_float32": own, "plain_from_float32": other}
        ok = own <= MOST_RATIO * other + TOLERANCE  # where rounding sends tokens to other experts, nothing is shared
    place.check(label, ok, **values, **({} if is_shared else {"not_shared": lm.work.reason or "some requests"}))


def train(place: Place) -> None:
    """Steps in parts give the losses of whole steps; what memory they take; half as much at a time after it ran out."""
    tokenizer = models.tokenizer(place)
    whole, peak_whole, seconds_whole = _steps(place, tokenizer, torch.float32, tokens=1 << 20)
    place.figure("float32, whole steps", peak_mb=peak_whole / 1e6, seconds=seconds_whole, losses=whole[-2:])
    parts, peak, seconds = _steps(place, tokenizer, torch.float32, tokens=place.count(512, 64))
    apart = max(abs(a - b) for a, b in zip(whole, parts, strict=True))
    place.check("float32, steps in parts", apart <= 1e-4, difference=apart, peak_mb=peak / 1e6, seconds=seconds)
    for dtype in place.halves:
        found, peak, seconds = _steps(place, tokenizer, dtype, tokens=place.count(512, 64))
        apart = max(abs(a - b) for a, b in zip(whole, found, strict=True))
        place.check(f"{_name(dtype)}, steps in parts", apart <= 0.1, difference_to_float32=apart, peak_mb=peak / 1e6,
                    seconds=seconds)  # fmt: skip
    if place.is_cuda:
        with _memory_limit(place, int(0.7 * peak_whole)):
            found, peak, seconds = _steps(place, tokenizer, torch.float32, tokens=1 << 20)
        apart = max(abs(a - b) for a, b in zip(whole, found, strict=True))
        place.check("memory runs out in a step", apart <= 1e-4 and len(found) == len(whole), difference=apart,
                    peak_mb=peak / 1e6)  # fmt: skip
    if importlib.util.find_spec("bitsandbytes") is None:
        place.figure("nf4", absent="bitsandbytes is not installed")
        return
    with models.saved(place, tokenizer) as folder:
        lm: Any = load_lm(
            resolve({"pretrained": str(folder)}, quantization="nf4"), device=str(place.device), batch_size=1
        )
        found, peak, seconds = _steps_of(place, lm.model, place.count(512, 64))
    place.check("LoRA on nf4", all(map(math.isfinite, found)) and found[-1] < found[0], first=found[0], last=found[-1],
                peak_mb=peak / 1e6, seconds=seconds)  # fmt: skip


def _steps(place: Place, tokenizer: Any, dtype: torch.dtype, *, tokens: int) -> tuple[list[float], int, float]:
    return _steps_of(place, models.middling(place, len(tokenizer)).to(place.device, dtype), tokens)


def _steps_of(place: Place, model: Any, tokens: int) -> tuple[list[float], int, float]:
    """Return the losses of a few LoRA steps of eight rows, the peak of memory, and seconds."""
    gc.collect()
    gradients.CPU_TOKENS = gradients.DEVICE_TOKENS = tokens
    length, width = place.count(512, 32), model.config.vocab_size
    draw = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(0, width, (int(length * share),), generator=draw).tolist()
        for share in (1, 1, 0.9, 0.8, 0.5, 0.5, 0.3, 0.2)
    ]
    batch = training.pad([(row, row) for row in rows])
    adapted = adapters.add_adapter(model, rank=8, alpha=16, target_modules=["all-linear"], seed=0)
    started = time.perf_counter()
    with measured_peak(str(place.device)) as peak:
        log = training.train(adapted, [batch] * 6, steps=6, learning_rate=1e-3, warmup_steps=1, label="Training")
    place.wait()
    return log.losses, peak.bytes or 0, time.perf_counter() - started


@contextmanager
def _memory_limit(place: Place, size: int) -> Iterator[None]:
    """Let this process have no more than ``size`` bytes of the device."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(place.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), place.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place.device)


def quantised(place: Place) -> None:
    """4-bit and 8-bit weights: answers that share against plain ones, and memory."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Absent("bitsandbytes is not installed")
    tokenizer, asked = models.tokenizer(place), models.requests(place.count(8, 2))
    with models.saved(place, tokenizer) as folder:
        for kind in ("none", "nf4", "int8"):
            source = resolve(
                {"pretrained": str(folder), "dtype": "bfloat16" if place.is_cuda else "float32"}, quantization=kind
            )
            with measured_peak(str(place.device)) as peak:
                lm: Any = load_lm(source, device=str(place.device), batch_size="auto")
                ours = models.answers(lm, asked)
            plain = models.answers(CausalLM(lm.model, lm.tokenizer, share_prefixes=False), asked)
            if kind == "none":
                reference = ours
            apart, moved = models.spread(ours, plain), models.spread(ours, reference)
            is_right = (lm.work.reason is None) == (kind != "int8")
            place.check(kind, is_right and apart <= 0.5 * max(1.0, moved), from_plain=apart, from_full_weights=moved,
                        peak_mb=(peak.bytes or 0) / 1e6, way=lm.work.reason or "shared")  # fmt: skip


def auto(place: Place) -> None:
    """``--batch_size auto`` with billions of random weights in 16 bits: does it fit, and how much of the memory is used."""
    tokenizer = models.tokenizer(place)
    model, billions = models.large(place, len(tokenizer))
    cases = Cases(read_questions(None), scale=place.scale, limit=place.count(64, 4))
    shots = cases.shots(cases.questions[:5])
    asked = {
        "choices": cases.choices(48, lambda _: models.WORDED, lambda _: shots),
        "texts": cases.generation(24, shots),
    }
    lm, budget = CausalLM(model, tokenizer, batch_size="auto"), Budget(model)
    place.figure("model", billions=billions, dtype=_name(model.dtype), tokens=budget.tokens, rows=budget.rows,
                 kb_per_token=bytes_per_token(model) / 1e3, cache_kb_per_token=cache_bytes_per_token(model) / 1e3)  # fmt: skip
    for name, requests in asked.items():
        lm.start_counting()
        with measured_peak(str(place.device)) as peak:
            seconds, _ = scoring._timed(lm, requests)
        place.check(name, lm.work.plain_tokens == 0, seconds=seconds, pushed=lm.work.pushed_tokens,
                    peak_mb=(peak.bytes or 0) / 1e6, forwards=lm.work.forwards,
                    way=lm.work.reason or "shared")  # fmt: skip
    if place.is_cuda:
        _auto_when_short(place, model, tokenizer, asked["choices"])


def _auto_when_short(place: Place, model: Any, tokenizer: Any, requests: Any) -> None:
    """Ask again with little more memory than the weights take, and a budget that knows nothing of it."""
    lm = CausalLM(model, tokenizer, batch_size="auto")
    halved: list[int] = []
    shrink = Budget.shrink

    def told(budget: Budget, error: BaseException) -> None:
        shrink(budget, error)
        halved.append(budget.tokens)

    Budget.shrink = told  # type: ignore[method-assign]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    with _memory_limit(place, int(weights + max(0.3 * GIB, 0.05 * weights))):
        seconds, answers = scoring._timed(lm, requests)
    place.check("memory is short", len(answers) == len(requests), seconds=seconds,
                tokens_at_a_time=[Budget(model).tokens, *halved])  # fmt: skip


def score(place: Place) -> None:
    """The scoring table: ours against ``HFLM``, in float32 with equal answers, then with a larger model in 16 bits."""
    tokenizer = models.tokenizer(place)
    cases = Cases(read_questions(None), scale=place.scale, limit=place.count(256, 4)).main()
    _table(place, "float32", CausalLM(models.default(place, len(tokenizer)), tokenizer), cases)
    if place.is_cuda:
        scoring.check_equal = _differences  # 16 bits are not equal to the digit
        _table(place, "bfloat16", CausalLM(models.billion(place, len(tokenizer)), tokenizer), cases)


def _table(place: Place, label: str, lm: CausalLM, cases: dict[str, Any]) -> None:
    rate = scoring.multiply_rate(lm.device, lm.model.dtype) if place.is_cuda else math.nan
    for name, requests in cases.items():
        try:
            row = scoring.measure(name, requests, lm, rounds=1, rate=rate, batch_sizes=[16 if place.is_cuda else 4])
        except (Exception, SystemExit) as error:
            place.check(f"{label}: {name}", ok=False, error=f"{type(error).__name__}: {str(error)[:300]}")
            continue
        place.check(f"{label}: {name}", ok=True, HFLM=row.theirs, ours=row.ours, ratio=row.ratio, bound=row.bound,
                    share=row.share, arithmetic=row.arithmetic, difference=row.difference, mb=row.peak_ours / 1e6,
                    their_mb=row.peak_theirs / 1e6, way=lm.work.reason or "shared")  # fmt: skip


def _differences(name: str, ours: Any, theirs: Any) -> float:
    """Stand in for ``scoring.check_equal``: the largest difference of sums, texts left out."""
    sums = [(a if isinstance(a, tuple) else (a,))[0] for a in ours if not isinstance(a, str)]
    others = [(a if isinstance(a, tuple) else (a,))[0] for a in theirs if not isinstance(a, str)]
    return max((abs(a - b) for a, b in zip(sums, others, strict=True)), default=0.0)


def _seconds(place: Place, call: Callable[[], Any]) -> float:
    """Return the least seconds of several calls."""
    call()
    place.wait()
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        call()
        place.wait()
        best = min(best, time.perf_counter() - started)
    return best


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


PARTS: dict[str, Callable[[Place], None]] = {
    "device": device, "kernels": kernels, "sharing": sharing, "training": train, "quantised": quantised, "auto": auto,
    "scoring": score,
}  # fmt: skip
