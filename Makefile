# The commands a person types. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CLUSTER := tests/cluster/cluster
CLUSTER_DIR ?= $(CURDIR)/.cluster
NODES ?= 1
DENY_VERSION := 0.20.2
SBOM_VERSION := 0.5.9
FUZZ_VERSION := 0.13.2
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= resp_parser pipeline script ring
MINUTES ?= 30
REPEAT ?= 5
SCENARIOS ?=
export CLUSTER_DIR
export PATH := $(CLUSTER_DIR)/bin:$(CLUSTER_DIR)/tools/bin:$(PATH)

STATIC := target/$(TRIPLE)/release

.PHONY: help demo test check fmt generate build images deny sbom chart \
	cluster-up cluster-down test-e2e test-scale bench soak near-cache chaos groups tenancy fuzz clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## The main job on a real Kubernetes: a cache, its ring, a scale-out
	@tests/demo/run

test: ## Everything: format, lints, units, properties, chart, simulation, end to end, real clients
	@tests/run-all

check: ## The inner loop: format, lints, units and properties, generated files (under 2 minutes warm)
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	ANNULUS_PROGRAMS=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug cargo test --workspace --locked --quiet

fmt: ## Format the code
	@cargo fmt --all

generate: ## Write the CRDs' YAML from the types, and the list of commands from the command table
	@cargo run --quiet --locked -p annulus-crds -- crds/generated charts/annulus/crd
	UPDATE_DOCS=1 cargo test --quiet --locked -p annulus-node --test compatibility >/dev/null

build: ## The two programs and the example's origin, static, as the images hold them
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TRIPLE) \
		-p annulus-node -p annulus-operator -p annulus-origin

images: build ## Both images and the example's origin, into the development cluster (or the kind cluster of KUBECONFIG)
	@for name in annulus-node annulus-operator annulus-origin; do
		tar=$$($(CLUSTER) build-image $$name:$(VERSION) $(STATIC)/$$name)
		$(CLUSTER) load-image $$name:$(VERSION) $$tar
	done

deny: ## Licences, banned crates and sources; advisories where their database can be fetched
	@tests/tools/deny $(DENY_VERSION)

sbom: ## What is in the two programs, as CycloneDX JSON in target/sbom
	@tests/tools/sbom $(SBOM_VERSION) target/sbom

chart: ## Lint the chart and render it with every value in use
	@tests/tools/chart

cluster-up: ## Start the development Kubernetes (NODES=n for more than one worker)
	@$(CLUSTER) up --nodes $(NODES)

cluster-down: ## End it and leave nothing behind
	@$(CLUSTER) down

test-e2e: ## The end-to-end tests alone, on the cluster that is up
	@tests/run-all e2e

test-scale: ## 100 CacheClusters at once, and 300 of stand-ins for nodes, on the cluster that is up
	@tests/run-all scale

bench: ## Side by side with Redis, Valkey and memcached: tables and plots into docs/benchmarks
	@bench/run $(STATIC)/annulus-node

soak: ## One node at full load for MINUTES=30: fails on too much memory or any error; page and plot into docs/benchmarks
	@cargo build --release --locked --quiet -p annulus-node -p annulus-bench
	ulimit -n 8192
	target/release/annulus-bench soak --minutes $(MINUTES)

groups: ## Read-through groups on the cluster that is up: stampede, avalanche, penetration, a hot key (SCENARIOS="stampede" for some); page and plot into docs/benchmarks
	@cargo run --release --locked --quiet -p annulus-tests --features cluster --bin annulus-groups -- $(SCENARIOS)

near-cache: ## The Rust client's near cache for MINUTES=30 of cuts, stalls, kills and lost invalidations; page into docs/benchmarks
	@MINUTES=$(MINUTES) cargo run --release --locked --quiet -p annulus-client --example near_cache_check

chaos: ## Faults and changes under load on the cluster that is up, each REPEAT=5 times (SCENARIOS="kill cut" for some); page and plot into docs/benchmarks
	@cargo run --release --locked --quiet -p annulus-tests --features cluster --bin annulus-chaos -- $(REPEAT) $(SCENARIOS)

tenancy: ## Tenants beside each other on the cluster that is up: noise, quotas, rotation, hundreds of them (SCENARIOS="noisy churn" for some); page into docs/benchmarks
	@cargo run --release --locked --quiet -p annulus-tests --features cluster --bin annulus-tenancy -- $(SCENARIOS)

fuzz: ## Each fuzz target for FUZZ_SECONDS=600 (FUZZ_TARGETS="resp_parser pipeline script ring"); needs a nightly Rust
	@tests/tools/fuzz $(FUZZ_VERSION) $(FUZZ_SECONDS) $(FUZZ_TARGETS)

clean: cluster-down ## End the development cluster and remove what was built
	@rm -rf target .venv "$(CLUSTER_DIR)"
