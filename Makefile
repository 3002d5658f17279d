# make run and make test do all their own set-up; make help lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .tools
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export GOTOOLCHAIN := local

.PHONY: help setup venv develop run test check bench wheel fuzz lock
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

venv: $(VENV)/.stamp ## the virtual environment with every development dependency
$(VENV)/.stamp: requirements-dev.txt
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/pip install -q --require-hashes -r requirements-uv.txt
	@SSL_CERT_FILE=$${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} $(BIN)/uv pip sync -q --python $(BIN)/python requirements-dev.txt requirements-uv.txt
	@echo "$$PWD/python" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/creto.pth
	@touch $@

develop: venv ## build the native module into python/creto with the fast profile
	@cargo build -q --profile fast -p creto-python --features pyo3/extension-module
	@cp target/fast/lib_core.so python/creto/_core.abi3.so

lock: ## renew the hash-locked requirements
	@$(BIN)/uv pip compile -q --generate-hashes --no-header --universal --python-version 3.11 --group dev --all-extras pyproject.toml -o requirements-dev.txt
	@echo 'uv==0.13.9' | $(BIN)/uv pip compile -q --generate-hashes --no-header --universal --python-version 3.11 - -o requirements-uv.txt
