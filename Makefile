# Every target sets up what it needs: a venv in .venv, pinned by requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
FAST := not slow and not gpu and not browser and not postgres
MARKS ?= $(FAST)
WORKERS ?= auto
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
unexport PYTHONDONTWRITEBYTECODE # each process that a test starts would compile all of Melete anew

.PHONY: help setup envs demo test test-all quality format smoke bench screenshots clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make the venv and install Melete with everything

$(STAMP): requirements.lock pyproject.toml package.json
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python tools/vendor.py
	@touch $(STAMP)

envs: setup ## Environments of what cannot live beside our pins (LiteLLM, harnesses, CrewAI, Agent Lightning), for their tests
	$(BIN)/python tools/envs.py --tests

demo: export OMP_NUM_THREADS := $(shell nproc 2>/dev/null || echo 2)
demo: setup ## Train a small language model from text, teach it tools, let it practise, prove that it got better (minutes)
	$(BIN)/python tools/envs.py litellm
	@mkdir -p .melete
	$(BIN)/melete run examples/demo.yaml

test: setup ## Fast tests (MARKS="not gpu" runs all that need no GPU)
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "$(MARKS)"

test-all: ## All tests that need no GPU: also slow, browser and postgres ones
	$(MAKE) test MARKS="not gpu"

quality: setup ## ruff, format check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: setup ## The whole pipeline at toy size, from text to a served answer (a minute)
	$(BIN)/python tools/smoke.py

bench: setup ## Benchmarks; NANOCHAT=DIR runs the peer beside ours
	$(BIN)/python benchmarks/run_all.py $(if $(NANOCHAT),--nanochat $(NANOCHAT))

screenshots: setup ## Photograph every page of the web UI into docs/images/ui (needs Chromium)
	$(BIN)/python tools/screenshots.py --kept $(if $(HOME_SHOWN),--home $(HOME_SHOWN))

clean: ## Remove the venv and caches (never runs or data)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist build
