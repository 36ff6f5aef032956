"""A trained embedder as a folder: adapter, projector, an encoder that was trained, and how texts are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.folders import new_folder, write_atomic
from harness.json_lines import read_json
from harness.names import printable
from harness_contextual_embeddings.pooling import HALVES

SETTINGS, PROJECTOR, ENCODER, ADAPTER = "embedder.json", "projector.safetensors", "encoder.safetensors", "adapter"


@dataclass(frozen=True)
class Kept:
    """What a folder says of the embedder in it.

    Attributes:
        decoder_width: of the decoder's input rows.
        encoder_width: of the encoder's vectors; None: there is no contextual token.
        reads: context_position, bos and template, which have to be the same when it is used.
        has_encoder: the encoder was trained, and its weights lie here, too.
        trained_on: digests of the texts it was trained on.
    """

    decoder_width: int
    encoder_width: int | None
    reads: dict[str, Any]
    has_encoder: bool
    trained_on: frozenset[str]


def save(folder: Path, model: Any, kept: Kept) -> None:
    """Write a trained embedder, whole or not at all.

    Args:
        folder: gets the files; it may not exist yet.
        model: the ``Embedder``, its decoder with the adapter on.
        kept: what is said of it.
    """
    from safetensors.torch import save_file

    from harness.methods import adapters

    said = {
        "halves": list(HALVES),
        "decoder_width": kept.decoder_width,
        "encoder_width": kept.encoder_width,
        "reads": kept.reads,
        "has_encoder": kept.has_encoder,
        "trained_on": sorted(kept.trained_on),
    }
    with new_folder(folder) as new:
        if kept.encoder_width is not None:
            save_file(_tensors(model.projector), new / PROJECTOR)
        if kept.has_encoder:
            save_file(_tensors(model.encoder), new / ENCODER)
        (new / ADAPTER).mkdir()
        adapters.save_adapter(model.decoder, new / ADAPTER)
        write_atomic(new / SETTINGS, json.dumps(said, indent=1, sort_keys=True))


def copy(folder: Path, report: Path, target: Path) -> None:
    """Copy a saved embedder and its run's report to a folder of the user's, whole or not at all.

    Raises:
        HarnessError: the disk refuses.
    """
    try:
        with new_folder(target) as new:
            shutil.copytree(folder, new, dirs_exist_ok=True)
            shutil.copyfile(report, new / report.name)
    except OSError as error:
        raise HarnessError(f"cannot save to '{printable(target)}': {error.strerror or error}") from error


def read(folder: Path) -> Kept:
    """Return what a folder says of its embedder.

    Raises:
        HarnessError: it holds none, or its halves stand in an order that is not known here.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise HarnessError(
            f"'{printable(folder)}' holds no {SETTINGS}; give the folder artefacts/embedder that a run with steps left"
        )
    said = read_json(path)
    try:
        halves, reads = list(said["halves"]), dict(said["reads"])
        kept = Kept(
            int(said["decoder_width"]),
            None if said["encoder_width"] is None else int(said["encoder_width"]),
            reads,
            bool(said["has_encoder"]),
            frozenset(map(str, said["trained_on"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HarnessError(f"{printable(path)} does not say what it should: {printable(error)}") from error
    if halves != list(HALVES):
        raise HarnessError(
            f"the halves of the embeddings of '{printable(folder)}' stand in the order {printable(halves)}; known is "
            f"{list(HALVES)}"
        )
    return kept


def load(folder: Path, model: Any, kept: Kept) -> None:
    """Put a saved embedder's parts into ``model``: projector, trained encoder, and the adapter onto its decoder.

    Raises:
        HarnessError: decoder or encoder have another width, or a file cannot be read.
    """
    from harness.methods import adapters

    if kept.decoder_width != model.width:
        raise HarnessError(
            f"the embedder in '{printable(folder)}' is for a decoder {kept.decoder_width} wide, and this one is {model.width} "
            "wide"
        )
    if model.projector is not None:
        if kept.encoder_width is None:
            raise HarnessError(
                f"the embedder in '{printable(folder)}' was trained without a contextual token; take pooling=eos, or another "
                "without one"
            )
        if kept.encoder_width != model.projector.widths[0]:
            raise HarnessError(
                f"the embedder in '{printable(folder)}' is for an encoder {kept.encoder_width} wide, and this one is "
                f"{model.projector.widths[0]} wide"
            )
        _load_tensors(folder / PROJECTOR, model.projector)
        if kept.has_encoder:
            _load_tensors(folder / ENCODER, model.encoder)
    model.decoder = adapters.load_adapter(model.decoder, folder / ADAPTER)


def _tensors(module: Any) -> dict[str, Any]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def _load_tensors(path: Path, module: Any) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise HarnessError(f"'{printable(path)}' cannot be read into this model: {printable(first)}") from error
