# Everything runs in .venv, which the first target builds from the hashed lock files. Nothing else is installed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Whichever supported Python is here; else uv fetches 3.12.
PY := $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3,11),(3,12)))' 2>/dev/null && { command -v $$p; break; }; done)
UV := .tools/bin/uv
BIN := .venv/bin
TRACES ?= $(wildcard ../shared/traces)
export PATH := $(CURDIR)/$(BIN):$(PATH)
LOCK := pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.ready: locks/dev.txt locks/uv.txt pyproject.toml
	@[ -x $(UV) ] || { p="$(PY)"; "$${p:-python3}" -m venv .tools && .tools/bin/pip install -q --disable-pip-version-check --require-hashes -r locks/uv.txt; }
	@[ -e $@ ] || echo "Setting up .venv: about 3.5 GB of downloads the first time (torch with its CUDA libraries is 3 GB of it), 7 GB on disk." >&2
	@p="$(PY)"; $(UV) venv -q --allow-existing --python "$${p:-3.12}" .venv
	@$(UV) pip sync -q --python $(BIN)/python --require-hashes locks/dev.txt
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.ready ## set everything up and run the main job on a real Triton here, in ./demo
	@python benchmarks/demo.py

test: .venv/.ready ## set everything up and pass the tests (minutes)
	@pytest tests -m "not full and not kube" -n 3 --dist loadfile

test-full: .venv/.ready ## the same promises with the full counts
	@pytest tests -m "full and not kube" -n 2 --dist loadfile --durations=15

test-kube: .venv/.ready ## build a real control plane (cached) and test against two of it, since most of the time is waiting
	@tests/integration/kube/controlplane/build.sh
	@tests/integration/prometheus/collector/build.sh
	@DEPLOYCTL_REQUIRE=kube,collector,$${DEPLOYCTL_REQUIRE:-} pytest tests -m "kube and not full" -n 2 --dist loadfile --durations=15

test-kube-full: .venv/.ready ## the same with the full counts
	@tests/integration/kube/controlplane/build.sh
	@DEPLOYCTL_REQUIRE=kube,$${DEPLOYCTL_REQUIRE:-} pytest tests -m "kube and full" -n 2 --durations=15

check: .venv/.ready ## format, lint, types, import contracts
	@ruff format --check . && ruff check . && mypy && mypy benchmarks && lint-imports --no-cache

golden: .venv/.ready ## rewrite the golden files and show the difference
	@pytest tests -m "not full and not kube" -k golden --snapshot-update; git --no-pager diff --stat -- tests

lock: .venv/.ready ## resolve the dependencies anew
	@$(UV) $(LOCK) --all-extras --group dev --group demo -o locks/dev.txt >/dev/null
	@$(UV) $(LOCK) --extra local -o locks/base.txt >/dev/null
	@echo "uv>=0.9" | $(UV) pip compile - --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -o locks/uv.txt >/dev/null

bench: bench-cli bench-load bench-sim bench-fidelity bench-scaling bench-live bench-tuner bench-tuner-live bench-kube ## all benchmarks

bench-cli: .venv/.ready ## start-up cost of the command line
	@python benchmarks/bench_cli.py

bench-load: .venv/.ready ## the load generator against its peers on a real Triton
	@python benchmarks/bench_load.py

bench-sim: .venv/.ready ## the simulator: speed and exactness
	@python benchmarks/bench_sim.py

bench-fidelity: .venv/.ready ## forecasts against a real Triton
	@python benchmarks/bench_fidelity.py

bench-scaling: .venv/.ready ## scaling policies on real traces, TRACES=folder
	@TRACES="$(TRACES)" python benchmarks/bench_scaling.py

bench-live: .venv/.ready ## savings foretold by a replay against real Triton replicas (six minutes)
	@python benchmarks/bench_live.py

bench-tuner: .venv/.ready ## the tuner on recorded and synthetic grids, TRACES=folder
	@TRACES="$(TRACES)" python benchmarks/bench_tuner.py

bench-tuner-live: .venv/.ready ## the tuner on a real Triton against a measured grid
	@python benchmarks/bench_tuner_live.py

bench-kube: .venv/.ready ## rendering, and our HPA law beside the real controller
	@python benchmarks/bench_kube.py

clean: ## remove what the targets made here
	@[ ! -x $(BIN)/deployctl ] || [ ! -d demo/.deployctl ] || $(BIN)/deployctl -C demo down --yes || true
	@rm -rf .venv .tools demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help demo test test-full test-kube test-kube-full check golden lock bench bench-cli bench-load bench-sim bench-fidelity bench-scaling bench-live bench-tuner bench-tuner-live bench-kube clean
