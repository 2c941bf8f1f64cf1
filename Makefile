# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed inside the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
AUDIT_VERSION := 2.10.1
MKDOCS_VERSION := 1.6.1

export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup demo classify page test test-slow test-browser test-cluster check format docs ui audit bench-pretrain bench-episodes bench-inference bench-search lock mlproject hooks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## install the pinned environment into .venv

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"error: Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}; try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)
	@echo "ready: source $(VENV)/bin/activate, then make classify DATA=my_folder"

demo: setup ## run the whole line on the embedded digits
	$(BIN)/python -m pipelines.main

classify: setup ## a classifier from your own images (DATA=folder; WEIGHTS=run, file or timm, BACKBONE=architecture, NAME=, UNREADABLE=skip)
	@test -n "$(DATA)" || { echo "error: DATA is missing; give a folder that holds one folder of images per class: make classify DATA=my_folder" >&2; exit 2; }
	$(BIN)/python -m pipelines.classify --data "$(DATA)" --name "$(or $(NAME),my-classifier)" \
		$(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(BACKBONE),--backbone "$(BACKBONE)") $(if $(UNREADABLE),--unreadable "$(UNREADABLE)")

test: setup ## run the tests (a few minutes)
	$(BIN)/python -m pytest -m "not (slow or cluster or postgres or browser)"

test-slow: setup ## run the tests that take longer
	$(BIN)/python -m pytest -m slow

test-browser: setup ## what a reader sees: pages in chromium, which must be installed
	$(MAKE) .cache/page/.installed
	$(BIN)/python -m pytest -n 0 -m browser

.cache/page/.installed: pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .cache/page
	VIRTUAL_ENV=.cache/page $(BIN)/uv pip install --quiet --editable ".[page]"
	@touch $@

page: setup ## try a file in the browser (MODEL=classifier.onnx PORT=7860)
	@test -n "$(MODEL)" || { echo "error: MODEL is missing; give a file: make page MODEL=classifier.onnx" >&2; exit 2; }
	@$(MAKE) --no-print-directory .cache/page/.installed
	.cache/page/bin/python -m serving.page "$(MODEL)" --port $(or $(PORT),7860)

test-cluster: setup ## the tests that need the extras ray, dask and postgres
	$(BIN)/python -m pytest -n 0 -m "cluster or postgres"

check: setup ## lint, types and import contracts: what the hook and CI run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: setup ## browse the runs on http://127.0.0.1:5000 (PORT=... for another port)
	@echo "open http://127.0.0.1:$(or $(PORT),5000)/#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=results"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

mlproject: setup ## write MLproject and conda.yaml from the configs and the lock
	$(BIN)/python -m pipelines.command_line.mlproject

bench-pretrain: setup ## pretraining's throughput over the model's own, and a plain loop's (DATA=folder)
	GOMP_SPINCOUNT=100000 $(BIN)/python -m benchmarks.speed.pretrain_throughput $(if $(DATA),--data $(DATA))

bench-episodes: setup ## what an episode costs against a tutorial's loop (DATA=spec BACKBONE=folder)
	GOMP_SPINCOUNT=100000 $(BIN)/python -m benchmarks.speed.episodes $(if $(DATA),--data $(DATA)) $(if $(BACKBONE),--backbone $(BACKBONE))

bench-inference: setup ## files to table against decoding plus model, torch and int8 (SIZE=224, IMAGES=folder)
	GOMP_SPINCOUNT=100000 $(BIN)/python -m benchmarks.speed.inference --image-size $(or $(SIZE),64) $(if $(IMAGES),--images $(IMAGES))

bench-search: setup ## what a search is worth, and what a leak would pretend (DATA=spec PROXY=spec BACKBONE=folder)
	GOMP_SPINCOUNT=100000 $(BIN)/python -m benchmarks.statistics.search_value $(if $(DATA),--data $(DATA)) $(if $(PROXY),--proxy $(PROXY)) --backbone $(BACKBONE)

lock: setup ## pin the newest allowed versions in requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate --extra dev --python-version 3.11 pyproject.toml -o requirements.lock
	$(MAKE) mlproject

audit: setup ## known vulnerabilities of the pinned packages (in an environment of its own)
	@test -x .cache/audit/bin/pip-audit || { $(PYTHON) -m venv .cache/audit && .cache/audit/bin/python -m pip install --quiet pip-audit==$(AUDIT_VERSION); }
	.cache/audit/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --progress-spinner off

docs: setup ## build the documentation in out/site (mkdocs, in an environment of its own)
	@test -x .cache/docs/bin/mkdocs || $(BIN)/uv venv --quiet --python $(BIN)/python .cache/docs
	VIRTUAL_ENV=.cache/docs $(BIN)/uv pip install --quiet mkdocs==$(MKDOCS_VERSION)
	PYTHONPATH=docs:. .cache/docs/bin/mkdocs build --strict --quiet

hooks: setup ## run `make check` before every commit
	$(BIN)/pre-commit install

clean: ## remove the environment and the caches, keep the records
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
