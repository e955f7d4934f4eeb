# On a machine with Python 3.11, 3.12 or 3.13, `make demo` and `make test` need nothing else.
# PYTHON is the first supported interpreter that works; one that is on the PATH may still be broken.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+%?:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

$(VENV)/.locked: requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/.locked  ## create the virtual environment from the lock file

demo: install  ## run every backfill on sample data in an embedded Postgres; show the status before and after
	$(BIN)/backfills demo

dev: install  ## run the demo, then serve the Dagster UI and daemon
	$(BIN)/backfills demo --serve

test: install  ## run the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

quick: install  ## run the tests that start no process other than Postgres
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not chaos and not e2e and not programs"

check: install  ## check lint, format, types and SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint sql dagster_backfills

audit: install  ## check the locked packages for known vulnerabilities (needs the Internet)
	$(BIN)/python .ci/audit.py requirements.lock requirements-dev.lock

# A storm takes one and a half to four minutes on two idle cores: half an hour for all twelve, or a quarter of an hour with
# one storm per kind of fault (make chaos STORMS=--by-kind). The table is printed last.
chaos: install  ## inject each fault into all domains; takes 35 minutes
	$(BIN)/python -m pytest -m chaos dagster_backfills_tests/chaos
	$(BIN)/python -m dagster_backfills_tests.chaos $(STORMS)

bench-%: install  ## run one benchmark: progress, partitions, …
	$(BIN)/python -m benchmarks.$*

reference: install  ## generate docs/reference/ from the code
	$(BIN)/python -m docs.generate

screenshots: install  ## take the pictures of the documentation with the browser tests (needs chromium)
	BACKFILLS_SCREENSHOTS=docs/images $(BIN)/python -m pytest dagster_backfills_tests/e2e/test_browser.py dagster_backfills_tests/e2e/test_catalog.py

lock:  ## regenerate the lock files (needs uv)
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all -o requirements.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all --extra embedded --extra speech --extra celery --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet pyproject.toml --extra all --extra k8s -c requirements.lock -o requirements-k8s.lock
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet --group build -c requirements.lock -o requirements-build.lock

.PHONY: help install demo dev test quick check audit chaos reference screenshots lock
