# Two commands are enough: `make demo` and `make test`. Everything else is a convenience.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# What the laptop needs; `make lock` writes the versions of all extras into requirements.lock.
EXTRAS := online,batch,services,mlflow,h2o,local,aws,postgres,kubernetes,dev
STAMP := $(VENV)/.installed
# Two files of tests side by side: much of their time they wait for servers and processes of theirs.
TWO_AT_A_TIME := --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help

.PHONY: help demo run test check format lock bench soak clean

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

$(STAMP): pyproject.toml requirements.lock
	@echo "Installing the locked dependencies into $(VENV) (about 2 GB to download the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint requirements.lock uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--constraint requirements.lock --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

demo: $(STAMP) ## Learn 744 months from start to end, show the result, and stop everything again
	@$(BIN)/mlplatform demo

run: $(STAMP) ## The same, and it stays: Dagit with one observation a minute, until Ctrl-C
	@$(BIN)/mlplatform dev

test: $(STAMP) ## Run all tests
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME)

check: $(STAMP) ## Lint, types, layers and tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME)

format: $(STAMP) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(STAMP) ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --python-version 3.11 --all-extras --quiet --upgrade \
		--no-emit-index-url --no-annotate --no-header --output-file requirements.lock
	@touch $(STAMP)

bench: $(STAMP) ## Measure speed and memory side by side with what one would use instead
	@$(BIN)/python -m benchmarks

soak: $(STAMP) ## Kill the graph 1,000 times, the services for an hour, and the control plane under 200 jobs
	@$(BIN)/python -m mlplatform_tests.faults.soak --kills 1000
	@$(BIN)/python -m mlplatform_tests.faults.soak_control_plane --jobs 200
	@$(BIN)/python -m mlplatform_tests.worker.soak --jobs 200
	@$(BIN)/python -m mlplatform_tests.services.soak --minutes 60

clean: ## Remove the environment and all local data
	@rm -rf $(VENV) .mlplatform
