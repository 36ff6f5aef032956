"""Tool rows as one safetensors file: rows, prior, and all that tells whose they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.methods.hidden_states import Frozen
from harness.models.identity import fingerprint_of
from harness.names import printable
from harness.progress import say

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
    from harness_tool_tokens.tools.toolbox import Toolbox

Tensor = torch.Tensor
FORMAT = "harness tool rows 1"


@dataclass(frozen=True)
class ToolRows:
    """Rows of the output head, one per tool, with where they come from.

    Attributes:
        rows, prior: (K, D) float32, in the order of ``tools``.
        tools: key, name, description and arity of each.
        bias: what to add to every tool logit.
        model: name of the base model; head: fingerprint of its output head.
        settings: of prior, penalty and training, as JSON values.
        training_rows: digest of the rows of text, empty for untrained ones.
        trained_on: ``text_digest`` of each text, and of what stands in it before the first call.
        missing: keys of tools that the file had no rows for; theirs are zeros until ``filled``.
    """

    rows: Tensor
    prior: Tensor
    tools: tuple[dict[str, str], ...]
    bias: float = 0.0
    model: str = ""
    head: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    training_rows: str = ""
    trained_on: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, lm: CausalLM, toolbox: Toolbox, rows: Tensor, prior: Tensor, **more: Any) -> ToolRows:
        """Return rows for the tools of a toolbox and the model of an LM; ``more`` are the other fields."""
        return cls(
            rows, prior, described(toolbox), model=more.pop("model", model_name(lm)), head=head_fingerprint(lm), **more
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; equal rows make equal bytes.

        Raises:
            HarnessError: it cannot be written.
        """
        from safetensors.torch import save

        content = asdict(replace(self, rows=torch.empty(0), prior=torch.empty(0)))
        known = {name: value for name, value in content.items() if name not in {"rows", "prior", "missing"}}
        known |= {"format": FORMAT, "width": self.rows.shape[1]}
        tensors = {name: getattr(self, name).detach().float().cpu().clone() for name in ("rows", "prior")}
        # One entry, since safetensors does not keep several in order.
        metadata = {"tool_rows": json.dumps(known, sort_keys=True, ensure_ascii=False)}
        try:
            write_atomic(path, save(tensors, metadata=metadata))
        except OSError as error:
            raise HarnessError(
                f"tool rows cannot be written to {printable(path)}: {error.strerror or error}"
            ) from error

    @classmethod
    def load(cls, path: Path, *, lm: CausalLM, toolbox: Toolbox) -> ToolRows:
        """Return the rows of a file for the tools of a toolbox, matched by key and in its order.

        Rows for tools that are not in the toolbox are left out; tools without a row are in ``missing``. Both are said,
        and so is an output head that is not the one the rows were made for.

        Raises:
            HarnessError: no such file, one of another kind, rows of another width, or none for these tools.
        """
        tensors, known = _read(path)
        width = Frozen(lm).width
        if tensors["rows"].shape[1] != width:
            raise HarnessError(
                f"the tool rows in {printable(path)} are {tensors['rows'].shape[1]} wide, made for "
                f"'{printable(known['model'])}', but this model is {width} wide; train rows for it"
            )
        if known["head"] != head_fingerprint(lm):
            say(
                f"the tool rows in {printable(path.name)} were made for the output head of '{printable(known['model'])}', "
                "which is not this model's; they may choose other tools here"
            )
        found = cls(
            tensors["rows"], tensors["prior"], tuple(known["tools"]), known["bias"], known["model"], known["head"],
            known["settings"], known["training_rows"], tuple(known["trained_on"]),
        )  # fmt: skip
        return found._matched(toolbox, path)

    def filled(self, rows: Tensor) -> ToolRows:
        """Return these rows with those of missing tools, and their priors, taken from ``rows`` (K, D)."""
        places = [place for place, tool in enumerate(self.tools) if tool["key"] in self.missing]
        whole, prior = self.rows.clone(), self.prior.clone()
        whole[places], prior[places] = rows[places], rows[places]
        return replace(self, rows=whole, prior=prior, missing=())

    def _matched(self, toolbox: Toolbox, path: Path) -> ToolRows:
        place_of = {tool["key"]: place for place, tool in enumerate(self.tools)}
        missing = tuple(key for key in toolbox.keys if key not in place_of)
        if len(missing) == len(toolbox):
            raise HarnessError(
                f"{printable(path)} has no row for any of the tools asked for; it has rows for "
                f"{printable(', '.join(list(place_of)[:12]))}"
            )
        if missing:
            say(f"{printable(path.name)} has no rows for {printable(', '.join(missing))}; they are untrained")
        left_out = [key for key in place_of if key not in set(toolbox.keys)]
        if left_out:
            say(f"rows of {printable(path.name)} for {printable(', '.join(left_out))} are left out")
        rows, prior = torch.zeros(2, len(toolbox), self.rows.shape[1])
        for place, key in enumerate(toolbox.keys):
            if key in place_of:
                rows[place], prior[place] = self.rows[place_of[key]], self.prior[place_of[key]]
        return replace(self, rows=rows, prior=prior, tools=described(toolbox), missing=missing)


def described(toolbox: Toolbox) -> tuple[dict[str, str], ...]:
    """Return what a file tells of each tool."""
    names = ("key", "name", "description", "arity")
    return tuple({name: getattr(tool, name) for name in names} for tool in toolbox)


def model_name(lm: CausalLM) -> str:
    """Return a name for the model: the last part of where it was loaded from, or its class."""
    return Path(str(lm.model.config._name_or_path or "")).name or type(lm.model).__name__


def head_fingerprint(lm: CausalLM) -> str:
    """Return a digest of the output head's weights, as they are stored."""
    head = Frozen(lm).head.module
    found = {name: fingerprint_of(tensor) for name, tensor in head.named_parameters()}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()[:16]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            known = json.loads((file.metadata() or {}).get("tool_rows", "{}"))
            tensors = {name: file.get_tensor(name) for name in ("rows", "prior") if name in names}
    except FileNotFoundError as error:
        raise HarnessError(f"there are no tool rows at {printable(path)}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise HarnessError(f"the tool rows in {printable(path)} cannot be read: {printable(error)}") from error
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    is_ours = isinstance(known, dict) and known.get("format") == FORMAT and len(tensors) == 2 and len(shapes) == 1
    if not is_ours or next(iter(shapes))[:1] != (len(known["tools"]),):
        raise HarnessError(f"{printable(path)} is no file of tool rows ({FORMAT}); train some, or name another file")
    return tensors, known
