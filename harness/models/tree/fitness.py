"""May this model be scored as a tree of tokens? First by what is known of its kind, then by trying it.

Everything that is not plain causal attention with one place per token is refused, and goes lm-eval's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.head import Head, difference, reading
from harness.models.refused import Refused
from harness.models.tree.attention import Trunk, attention_of, route
from harness.models.tree.generation import generate
from harness.models.tree.memory import is_out_of_memory
from harness.models.tree.prompts import NotANumber, Prompt
from harness.models.tree.scoring import TreeModel
from harness.models.tree.tree_attention import TreeAttention
from harness.models.tree.trie import Trie, plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.tree.trie import Ints, Pack
    from harness.models.tree.work import Work

Tensor = torch.Tensor
KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
KNOWN_PACKAGES = frozenset({"transformers", "torch", "peft", "bitsandbytes", "accelerate"})
# Tokens the try-out needs: enough for a stem, a trunk and branches.
PROBE_TOKENS = 15
# Rows from which is learnt what the model does to its logits.
HEAD_ROWS = 8
# The largest difference of centred logits, relative to their size, that rounding explains.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
LOW_PRECISION_TOLERANCE = 0.05
# Beyond this nothing is put down to rounding, in more than 16 bits beyond ten times the usual: what looks at padding would
# excuse itself otherwise. Tokens that see one they must not differ by more.
MOST_TOLERANCE = 0.3
# The longest text that is scored in layers with a sliding window.
WINDOWED_TOKENS = 8192


@dataclass
class Fit:
    """A model that may be scored as a tree.

    ``most_tokens``: longer requests must not be (None: no limit). ``window``: the shortest sliding window, which the
    try-out is to be repeated for once a request is longer.
    """

    tree_model: TreeModel
    most_tokens: int | None
    window: int | None


def fit(
    model: PreTrainedModel,
    call: Callable[[Tensor], Tensor],
    token_ids: Sequence[int],
    *,
    work: Work,
    autocast: Callable[[], Any],
) -> Fit:
    """Return how ``model`` may be scored.

    Args:
        call: the plain forward pass, (B, T) ids to (B, T, V) logits.
        token_ids: some tokens to try it with.

    Raises:
        Refused: it may not; the message says why, to be read after "because".
    """
    config = model.config.get_text_config()
    check_kind(model, config)
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int):
        raise Refused("its configuration does not say how many layers it has")
    tree_model = TreeModel(model, Head(model, autocast), layers=layers, work=work, autocast=autocast)
    windows = _try(tree_model, call, _probe(token_ids, len(model.get_input_embeddings().weight)))
    window = _configured_window(config)
    most = rope_limit(config)
    if window is not None and not windows:
        most = window if most is None else min(most, window)
    if windows:  # who sees whom is then a table of a pass by itself
        most = WINDOWED_TOKENS if most is None else min(most, WINDOWED_TOKENS)
    return Fit(tree_model, most, min(windows, default=None))


def check_long(found: Fit, call: Callable[[Tensor], Tensor], token_ids: Sequence[int]) -> None:
    """Try a text longer than the model's sliding window. Raises ``Refused`` when the answers differ."""
    assert found.window is not None
    size = len(found.tree_model.model.get_input_embeddings().weight)
    ids = _varied(token_ids, size, found.window + 2 * PROBE_TOKENS)
    _try(found.tree_model, call, [ids, ids[: len(ids) - 12] + ids[:12]], last=16)


