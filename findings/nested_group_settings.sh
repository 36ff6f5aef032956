#!/usr/bin/env bash
# One task in two groups with settings of their own, both groups in a third: one setting wins for both.
#
# lm-eval 0.4.13. Group `zero` asks task `t` without examples, group `one` with one; group `both` holds the two.
# Expected: `t` is asked twice, or an error: one name for two ways of asking.
# Seen:     it is asked once, with one example, and the score of `zero` is that of `one`, without a word about it.
# Here:     harness/tasks/groups.py refuses it, naming the setting.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 accelerate lm_eval==0.4.13 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

import yaml
from lm_eval.tasks import TaskManager

Path("d.jsonl").write_text('{"q": "one?", "a": "1"}\n{"q": "two?", "a": "2"}\n')
data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"train": "d.jsonl", "test": "d.jsonl"}}}
asked = {"test_split": "test", "fewshot_split": "train", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}"}
files = [
    {"task": "t", "output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}, **data, **asked},
    {"group": "zero", "task": [{"task": "t", "num_fewshot": 0}]},
    {"group": "one", "task": [{"task": "t", "num_fewshot": 1}]},
    {"group": "both", "task": ["zero", "one"]},
]
for number, file in enumerate(files):
    Path(f"{number}.yaml").write_text(yaml.safe_dump(file))


def shots(name):
    loaded = TaskManager(include_path=".", include_defaults=False).load([name])
    return {name: task.config.num_fewshot for name, task in loaded["tasks"].items()}


alone, together = [shots("zero"), shots("one")], shots("both")
print("lm_eval 0.4.13, shots by task")
print(f"zero: {alone[0]}, one: {alone[1]}; expected of both: an error or two tasks; seen: {together}")
sys.exit(alone != [{"t": 0}, {"t": 1}] or together != {"t": 1})
PYTHON
