"""What decides a result, and the names that follow from it: run, journal and baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.methods.options import resolved_options
from harness.models.identity import bits_per_weight, parameter_count, tokenizer_digest
from harness.names import safe_name
from harness.records.asked import joined_digest
from harness.records.record import (
    PluginPart,
    SettingsPart,
)
from harness.redaction import redact, redact_json
from harness.run import questions

if TYPE_CHECKING:
    from harness.methods.method import Method
    from harness.plugins import Plugin
    from harness.run.preparing import Prepared
    from harness.run.run import Run

# Options of the model that a record holds elsewhere, or that change no answer.
ELSEWHERE = {"pretrained", "tokenizer", "dtype", "revision", "share_prefixes"}


def describe_model(lm: Any) -> dict[str, Any]:
    """Return dtype, measured bits per weight and parameter count of the model in ``lm``, before a method changes it."""
    model, digest = lm.model, tokenizer_digest(lm.tokenizer)
    if model is None:
        return {"dtype": "none", "bits_per_weight": None, "parameters": None, "tokenizer_digest": digest}
    return {
        "tokenizer_digest": digest,
        "dtype": str(model.dtype).removeprefix("torch."),
        "bits_per_weight": round(bits_per_weight(model), 3),
        "parameters": parameter_count(model),
    }


def run_identity(prepared: Prepared, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the answers of a run besides the task: method, options, model, settings and seeds."""
    from harness.run.applying import fingerprint

    run, method, source = prepared.run, prepared.method, prepared.source
    # Seeds decide nothing of the untouched model, unless it draws its answers; those of shots show in the prompts.
    drawn = any(questions.draws_answers(task, run) for task in prepared.tasks.tasks.values())
    is_seeded = method.name != "baseline" or drawn
    return {
        "plugin": _plugin_part(prepared.plugin, method).model_dump(),
        "method": [method.name, resolved_options(method), fingerprint(method)],
        "model": [source.name, source.revision, source.digest, source.quantization, source.peft, dict(base)],
        "model_args": {name: value for name, value in run.model_args.items() if name not in ELSEWHERE},
        "settings": settings_of(run, run.num_fewshot).model_dump(),
        "seeds": run.seeds if is_seeded else None,
    }


def run_name(prepared: Prepared, base: Mapping[str, Any]) -> str:
    """Return the name of a run's folder: readable, and the same for the same method on the same model and settings."""
    part, method = _plugin_part(prepared.plugin, prepared.method), prepared.method.name
    name = safe_name("-".join(dict.fromkeys(word for word in (part.name, method) if word)))
    identity = json.dumps(run_identity(prepared, base), sort_keys=True, default=str)
    return f"{name}-{joined_digest([identity])[:10]}"


def settings_of(run: Run, num_fewshot: int | None) -> SettingsPart:
    """Return what of ``run`` decides prompts and answers; ``num_fewshot`` is the number the task really used."""
    return SettingsPart(
        num_fewshot=num_fewshot,
        limit=run.limit,
        samples_digest=joined_digest([str(sorted(run.samples.items()))]) if run.samples else None,
        apply_chat_template=run.apply_chat_template,
        fewshot_as_multiturn=run.fewshot_as_multiturn if run.apply_chat_template else None,
        system_instruction=None if run.system_instruction is None else redact(run.system_instruction),
        gen_kwargs=redact_json(dict(run.gen_kwargs)),
        metadata=redact_json(dict(run.metadata)),
        model_args=redact_json({name: value for name, value in run.model_args.items() if name not in ELSEWHERE}),
    )


def _plugin_part(plugin: Plugin | None, method: Method) -> PluginPart:
    # The untouched model is the same whichever plugin brought the tasks.
    if plugin is None or method.name == "baseline":
        return PluginPart()
    return PluginPart(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        code_digest=plugin.code_digest[:16],
    )
