# make serve · make test · make test-all · make check · make image-test · make docs · make bench · make bench-generation · make soak · make notebooks
# PORT=9000 changes the port, MODEL=… what is served, TORCH_INDEX=… where torch comes from (see README).
# BENCH="--rounds 1" are options of bench/run.py, SOAK="--requests 5000" of bench/soak.py.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The hundreds of processes that tests start read what the first one compiled.
PYTEST := HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
LANES := --numprocesses 3 --dist loadfile --no-loadscope-reorder
ALWAYS := not sagemaker3 and not thorough
ALONE := $(shell grep -rl --include '*.py' 'mark\.alone' tests)

.PHONY: serve setup test test-all check image-test docs bench bench-generation soak soak-streams notebooks clean

serve: setup
	@exec $(BIN)/hfserve serve $(MODEL)

setup: $(VENV)/.installed
	@sh container/system.sh

test: setup $(VENV)/.dev
	@sh tests/browser.sh
	$(PYTEST) $(LANES) --ignore tests/unit/test_openvino.py -m "$(ALWAYS) and not alone"
	$(PYTEST) $(ALONE) -m "$(ALWAYS) and alone"
	@# In a process of its own: one that has had many of OpenVINO's networks may not survive starting children.
	$(PYTEST) tests/unit/test_openvino.py

test-all: ALWAYS := not sagemaker3
test-all: test

image-test: setup $(VENV)/.dev
	@PYTHON=$(BIN)/python bash tests/image/run.sh

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/hfserve settings --markdown > docs/settings.md
	$(BIN)/hfserve schema --markdown > docs/tasks.md

bench: setup $(VENV)/.dev
	$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python bench/run.py $(BENCH)

bench-generation: setup $(VENV)/.dev
	$(BIN)/python bench/generation.py $(BENCH)

notebooks: setup $(VENV)/.dev
	$(PYTEST) tests/notebooks --render

soak: setup
	$(BIN)/python bench/soak.py $(SOAK)

soak-streams: setup
	$(BIN)/python bench/soak_streams.py $(SOAK)

clean:
	@bash tests/image/run.sh --clean
	rm -rf $(VENV) bench/.cache tests/clients/.venv notebooks/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.installed: requirements.txt requirements-torch.txt pyproject.toml
	@sh container/install.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps -r requirements-dev.txt
	@touch $@
