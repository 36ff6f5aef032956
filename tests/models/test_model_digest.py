"""Whatever decides a model's answers is in its digest, and with it in keys, run folders, baselines, journals, work folders."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model

from harness import HarnessError
from harness.models import loading
from harness.models.identity import chat_template_digest, digest_files, tokenizer_digest
from harness.models.source import ModelSource

pytestmark = pytest.mark.usefixtures("fresh")
Command = Callable[..., Any]
CODE = {
    "conf.py": "from transformers import LlamaConfig\n\nclass Odd(LlamaConfig):\n    model_type = 'odd'\n",
    "odd.py": "from transformers import LlamaForCausalLM\nfrom .conf import Odd\nfrom .scale import SCALE\n\n"
    "class OddModel(LlamaForCausalLM):\n    config_class = Odd\n\n"
    "    def forward(self, *args, **kwargs):\n        output = super().forward(*args, **kwargs)\n"
    "        output.logits = output.logits * SCALE\n        return output\n",
    "scale.py": "SCALE = 1\n",
}
# Of a model in several parts with an adapter and code of its own; how each file is edited.
DECIDING = {
    "config.json": "entry", "generation_config.json": "entry", "model.safetensors.index.json": "entry",
    "model-00001-of-00003.safetensors": "byte", "model-00003-of-00003.safetensors": "byte", "conf.py": "line",
    "odd.py": "line", "scale.py": "line", "deep/code.py": "line", "custom_generate/generate.py": "line",
    "adapter_config.json": "entry", "adapter_model.safetensors": "byte",
}  # fmt: skip
READ_BY_NOBODY = (
    "README.md", ".gitattributes", "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "trainer_state.json",
    "rng_state.pth", "pytorch_model.bin", "consolidated.safetensors", "notes.txt", "old/config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that a model's folder may hold; weights are cut out of thin air, nobody loads them."""
    folder = tmp_path_factory.mktemp("whole")
    weights = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    content = {
        "config.json": {"auto_map": {"AutoModelForCausalLM": "odd.OddModel"}, "eos_token_id": 1},
        "generation_config.json": {"eos_token_id": 1},
        "model.safetensors.index.json": {"weight_map": {str(number): name for number, name in enumerate(weights)}},
        "adapter_config.json": {"peft_type": "LORA"},
    }
    for name in [*weights, *DECIDING, *READ_BY_NOBODY]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content[name]) if name in content else "# as it was\n", "utf-8")
    return folder


def edited(path: Path, how: str = "line") -> None:
    """Change a file a little."""
    if how == "entry":
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"edited": 1}), "utf-8")
    else:
        path.write_bytes(path.read_bytes() + {"byte": b"\0", "line": b"# edited\n"}[how])


def digest(folder: Path, **more: Any) -> str:
    """Return the digest of a model here, looked at anew."""
    return ModelSource("whole", str(folder), trust_remote_code=True, **more).digest


def test_an_edit_of_any_file_that_is_read_or_run_is_another_model(whole: Path) -> None:
    """Case model_identity: weights, configurations, index of shards, code."""
    before = digest(whole)
    for name, how in DECIDING.items():
        content = (whole / name).read_bytes()
        edited(whole / name, how)
        assert digest(whole) != before, name
        (whole / name).write_bytes(content)
    for name in READ_BY_NOBODY:
        edited(whole / name)
    assert digest(whole) == before
    untrusted = ModelSource("whole", str(whole)).digest
    edited(whole / "scale.py")
    assert ModelSource("whole", str(whole)).digest == untrusted, "code that is not run decides nothing"
    assert digest(whole) != before != untrusted


def test_code_that_lies_elsewhere_and_an_adapter_are_part_of_the_model(whole: Path, tmp_path: Path) -> None:
    folder, other, adapter = tmp_path / "model", tmp_path / "other", tmp_path / "adapter"
    shutil.copytree(whole, folder)
    for place in (other, adapter):
        place.mkdir()
    (other / "far.py").write_text("", "utf-8")
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": f"{other}--far.Far"}}), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.X", None]}}), "utf-8")
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (adapter / name).write_text("{}", "utf-8")
    found = [digest(folder, peft=str(adapter))]
    for path in (other / "far.py", adapter / "adapter_config.json", adapter / "adapter_model.safetensors"):
        edited(path)
        found.append(digest(folder, peft=str(adapter)))
    edited(adapter / "README.md")
    assert len(set(found)) == 4 and digest(folder, peft=str(adapter)) == found[-1] != digest(folder)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "org/nowhere--far.Far"}}), "utf-8")
    with pytest.raises(HarnessError, match=r"'org/nowhere' has no usable far\.py"):
        digest(folder)


