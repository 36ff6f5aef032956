"""What decides a result: one table, of which run names, work folders, journals, baselines and ``reproduce`` pick."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from harness import own_code
from harness.methods.inputs import fingerprint
from harness.methods.options import resolved_options
from harness.models.finding import ENGINE_ARGS
from harness.models.identity import bits_per_weight, parameter_count, tokenizer_digest
from harness.models.kinds import kind_of
from harness.models.lm_eval_args import changes_nothing
from harness.records.asked import joined_digest
from harness.records.record import EnvironmentPart, PluginPart, SettingsPart
from harness.redaction import file_name, redact, redact_json
from harness.run import questions
from harness.run.environment import environment

if TYPE_CHECKING:
    from harness.methods.method import Method
    from harness.plugins import Plugin
    from harness.run.preparing import Chosen, Prepared
    from harness.run.run import Run

# Who asks: the name of a run's folder; the folder of a method's work; the answers of a run that has not ended; an earlier
# run's records of the untouched model (found by their claim, so what is in that is not asked again); and
# `harness reproduce`, which refuses another method or model and tells what else is another. It takes settings and seeds
# from the record. A claim is what processes that want the same run agree upon before weights are loaded.
Asker = Literal["run", "work", "journal", "baseline", "reproduce", "claim"]
# Each thing that decides a result besides the task, documents and prompts, and who asks for it.
DECIDES: dict[str, str] = {
    "plugin":         "run work journal          reproduce claim",  # package, version, and the code that decides
    "method":         "run work journal          reproduce claim",  # its name and every option
    "inputs":         "run work journal          reproduce claim",  # the content of what the options name
    "model":          "run work journal          reproduce claim",  # its files or commit, quantization, adapter
    "revision":       "run      journal                    claim",  # as asked for on the Hub
    "loaded":         "run      journal          reproduce",        # measured: type and number of weights, their tokenizer
    "loading":        "    work                            claim",  # how weights are read; known before they are
    "base_tokenizer": "    work                            claim",  # that of the model, before the method; its template
    "model_args":     "run      journal                    claim",  # what else --model_args says
    "settings":       "run      journal                    claim",  # shots, limit, template, generation settings, metadata
    "seeds":          "run      journal                    claim",  # where something is drawn from them
    "method_seed":    "    work",
    "tokenizer":      "         journal",                           # after the method
    "made":           "         journal",                           # tensors after the method, and the files of its work
    "making_code":    "    work",                                   # of the harness, what methods build on
    "python":         "         journal          reproduce",
    "torch":          "    work journal baseline reproduce",
    "transformers":   "    work journal baseline reproduce",
    "lm_eval":        "         journal baseline reproduce",
    "peft":           "    work journal          reproduce",
    "bitsandbytes":   "    work journal baseline reproduce",
    "engine":         "         journal baseline reproduce",        # what computes in torch's place
    "harness":        "    work journal          reproduce",
    "harness_digest": "         journal baseline reproduce",        # of the harness, all code that decides
    "platform":       "         journal          reproduce",
    "device":         "         journal baseline reproduce",        # by its name
    "device_kind":    "    work",                                   # cpu or cuda
    "threads":        "                          reproduce",
    "processes":      "                          reproduce",
}  # fmt: skip
# What of it a record's ``environment`` holds.
ENVIRONMENT = frozenset(DECIDES) & frozenset(EnvironmentPart.model_fields)
# Options of the model that a record holds elsewhere, or that change no answer; nor do those of an engine, which say how much
# memory it has and how many devices.
ELSEWHERE = {"pretrained", "tokenizer", "dtype", "revision", "share_prefixes"}


def asked_by(asker: Asker) -> list[str]:
    """Return the names of what ``asker`` asks for, in the order of the table."""
    return [name for name, askers in DECIDES.items() if asker in askers.split()]


@dataclass(frozen=True)
class Deciding:
    """The values of the table for one run: what is not of the environment is an attribute of its name.

    Args:
        chosen: method and model.
        device: where the model is.
        loaded: ``describe_model`` of the LM before the method.
        is_drawn: a task has its answers drawn at random.
        tokenizer: of the LM after the method, as its records describe it.
        made: ``Applied.digest``.
    """

    chosen: Chosen
    device: str = "cpu"
    loaded: Mapping[str, Any] = field(default_factory=dict)
    is_drawn: bool = False
    tokenizer: Mapping[str, Any] | None = None
    made: str | None = None

    def picked(self, asker: Asker) -> dict[str, Any]:
        """Return what ``asker`` asks for, by name."""
        names = asked_by(asker)
        engine = kind_of(self.chosen.run.model).engine()
        known = environment(self.device, engine).model_dump() if ENVIRONMENT & set(names) else {}
        return {name: known[name] if name in ENVIRONMENT else getattr(self, name) for name in names}

    def digest(self, asker: Asker) -> str:
        """Return the SHA-256 over what ``asker`` asks for."""
        return hashlib.sha256(json.dumps(self.picked(asker), sort_keys=True, default=str).encode()).hexdigest()

    @property
    def plugin(self) -> dict[str, Any]:
        """The plugin, of which only code that decides an answer counts."""
        return plugin_part(self.chosen.plugin, self.chosen.method).model_dump()

    @property
    def method(self) -> list[Any]:
        """The method and every option."""
        return [self.chosen.method.name, resolved_options(self.chosen.method)]

    @cached_property
    def inputs(self) -> str:
        """The content of what the options name."""
        return fingerprint(self.chosen.method)

    @property
    def model(self) -> list[Any]:
        """The model by its files, the adapter it is loaded with, and what computes it where torch does not."""
        source, kind = self.chosen.source, kind_of(self.chosen.run.model)
        known = [source.name, source.digest, source.quantization, source.peft]
        return [*known, kind.name] if kind.engine() is not None else known

    @property
    def revision(self) -> str | None:
        """The revision that was asked for."""
        return self.chosen.source.revision

    @property
    def loading(self) -> list[Any]:
        """How the weights are read."""
        source = self.chosen.source
        said = [source.dtype, source.gguf_file, source.attn_implementation, source.lm_args]
        return said if source.subfolder is None else [*said, source.subfolder]

    @property
    def base_tokenizer(self) -> str:
        """The tokenizer that the model comes with, and its chat template."""
        return " ".join(filter(None, self.chosen.source.tokenizer_digests))

    @property
    def model_args(self) -> dict[str, Any]:
        """What else was said of the model."""
        return _other_model_args(self.chosen.run)

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides prompts and answers; a chat template where it is applied."""
        run = self.chosen.run
        settings = settings_of(run, run.num_fewshot).model_dump()
        if run.apply_chat_template:
            _, settings["chat_template"] = self.chosen.source.tokenizer_digests
        return settings

    @property
    def seeds(self) -> list[int | None] | None:
        """The seeds, None where they decide nothing: of the untouched model, unless it draws its answers."""
        # Those of shots show in the prompts.
        return list(self.chosen.run.seeds) if self.chosen.method.name != "baseline" or self.is_drawn else None

    @property
    def method_seed(self) -> int:
        """The seed that the method is given."""
        return self.chosen.run.seeds[0] or 0

    @property
    def making_code(self) -> str:
        """The harness's code that a method builds on."""
        return own_code.code_of(own_code.MAKES_METHODS)

    @property
    def device_kind(self) -> str:
        """The kind of device."""
        return self.device.split(":")[0]


