# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
# The first interpreter that is new enough; a name on the PATH may be there and not work.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+%?:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

$(VENV)/.locked: requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/.locked  ## the virtual environment, from the lock file

demo: install  ## embedded Postgres, sample data, every backfill, status before and after
	$(BIN)/backfills demo

dev: install  ## the same, then the Dagster UI and daemon on that data
	$(BIN)/backfills demo --serve

test: install  ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: install  ## the tests that start no process: no command line, no server but Postgres
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not chaos and not e2e and not programs"

check: install  ## lint, format, types, SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint sql dagster_backfills

audit: install  ## known vulnerabilities of the locked packages (needs the Internet)
	$(BIN)/python .ci/audit.py requirements.lock requirements-dev.lock

# A storm takes one and a half to four minutes on two quiet cores: half an hour for all twelve, a quarter of an hour for one
# a kind of fault (make chaos STORMS=--by-kind). The table comes last.
chaos: install  ## the fault suite: a storm for each fault, over all domains; 35 minutes
	$(BIN)/python -m pytest -m chaos dagster_backfills_tests/chaos
	$(BIN)/python -m dagster_backfills_tests.chaos $(STORMS)

bench-%: install  ## one benchmark: progress, partitions, …
	$(BIN)/python -m benchmarks.$*

reference: install  ## docs/reference/ from the code
	$(BIN)/python -m docs.generate

screenshots: install  ## the tutorial's pictures, taken by the browser test (needs chromium)
	BACKFILLS_SCREENSHOTS=docs/images $(BIN)/python -m pytest dagster_backfills_tests/e2e/test_browser.py dagster_backfills_tests/e2e/test_catalog.py

lock:  ## resolve the lock files again (needs uv)
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all -o requirements.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all --extra embedded --extra speech --extra celery --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all --extra k8s -c requirements.lock -o requirements-k8s.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet --group build -c requirements.lock -o requirements-build.lock

.PHONY: help install demo dev test quick check audit chaos reference screenshots lock