def check_generation(found: Fit, call: Callable[[Tensor], Tensor], token_ids: Sequence[int]) -> None:
    """Try generating a few tokens. Raises ``Refused`` when plain logits do not have them as the likeliest."""
    tree_model = found.tree_model
    size = len(tree_model.model.get_input_embeddings().weight)
    texts: dict[int, list[int]] = {}

    def keep(number: int, _: Prompt, generated: list[int]) -> None:
        texts[number] = generated

    probe = _probe(token_ids, size)
    prompts = [Prompt(sequence, 3, lambda _: False) for sequence in probe]
    try:
        generate(tree_model, prompts, rows=8, budget=10 * PROBE_TOKENS, on_done=keep)
    except (Refused, NotANumber):
        raise Refused("its logits are not numbers while it generates") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise Refused(f"trying to generate ended in {type(error).__name__}: {str(error)[:150]}") from error
    written = [[*sequence, *texts[number]] for number, sequence in enumerate(probe)]
    rows = [np.arange(len(text) - 1, len(ids) - 1) for text, ids in zip(probe, written, strict=True)]
    logits = _hidden(tree_model, call, [ids[:-1] for ids in written], rows)[1].to(tree_model.head.wide)
    tokens = torch.tensor([token for number in range(len(probe)) for token in texts[number]], device=logits.device)
    chosen = logits.gather(-1, tokens[:, None])[:, 0]
    # As near to the likeliest as rounding may have brought another one.
    size_of = (logits - logits.mean(-1, keepdim=True)).square().mean(-1).sqrt()
    if bool((logits.amax(-1) - chosen > 4 * _tolerance(logits.dtype) * size_of).any()):
        raise Refused("the tokens it generates differ when prompts share what they have in common")


def check_kind(model: Any, config: Any) -> None:
    """Raise ``Refused`` for architectures whose answers depend on more than each token's own ancestors."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise Refused("it is an encoder-decoder")
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        raise Refused("it is spread over several devices")
    if getattr(model, "_is_stateful", False):
        raise Refused("its layers keep a state")
    other = sorted(set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS)
    if other:
        raise Refused(f"it has layers of type {', '.join(other)}")
    if getattr(config, "is_causal", True) is False or (
        getattr(config, "is_decoder", True) is False and _is_bert(config)
    ):
        raise Refused("its attention is not causal")
    if any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
        raise Refused("what its 8-bit layers give a token depends on what else is in the batch")
    adapter = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    if adapter is not None and adapter.is_prompt_learning:
        raise Refused("its adapter puts virtual tokens before the text")


def parts_of(model: torch.nn.Module) -> tuple[object, ...]:
    """Return what changes when a layer of ``model`` is exchanged, hooked or given another forward."""
    return tuple(
        (id(module), id(vars(module).get("forward")), *module._forward_hooks, *module._forward_pre_hooks)
        for module in model.modules()
    )


def has_hooks(part: torch.nn.Module) -> bool:
    """Return whether hooks see, and may change, what a part of a model is given or gives."""
    return bool(part._forward_hooks or part._forward_pre_hooks)


def has_other_forward(part: torch.nn.Module) -> bool:
    """Return whether a part's forward is not its class's; accelerate's own, which moves tensors, does not count."""
    return "forward" in vars(part) and not hasattr(part, "_hf_hook")


def check_parts(model: torch.nn.Module) -> None:
    """Raise ``Refused`` when a part of the model is not the libraries' own, and might look at more than one token."""
    for module in model.modules():
        package = type(module).__module__.split(".")[0]
        if package not in KNOWN_PACKAGES:
            raise Refused(f"its part {type(module).__name__} comes from {package} and is not declared plain causal")
        if has_other_forward(module):
            raise Refused(
                f"the forward of its part {type(module).__name__} was replaced and is not declared plain causal"
            )
        if has_hooks(module):
            raise Refused(f"its part {type(module).__name__} has hooks and is not declared plain causal")


def _is_bert(config: Any) -> bool:
    return "bert" in str(getattr(config, "model_type", ""))


def _try(
    tree_model: TreeModel,
    call: Callable[[Tensor], Tensor],
    sequences: Sequence[Sequence[int]],
    *,
    last: int | None = None,
) -> set[int]:
    """Compare both ways on ``sequences``, on their ``last`` rows; return the sliding windows that layers asked for.

    Raises:
        Refused: they differ, or the model does not accept what it is given.
    """
    try:
        return _compare(tree_model, call, sequences, last)
    except Refused:
        raise
    except Exception as error:  # whatever an architecture does not accept
        if is_out_of_memory(error):
            raise
        text = str(error).splitlines()[0][:150] if str(error) else ""
        raise Refused(f"trying it ended in {type(error).__name__}: {text}") from error


