# Only Python >= 3.11 and make are needed. Set-up goes into .venv and does nothing when it is up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false

.PHONY: install demo test lint unit integration dev bench accept lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python >= 3.11 is needed; set PYTHON=..." && exit 1)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: install
	$(BIN)/python -m baas_dagster.demo

# lint needs one core and the unit tests do not fill the other; integration tests need both
test: install
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint unit
	@$(MAKE) --no-print-directory integration

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.lint_sql

unit: install
	$(BIN)/pytest tests/unit -n 2 --dist loadfile

# files with few tests hold the longest ones: begun in the order of their names, not last
integration: install
	$(BIN)/pytest tests/e2e tests/integration -n 2 --dist loadfile --no-loadscope-reorder --durations 10

dev: install
	$(BIN)/baas dev

bench: install
	$(BIN)/python benchmarks/bench.py

accept: install
	$(BIN)/python -m acceptance $(PART) $(if $(SEED),--seed $(SEED))

lock: install
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock

clean:
	rm -rf .baas dbt_project/target dbt_project/logs
