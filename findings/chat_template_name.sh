#!/usr/bin/env bash
# The chat template that is named is written down, and another one is used.
#
# lm-eval 0.4.13, model `hf`. A tokenizer may hold several chat templates by name, and `--apply_chat_template NAME` chooses one.
# Expected: the prompts are made with the template NAME.
# Seen:     `chat_template(NAME)`, which goes into the results, gives that template; `apply_chat_template`, which makes the prompts,
#           is never told the name and takes the default.
# Here:     harness/run/chat.py, template_of.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 accelerate peft==0.21.2 lm_eval==0.4.13
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import sys

from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = models.WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="<s>")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), bos_token="<s>", eos_token="<s>", unk_token="<s>")
tokenizer.chat_template = {"default": "[default]", "short": "[short]"}
config = LlamaConfig(vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
lm = HFLM(pretrained=LlamaForCausalLM(config), tokenizer=tokenizer, device="cpu")
written, used = lm.chat_template("short"), lm.apply_chat_template([{"role": "user", "content": "a"}])
print("lm_eval 0.4.13, template asked for: short")
print(f"written down: {written}; expected in the prompt: [short]; seen in the prompt: {used}")
sys.exit((written, used) != ("[short]", "[default]"))
PYTHON