def deciding(prepared: Prepared, base: Mapping[str, Any], **more: Any) -> Deciding:
    """Return what decides the results of a run; ``base`` is ``describe_model`` of the LM before the method."""
    drawn = any(questions.draws_answers(task, prepared.run) for task in prepared.tasks.tasks.values())
    return Deciding(prepared, loaded=base, is_drawn=drawn, **more)


def software_of(picked: Mapping[str, Any]) -> str:
    """Return the digest of what of a picked identity is known of software and machine, whatever the model."""
    known = {name: picked[name] for name in sorted(ENVIRONMENT & set(picked))}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


def run_name(prepared: Prepared, base: Mapping[str, Any]) -> str:
    """Return the name of a run's folder: readable, and the same for the same method on the same model and settings."""
    part, method = plugin_part(prepared.plugin, prepared.method), prepared.method.name
    name = file_name("-".join(dict.fromkeys(word for word in (part.name, method) if word)))
    return f"{name}-{deciding(prepared, base).digest('run')[:10]}"


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
        model_args=redact_json(_other_model_args(run)),
    )


def _other_model_args(run: Run) -> dict[str, Any]:
    return {
        name: value
        for name, value in run.model_args.items()
        if name not in ELSEWHERE and name not in ENGINE_ARGS and not changes_nothing(name, value)
    }


def plugin_part(plugin: Plugin | None, method: Method) -> PluginPart:
    """Return the plugin as records name it."""
    # The untouched model is the same whichever plugin brought the tasks.
    if plugin is None or method.name == "baseline":
        return PluginPart()
    return PluginPart(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        code_digest=plugin.code_digest[:16],
    )
