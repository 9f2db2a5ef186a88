# `make help` lists what there is. Needs Python 3.11 or newer, make and a package registry; brings the rest by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
PROJECTS := $(wildcard pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml gateway/pyproject.toml \
	cli/pyproject.toml sandbox/pyproject.toml protos/pyproject.toml)
PACKAGES := $(patsubst %/__init__.py,%,$(wildcard libs/*/*/__init__.py services/*/*/__init__.py \
	gateway/*/__init__.py cli/*/__init__.py sandbox/*/__init__.py))
# The contracts that callers may rely on: what is in here is never taken away or given another meaning.
PROMISED := protos/promised.binpb
# Tests to run, for example `make integration T=tests/integration/test_sandbox_issuer.py`.
T ?=
# Only the report at the end, over all tests, has a floor. Thousands of histories are lived without being counted:
# counting lines takes them three times as long, and what they go through others have counted.
COUNT := --cov --cov-report= --cov-fail-under=0

# What lives thousands of histories, or tries a hundred thousand forgeries.
HISTORIES := tests/unit/simulation tests/unit/kinguin_gateway/test_histories.py \
	tests/unit/kinguin_gateway/test_supplier_models.py tests/unit/vault/test_tampering.py

# Two processes, each with its own files and, where tests need them, its own servers.
BESIDE := --numprocesses 2 --dist loadfile
# One more where much is waited for.
WAITING := --numprocesses 3 --dist loadfile

# A registry may be far away; uv's own 30 s are short for a browser's worth of wheels.
export UV_HTTP_TIMEOUT ?= 180
export UV_PYTHON_DOWNLOADS ?= never
unexport VIRTUAL_ENV

##@ Run

.PHONY: run
run: bootstrap ## Start the whole system on this machine and place a sample order; Ctrl-C stops it
	@exec $(BIN)/keyferry-sandbox run

.PHONY: demo
demo: bootstrap ## Do the main job once, from the payment to the opened key, show each step and exit
	@$(BIN)/keyferry-sandbox demo

.PHONY: clean
clean: ## Remove what `run` and the checks have left: data, logs, certificates, caches
	@if [ -x $(BIN)/keyferry-sandbox ]; then $(BIN)/keyferry-sandbox clean; else rm -rf .sandbox; fi
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov artifacts
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

##@ Check

.PHONY: check
check: fmt-check lint types imports protos-check test ## Everything that must be green before a change lands

.PHONY: test
test: bootstrap ## All tests, against real servers and in a real browser, which is brought if there is none
	@$(BIN)/coverage erase
	@$(BIN)/pytest tests/unit $(addprefix --ignore ,$(HISTORIES)) --disable-socket --allow-unix-socket $(BESIDE) $(COUNT)
	@$(BIN)/pytest $(HISTORIES) --disable-socket --allow-unix-socket --numprocesses 2 --dist load --no-cov
	@CHROMIUM="$$($(BIN)/python tests/browser.py)" $(BIN)/pytest tests/contract tests/integration $(WAITING) \
		$(COUNT) --cov-append
	@CHROMIUM="$$($(BIN)/python tests/browser.py)" $(BIN)/pytest tests/e2e tests/proof $(BESIDE) \
		$(COUNT) --cov-append
	@$(BIN)/coverage report

.PHONY: unit
unit: bootstrap ## Fast tests: no socket, no sleep, no database
	@$(BIN)/pytest $(or $(T),tests/unit) --disable-socket --allow-unix-socket

.PHONY: integration
integration: bootstrap ## One service at a time against real PostgreSQL, NATS and S3; adapters and their fakes
	@CHROMIUM="$$($(BIN)/python tests/browser.py)" $(BIN)/pytest $(or $(T),tests/contract tests/integration)

.PHONY: e2e
e2e: bootstrap ## The whole system through the edge, pages in a real browser
	@CHROMIUM="$$($(BIN)/python tests/browser.py)" $(BIN)/pytest $(or $(T),tests/e2e)

.PHONY: proof
proof: bootstrap ## The long proofs at full size (hours): storms of webhooks, a failing supplier, killed replicas, large orders beside small ones, very many histories, every fault by itself
	@KEYFERRY_PROOF=full $(BIN)/pytest -rP $(or $(T),tests/proof tests/unit/kinguin_gateway/test_histories.py \
		tests/unit/kinguin_gateway/test_supplier_models.py tests/unit/simulation \
		tests/integration/test_edge_webhook_storm.py tests/integration/test_vault_taking_back.py \
		tests/integration/test_vault_rewrapping.py \
		tests/integration/test_vault_traces.py \
		tests/integration/test_edge_contract.py tests/integration/test_kinguin_simulator_contract.py \
		tests/integration/test_fulfillment_claiming_cost.py tests/integration/test_fulfillment_reconciliation.py \
		tests/integration/test_audit_search_cost.py tests/integration/test_audit_tampering.py \
		tests/integration/test_audit_tree.py \
		tests/e2e/test_09_wiped_stream.py tests/e2e/test_10_failpoints.py)

# Histories to live, how many processes live them, and one seed to live again: `make simulate SEED=1234`.
N ?= 20000
JOBS ?= 2
SEED ?=

.PHONY: simulate
simulate: bootstrap ## Live N=20000 seeded histories of the whole order path, or SEED=n alone, and check every promise
	@$(BIN)/python -m tests.simulation.run --count $(N) --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

.PHONY: fmt
fmt: bootstrap ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix --exit-zero --quiet

.PHONY: fmt-check
fmt-check: bootstrap
	@$(BIN)/ruff format --check --quiet

.PHONY: lint
lint: bootstrap ## Lint
	@$(BIN)/ruff check

.PHONY: types
types: bootstrap ## Check types, strictly
	@$(BIN)/mypy $(PACKAGES) tests bench docs protos/generate.py

.PHONY: imports
imports: bootstrap ## Check who imports whom
	@$(BIN)/lint-imports

##@ Protos

.PHONY: protos
protos: bootstrap ## Generate protos/gen from the contracts
	@$(BIN)/python protos/generate.py

.PHONY: asyncapi
asyncapi: bootstrap ## Generate docs/asyncapi.yaml and the tables of docs/events.md from the contracts
	@$(BIN)/python docs/generate_asyncapi.py

.PHONY: states
states: bootstrap ## Generate docs/fulfillment-states.mmd, the picture of a purchase's life, from the table of states
	@$(BIN)/python docs/generate_states.py

.PHONY: promise
promise: bootstrap ## Write down the contracts as they are now as what callers may rely on, if that breaks none of them
	@$(BIN)/buf breaking --against $(PROMISED)
	@$(BIN)/buf build --exclude-source-info -o $(PROMISED)

.PHONY: protos-check
protos-check: bootstrap ## Lint the contracts, see that no caller would break and that nothing generated is stale
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against $(PROMISED)
	@$(BIN)/buf build --exclude-source-info -o -#format=binpb | cmp --silent - $(PROMISED) || { \
		echo "$(PROMISED) is stale; run \`make promise\`" >&2; exit 1; }
	@$(BIN)/python protos/generate.py --check
	@$(BIN)/python docs/generate_asyncapi.py --check
	@$(BIN)/python docs/generate_states.py --check

##@ Set up

.PHONY: bootstrap
bootstrap: .venv/.synced ## Bring the tools and packages into .tools and .venv

.tools/.uv-$(UV_VERSION):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install it, or name it with PYTHON=..." >&2; exit 1; }
	@echo "bringing uv $(UV_VERSION)"
	@$(PYTHON) -m venv .tools || { echo "python's venv module is needed; install it (Debian: python3-venv)" >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@touch $@

.venv/.synced: .tools/.uv-$(UV_VERSION) uv.lock $(PROJECTS)
	@echo "bringing the packages"
	@$(UV) sync --locked --quiet --python "$$(command -v $(PYTHON))"
	@touch $@

.PHONY: help
help: ## Show this
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