def _compare(
    tree_model: TreeModel, call: Callable[[Tensor], Tensor], sequences: Sequence[Sequence[int]], last: int | None
) -> set[int]:
    trie = Trie.build(sequences, [len(sequence) for sequence in sequences])
    rows = _rows(trie, last)
    plain, tolerance = _plainly(tree_model, call, sequences, rows)
    if bool(torch.isnan(plain).any()):
        raise Refused("its logits are not numbers")
    windows: set[int] = set()
    for packs in _plans(trie, is_long=last is not None):
        worst = difference(plain, _as_tree(tree_model, trie, packs, rows, windows))
        if not worst <= tolerance:
            most = MOST_TOLERANCE if tolerance >= LOW_PRECISION_TOLERANCE else 10 * tolerance
            tolerance = max(tolerance, min(most, 3 * _rounding(tree_model, call, sequences, rows, plain)))
        if not worst <= tolerance:
            raise Refused(
                f"its logits differ by {worst:.2g} of their size when requests share what they have in common"
            )
    return windows


def _rows(trie: Trie, last: int | None) -> list[Ints]:
    """Return the rows of each sequence that are compared: its last ones, or those that no sequence before it has.

    Of what it shares with these, two rows more are compared, which would differ if what comes later were seen.
    """
    if last is not None:
        return [np.arange(len(path) - last, len(path)) for path in trie.paths]
    rows, seen = [], np.empty(0, np.int64)
    for path in trie.paths:
        shared = int(np.isin(path, seen).sum())
        rows.append(np.arange(max(0, shared - 2), len(path)))
        seen = np.union1d(seen, path)
    return rows


