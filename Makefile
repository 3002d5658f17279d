# `make run` and `make test` do all their own set-up; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
VENV := .tools
BIN := $(VENV)/bin
N ?= 1000000
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export UV_NO_CONFIG := 1
export GOTOOLCHAIN := local
# The module takes its symbols from the interpreter that loads it, so no libpython and no headers are needed to build it.
export PYO3_BUILD_EXTENSION_MODULE := 1
export SSL_CERT_FILE ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)
ARGS ?=

.PHONY: help crash runsc setup setup-bench setup-test setup-check setup-interop venv develop stubs docs run test test-rust test-python check bench counts plots fuzz wheel lock clean migration differential interop
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: setup develop runsc ## the main job: an agent under the whole layer, on real input, with a report at the end
	@$(BIN)/python examples/auditor/main.py $(ARGS)

test: setup-test develop runsc test-rust test-python ## every test

test-rust:
	@cargo test --quiet --profile fast --workspace --exclude creto-benches --exclude creto-python

test-python:
	@$(BIN)/python -m pytest -q $(ARGS)

interop: setup-interop develop ## stock OpenSSL 4, built once into the cache, reads our envelopes and we read its
	@openssl=$$(.ci/openssl) && CRETO_OPENSSL="$$openssl" $(BIN)/python -m pytest -q tests/interop $(ARGS)

check: setup-check develop ## formatting, lints, types, floors and stubs
	cargo fmt --all --check
	cargo clippy --quiet --profile fast --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check python tests benches examples
	$(BIN)/ruff check python tests benches examples
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python tests/check_crates.py
	$(BIN)/python -m mypy.stubtest creto._core --ignore-disjoint-bases

bench: setup-bench develop $(VENV)/bench/.stamp ## measure ours and the peers in one run: make bench [ONLY=area]
	@$(BIN)/python benches/run.py $(if $(ONLY),--only $(ONLY))

counts: setup-bench venv ## count the instructions of the hot paths and hold them against those on file: make counts [ARGS=--renew]
	@$(BIN)/python benches/counts.py $(ARGS)

plots: venv ## draw docs/plots and write docs/figures.md anew from benches/report.json
	@$(BIN)/python benches/plot.py
	@$(BIN)/python benches/plot_policy.py
	@$(BIN)/python benches/figures.py

fuzz: ## search every decoder for faults: make fuzz [TARGET=name] [SECONDS=60]
	@tests/fuzz/run "$(TARGET)" "$(or $(SECONDS),60)"

wheel: setup venv ## the wheel that users install, into dist/
	@$(BIN)/maturin build --quiet --release --strip --out dist
	@ls -l dist/*.whl

setup: ## install what this machine lacks (apt packages when root)
	@.ci/setup run
setup-bench:
	@.ci/setup bench
setup-test:
	@.ci/setup test
setup-check:
	@.ci/setup check
setup-interop:
	@.ci/setup interop

venv: $(VENV)/.stamp ## the virtual environment with every development dependency
# The peers of benches that are not needed for anything else, apart from what develops and tests creto.
$(VENV)/bench/.stamp: requirements-bench.txt | venv
	@test -x $(VENV)/bench/bin/python || python3 -m venv --without-pip $(VENV)/bench
	@$(BIN)/uv pip sync --quiet --python $(VENV)/bench/bin/python --require-hashes requirements-bench.txt
	@touch $@

$(VENV)/.stamp: requirements-dev.txt requirements-uv.txt
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements-dev.txt requirements-uv.txt
	@echo "$$PWD/python" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/creto.pth"
	@printf '#!/bin/sh\nexec "%s" -m creto "$$@"\n' "$$PWD/$(BIN)/python" > $(BIN)/creto && chmod +x $(BIN)/creto
	@touch $@

runsc: develop ## gVisor's runsc, built once with Go into the cache; without it sandboxes are skipped by name
	@$(BIN)/creto sandbox install >/dev/null || echo "make: no gVisor here; what needs it says so" >&2

develop: venv ## build the native module into python/creto (profile fast)
	@cargo build --quiet --profile fast -p creto-python
	@cmp -s target/fast/lib_core.so python/creto/_core.abi3.so || { cp target/fast/lib_core.so python/creto/_core.abi3.so.new && mv python/creto/_core.abi3.so.new python/creto/_core.abi3.so; }

lock: ## renew the hash-locked requirements
	@$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --universal --python-version 3.11 --group dev --all-extras pyproject.toml -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --universal --python-version 3.11 --group bench -o requirements-bench.txt
	@echo 'uv==0.13.9' | $(BIN)/uv pip compile --quiet --generate-hashes --no-header --universal --python-version 3.11 - -o requirements-uv.txt

clean: ## remove what was built
	rm -rf target dist out $(VENV) python/creto/_core.abi3.so

crash: setup-test develop ## rebuild and recover N disks (N=1000000) that a loss of power can leave, N/100 whole state folders, and every fault of a system call of a ledger's life and of a whole act
	@CRETO_CRASH_STATES=$(N) cargo test --quiet --profile fast -p creto-audit --lib power_tests -- --nocapture
	@CRETO_CRASH_STATES=$(N) cargo test --quiet --profile fast -p creto-audit --test injected -- --nocapture
	@CRETO_CRASH_FOLDER_STATES=$$(( $(N) / 100 )) $(BIN)/python -m pytest -q tests/contract/test_power_loss.py tests/contract/test_act_faults.py --timeout=86400

differential: ## compare N generated requests (N=1000000) with cedar-policy's answers; SEED=n starts elsewhere
	@CRETO_DIFFERENTIAL=$(or $(N),1000000) CRETO_SEED=$(or $(SEED),1) cargo test --quiet --profile fast -p creto-authz --test differential -- --nocapture

stubs: develop ## write python/creto/_core.pyi anew from the native module
	@$(BIN)/python tests/renew_stubs.py

docs: develop ## print docs/configuration.md anew from the settings
	@$(BIN)/python tests/renew_configuration.py > docs/configuration.md.new && mv docs/configuration.md.new docs/configuration.md

migration: venv ## write the store's first migration anew from its tables (until the first release)
	@$(BIN)/python tests/renew_migration.py
