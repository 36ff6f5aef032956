#!/usr/bin/env bash
# `from transformers import AutoConfig` reads the source of every file of every model, twice.
#
# transformers 5.24.0. Files below transformers/models/ that are opened while one name is imported.
# Expected: those of the models that are used, or one listing that is kept.
# Seen:     all 1,700 of them, for the lists of what there is to import, and all of them again when `transformers.models` is
#           imported: 3,400 opened files in each new process, about a second of processor time each, before any model.
# Here:     nothing to be done without changing what the library does; benchmarks/startup.py counts it in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import sys
from collections import Counter

opened: Counter[str] = Counter()


def count(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(".py"):
        if "/transformers/models/" in arguments[0].replace("\\", "/"):
            opened[arguments[0]] += 1


sys.addaudithook(count)
import transformers

first = opened.total()
from transformers import AutoConfig

print(f"transformers {transformers.__version__}, files of models: {len(opened)}")
print(f"opened by `import transformers`: {first}; with `from transformers import AutoConfig`: {opened.total()}")
sys.exit(not (len(opened) > 1000 and first >= len(opened) * 0.95 and opened.total() >= 1.9 * len(opened)))
PYTHON