def _plans(trie: Trie, *, is_long: bool) -> list[list[Pack]]:
    """Return ways to push ``trie`` that show the model all there is: stems, branches, trunks and what stands on them."""
    longest = int(trie.depth.max()) + 1
    if is_long:  # with everything as one unit, and with whatever is shared as trunks
        return [plan(trie, 10 * longest), plan(trie, longest, branch_tokens=0, trunk_cost=-1)]
    # The first beginning that is shared as a trunk; under it a stem with branches, and a text without any.
    return [plan(trie, 10 * longest, branch_tokens=len(trie) // 2, trunk_cost=-1)]


def _rounding(
    tree_model: TreeModel,
    call: Callable[[Tensor], Tensor],
    sequences: Sequence[Sequence[int]],
    rows: Sequence[Ints],
    plain: Tensor,
) -> float:
    """Return how far plain logits are from those of each text without padding, and of another attention kernel."""
    head = tree_model.head
    alone = [_hidden(tree_model, call, [text], [own])[0] for text, own in zip(sequences, rows, strict=True)]
    others = [head.logits(torch.cat(alone))]
    try:
        with attention_of(tree_model.model, "eager"):
            others.append(head.logits(_hidden(tree_model, call, sequences, rows)[0]))
    except Exception as error:  # not every model has it
        if is_out_of_memory(error):
            raise
    return max(difference(plain, other) for other in others)


def _plainly(
    tree_model: TreeModel,
    call: Callable[[Tensor], Tensor],
    sequences: Sequence[Sequence[int]],
    rows: Sequence[Ints],
) -> tuple[Tensor, float]:
    """Return the logits (R, V) of those rows, one text's after the other's, as the model itself makes them of a batch.

    The head learns on the way how the model makes them of its hidden states. Returned, too, is the largest difference
    that the precision of the logits explains.
    """
    hidden, logits = _hidden(tree_model, call, sequences, rows)
    tolerance = max(_tolerance(logits.dtype), _tolerance(tree_model.model.dtype))
    some = torch.linspace(0, len(hidden) - 1, min(len(hidden), HEAD_ROWS), device=hidden.device).long()
    tree_model.head.learn_finish(hidden[some], logits[some], tolerance)
    return logits.to(tree_model.head.wide), tolerance


def _hidden(
    tree_model: TreeModel,
    call: Callable[[Tensor], Tensor],
    sequences: Sequence[Sequence[int]],
    rows: Sequence[Ints],
) -> tuple[Tensor, Tensor]:
    """Return hidden states (R, width) before the head, and the model's own logits (R, V), of rows of a batch of texts.

    Texts are padded on the right with their own last token, which nothing before it sees.
    """
    longest = max(map(len, sequences))
    batch = torch.tensor([[*text, *[text[-1]] * (longest - len(text))] for text in sequences])
    wanted = torch.as_tensor(np.concatenate([number * longest + own for number, own in enumerate(rows)]))
    taken: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        taken.append(hidden.flatten(0, 1).index_select(0, wanted.to(hidden.device)))
        return taken[-1][None]

    with reading(tree_model.head.module, keep):
        logits = call(batch.to(tree_model.device))
    if len(taken) != 1:
        raise Refused("its output head is called more than once" if taken else "its output head is not called")
    return taken[0], logits[0]


def _tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE)


def _as_tree(tree_model: TreeModel, trie: Trie, packs: list[Pack], rows: Sequence[Ints], windows: set[int]) -> Tensor:
    """Return the logits (R, V) of rows of each sequence, by way of packs."""
    trunks: dict[int, Trunk] = {}
    wanted = np.concatenate([path[own] for path, own in zip(trie.paths, rows, strict=True)])
    distinct, place = np.unique(wanted, return_inverse=True)
    hidden_of: dict[int, Tensor] = {}
    for pack in packs:
        positions = pack.positions
        found = np.flatnonzero(np.isin(positions, distinct))
        attention = TreeAttention(pack, trie, trunks, tree_model.device)
        with route(tree_model.model, attention):
            hidden = tree_model.push(pack, trie, attention, found)
        windows |= attention.windows
        hidden_of |= dict(zip(positions[found].tolist(), hidden, strict=True))
    logits = tree_model.head.logits(torch.stack([hidden_of[position] for position in distinct.tolist()]))
    return logits[torch.as_tensor(place, device=logits.device)]


def _probe(token_ids: Sequence[int], size: int) -> list[list[int]]:
    """Return four short sequences: one leaves the others early, the others have a stem, a branch and a branch of it."""
    ids = _varied(token_ids, size, PROBE_TOKENS)
    stem = ids[:6]
    return [stem + ids[6:9], stem + ids[6:7] + ids[9:11], stem + ids[11:13], ids[:3] + ids[13:15]]


def _varied(token_ids: Sequence[int], size: int, count: int) -> list[int]:
    """Return ``count`` ids, each of ``token_ids`` once, others after them, and from the beginning again if need be."""
    ids = list(dict.fromkeys([*token_ids, *range(min(size, PROBE_TOKENS))]))
    return (ids * -(-count // len(ids)))[:count]


def _configured_window(config: Any) -> int | None:
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def rope_limit(config: Any) -> int | None:
    """Return the length up to which positions do not depend on the length of the text."""
    kinds = set(_rope_kinds(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)))
    if not kinds & {"dynamic", "longrope"}:
        return None
    parameters = getattr(config, "rope_parameters", None) or {}
    limit = getattr(config, "original_max_position_embeddings", None) or parameters.get(
        "original_max_position_embeddings"
    )
    return int(limit or config.max_position_embeddings)


def _rope_kinds(parameters: Any) -> Iterator[str]:
    if isinstance(parameters, dict):
        for name, value in parameters.items():
            if name in {"rope_type", "type"} and isinstance(value, str):
                yield value
            yield from _rope_kinds(value)
