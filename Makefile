# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-quick test-full docs clean

demo: $(VENV)/.demo
	$(BIN)/ttca demo

# Tests start hundreds of programs: what one of them has compiled, the others need not.
unexport PYTHONDONTWRITEBYTECODE

# The order is that of tests/conftest.py.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# Every behavior in a small form, and lint beside it. What takes longer is marked `full`.
test: $(VENV)/.test
	@$(MAKE) --no-print-directory --jobs 2 lint short

.PHONY: short
short: $(VENV)/.test
	$(PYTEST) -m "not full"

# For work in between: no servers, no whole programs, no benchmarks, and none of the files that take longest.
SLOW := benchmarks guests report evidence/test_bundle.py platforms/test_protocols.py pooling/test_hub.py \
	pooling/test_leases.py pooling/test_ledger.py proxies/test_parallel.py training_time/test_bounds.py test_action.py \
	test_beforehand.py test_certificates.py test_cli.py test_folder_lock.py test_forgetting.py test_interruption.py \
	test_light_import.py test_rounds.py test_streams.py
test-quick: $(VENV)/.test
	$(PYTEST) -m "not full and not e2e" -k "not postgres" $(addprefix --ignore tests/,$(SLOW))

# The long forms too: model servers that are not ours, kills at random moments, the wheel in environments of its own.
test-full: lint
	$(PYTEST)

# The site, strictly: no dead link, no page outside the menu. Then spelling, and the Dockerfile. It needs no PyTorch: an environment of its own.
docs: .venv-docs/.docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/codespell --quiet-level 2
	.venv-docs/bin/hadolint Dockerfile

.PHONY: lint
lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Expected Python 3.11 or newer, got $$($(PYTHON) --version). Try: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras, older than pyproject.toml when that has changed.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[learn,serve,data]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.demo

.venv-docs/.docs: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-docs site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
