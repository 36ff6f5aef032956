#!/usr/bin/env bash
# An adapter trained on a deeper model loads on a shallower one, and what it has for the layers that are not there is dropped in silence.
#
# peft 0.21.2, `PeftModel.from_pretrained`, LoRA. (The other way round, layers without weights in the adapter, it warns.)
# Expected: an error or a warning, as for any checkpoint with weights that nothing reads.
# Seen:     no word; half of the adapter is scored as if it were the adapter. Only what `load_adapter` returns names them.
# Here:     harness/models/merging.py refuses such an adapter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import sys
import warnings

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def model(layers):
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **sizes))


lora = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
get_peft_model(model(2), lora).save_pretrained("adapter")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loaded = PeftModel.from_pretrained(model(1), "adapter")
said = [str(one.message) for one in caught if "layers.1" in str(one.message) or "unexpected" in str(one.message).lower()]
dropped = loaded.load_adapter("adapter", "default").unexpected_keys
print("peft 0.21.2, an adapter of two layers on a model of one")
print(f"expected: a warning or an error; seen: {len(said)} warnings, {len(dropped)} tensors dropped")
sys.exit(bool(said) or not dropped)
PYTHON
