# Two commands do everything on a fresh machine: `make run` and `make test`. Both create .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check slow bench pins clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(READY) ## the main job: digits, LeNet-5, stm32f769; results in runs/default
	$(BIN)/crosslayer run --out runs/default

test: $(READY) ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses auto --dist loadfile

check: $(READY) ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

slow: $(READY) ## the long suites
	$(BIN)/pytest -q -m slow

bench: $(READY) ## figures for speed and instruction counts, as tables on stdout
	$(BIN)/python benchmarks/exact.py
	$(BIN)/python benchmarks/instructions.py
	$(BIN)/python benchmarks/mcu.py
	$(BIN)/python benchmarks/mlperf_tiny.py --out docs

pins: $(READY) ## write the installed versions to constraints.txt
	(head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//') > constraints.new
	mv constraints.new constraints.txt

clean: ## remove the environment and the results
	rm -rf .venv runs
