# KubePBX. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Always the whole workspace: what is chosen by package has features of its own, and is compiled again.
CARGO ?= cargo
# What each stage took is printed, so that a slow one is seen when it becomes slow.
stage = @stage() { local from=$$SECONDS; echo "== $$1"; shift; "$$@" || exit $$?; echo "== took $$((SECONDS - from)) s"; }; stage

.PHONY: help tools check fmt clippy arrows generated test unit e2e-serve bench bench-cluster bench-conference fuzz generate images e2e
.PHONY: cluster-tools cluster-up cluster-check cluster-crash cluster-down

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

tools: ## Install the Debian packages that the tests need (root or sudo); nothing to do where they are
	@.ci/tools

check: fmt clippy arrows generated ## Format, lints, arrows between crates, licences, generated files

fmt:
	$(stage) format $(CARGO) fmt --all --check

clippy:
	$(stage) clippy $(CARGO) clippy --workspace --all-targets --locked --quiet -- -D warnings

arrows:
	$(stage) "arrows and licences" $(CARGO) run --release --locked --quiet --bin checks

generated:
	$(stage) "generated files" $(CARGO) run --release --locked --quiet --bin kubepbx -- generate --check crds charts/kubepbx/crds

test: tools check unit e2e-serve ## Everything that needs no cluster: check, units, contracts, real phones

unit: ## Units, contracts (real Redis), torture messages, a bounded fuzz run
	$(stage) "units and contracts" $(CARGO) test --release --locked --workspace

e2e-serve: ## `kubepbx serve` with real phones: SIPp, baresip, kubepbx phone
	$(stage) "real phones" $(CARGO) test --release --locked --workspace --test serve -- --test-threads=3 --skip two_hundred_calls
	$(stage) "real phones, 200 calls" $(CARGO) test --release --locked --workspace --test serve -- two_hundred_calls

cluster-tools: ## Install the Debian packages that a cluster on this machine needs (root or sudo); nothing to do where they are
	@.ci/cluster-tools

cluster-up: ## A Kubernetes to test on: KUBECONFIG's, kind's, or in network namespaces here (CLUSTER=existing|kind|local)
	$(stage) "a cluster" e2e/cluster/run up

cluster-check: ## Ask the cluster that is up for all that tests lean on
	$(stage) "cluster check" e2e/cluster/run check

cluster-crash: ## Kill `up` of a second cluster (local) at many points; nothing may be left after `down`
	$(stage) "cluster crash" e2e/cluster/crash-check

cluster-down: ## Take it down, whatever there is of it
	@e2e/cluster/run down

e2e: cluster-up images ## Real phones on a real Kubernetes, brought up where none is; FILTER=NAME: only tests of that name
	$(stage) "phones and a cluster" $(CARGO) test --release --locked --workspace --test cluster -- --test-threads=2 --nocapture $(FILTER)

bench: ## Benchmarks, each as a ratio to a floor in the same run
	$(stage) "wire path" $(CARGO) bench --locked -p sip --bench wire
	$(stage) "relay" $(CARGO) bench --locked -p media --bench relay
	$(stage) "compiler" $(CARGO) bench --locked -p api --bench compile

bench-conference: ## Rooms of 3 and of 50, all sending: what a leg's 20 ms cost, beside decode + sum + encode
	$(stage) "rooms" $(CARGO) bench --locked --workspace --bench rooms

bench-cluster: cluster-up images ## What a change costs on a real Kubernetes, beside a bare watcher; 1,000 and 10,000 endpoints
	$(stage) "a cluster's figures" $(CARGO) test --release --locked --workspace --test bench-cluster

fuzz: ## A long fuzz run
	@fuzz/run

generate: ## Write crds/, and the chart's copy, from the types in crates/api
	@$(CARGO) run --release --locked --quiet --bin kubepbx -- generate crds charts/kubepbx/crds

images: ## Build every image by Docker or buildah; load them where a cluster of `make cluster-up` is up
	$(stage) images images/build