def test_a_generation_configuration_that_repeats_the_configuration_adds_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    """So models keep the digest that records of earlier runs name."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = ModelSource("tiny", str(folder)).digest
    assert before == digest_files([folder / "config.json", folder / "model.safetensors"])
    (folder / "generation_config.json").rename(folder / "aside")
    assert ModelSource("tiny", str(folder)).digest == before
    written = json.loads((folder / "aside").read_text("utf-8"))
    for said in ({"repetition_penalty": 9.0}, {"eos_token_id": [0, 7]}, {"max_new_tokens": 3}, {"eos_token_id": None}):
        text = json.dumps(written | said, indent=2, sort_keys=True) + "\n"
        (folder / "generation_config.json").write_text(text, "utf-8")
        assert ModelSource("tiny", str(folder)).digest != before, said
    for text in ("no JSON", "[]", json.dumps(written)):
        (folder / "generation_config.json").write_text(text, "utf-8")
        assert ModelSource("tiny", str(folder)).digest != before


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    import os

    path = tmp_path / "config.json"
    path.write_text('{"a": 1}', "utf-8")
    times, before = path.stat(), digest_files([path])
    path.write_text('{"a": 2}', "utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_files([path]) != before


def test_what_else_a_tokenizer_does_to_text_is_in_its_digest(tokenizer: Any, tmp_path: Path) -> None:
    import copy

    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    before = tokenizer_digest(tokenizer)
    other = copy.deepcopy(tokenizer)
    other.clean_up_tokenization_spaces = True  # which transformers leaves undone for BPE
    other.padding_side, other.chat_template = "left", "{{ messages }}"
    assert tokenizer_digest(other) == before
    other.split_special_tokens = True
    assert tokenizer_digest(other) != before
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    )
    plain = tokenizer_digest(words)
    words.clean_up_tokenization_spaces = True
    assert tokenizer_digest(words) != plain
    assert chat_template_digest(tokenizer) is None
    assert chat_template_digest(other) not in {None, chat_template_digest(words)}


@pytest.fixture
def odd_model(tmp_path: Path) -> Path:
    """A tiny model with code of its own, whose scores that code decides."""
    folder = build_model(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "conf.Odd", "AutoModelForCausalLM": "odd.OddModel"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    for name, text in CODE.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def test_edited_code_of_a_model_is_asked_again_and_its_records_stand_beside_the_old_ones(
    odd_model: Path, evaluate: Command, records: Any, make_method: Callable[..., str], tmp_path: Path
) -> None:
    """Case model_identity: no baseline, journal, work folder or cached state of the old code serves the new one."""
    flags = ["--plugin", make_method("lm.model.model.norm.weight.data.mul_(2)\nreturn lm"), "--with_baseline"]
    flags += ["--trust_remote_code", "--log_samples"]
    assert evaluate(*flags, model=odd_model).code == 0
    assert "are reused" in evaluate(*flags, model=odd_model).err
    before = {record["key"] for record in records(Path("out"))}
    (odd_model / "scale.py").write_text("SCALE = -1\n", "utf-8")
    # One process keeps the model's class for its configuration's, whatever its own file says by now.
    edited(odd_model / "conf.py")
    done = evaluate(*flags, model=odd_model)
    assert done.code == 0 and "reused" not in done.err
    after = records(Path("out"))
    assert len(after) == 4 and len({record["key"] for record in after}) == 4 and before < {r["key"] for r in after}
    assert len({record["model"]["digest"] for record in after}) == 2
    assert len({record["samples"]["sha256"] for record in after}) == 4, "the new code was run"
    assert len(list((tmp_path / "cache/methods").glob("*/"))) == 2


def test_a_generation_setting_is_another_model_with_another_folder_and_key(
    evaluate: Command, records: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Case model_identity: a repetition penalty written into the model's folder."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    assert evaluate(tasks="write_colours", model=folder).code == 0
    config = json.loads((folder / "generation_config.json").read_text("utf-8")) | {"repetition_penalty": 9.0}
    (folder / "generation_config.json").write_text(json.dumps(config), "utf-8")
    assert evaluate(tasks="write_colours", model=folder).code == 0
    found = records(Path("out"))
    for name in ("run", "key"):
        assert len({record[name] for record in found}) == 2
    assert len({record["model"]["digest"] for record in found}) == 2


def test_states_that_are_kept_are_of_the_code_that_made_them(odd_model: Path) -> None:
    from harness.methods.hidden_states import Frozen

    source = ModelSource("odd", str(odd_model), trust_remote_code=True)
    first = Frozen(loading.load_lm(source, device="cpu", batch_size=1)).digest()  # type: ignore[arg-type]
    edited(odd_model / "conf.py")
    source = ModelSource("odd", str(odd_model), trust_remote_code=True)
    assert Frozen(loading.load_lm(source, device="cpu", batch_size=1)).digest() != first  # type: ignore[arg-type]


def test_a_checked_tokenizer_is_given_away_once_and_what_it_was_called_stays(tiny_model: Path) -> None:
    """From the command to the first forward pass the tokenizer is read once: who may change it gets none that others see."""
    source = ModelSource("model", str(tiny_model))
    assert source.check() is source.check()
    digests, given = source.tokenizer_digests, source.take_tokenizer()
    given.add_tokens(["clockmaker"])
    assert source.take_tokenizer() is not given
    assert source.tokenizer_digests == digests == (tokenizer_digest(source.load_tokenizer()), None)
    assert tokenizer_digest(given) != digests[0]


def test_a_tokenizer_that_was_digested_before_is_told_from_an_edited_one(tokenizer: Any) -> None:
    """A remembered digest is of these rules, this vocabulary and these special tokens, and of no others."""
    first, other = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    before = tokenizer_digest(first)
    other.eos_token = "the"
    assert tokenizer_digest(first) == before != tokenizer_digest(other)
    vars(first)["get_vocab"] = lambda: {"a": 0}
    assert tokenizer_digest(first) != before
