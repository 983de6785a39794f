# Two commands matter: `make demo` shows the network, `make test` proves it. Both work from a bare
# clone on Debian 12: they install the system packages they need (tests/install-packages.sh says
# exactly which ones when it may not), build, and run.

CARGO ?= cargo
TOOLS := tests/install-packages.sh

WEB := web/dist/index.html
WEB_SOURCES := $(shell find web/src web/public -type f) web/index.html web/portal.html web/tsconfig.json web/vite.config.ts

.PHONY: help demo build test lint packages test-packages fmt bench bench-peers budget dist test-dist test-container test-camera nat-matrix lab soak glass web test-web pictures bars plots mutants test-long

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

packages: ## install the system packages that building and running need
	@$(TOOLS) pipelines/debian-build.txt pipelines/debian-run.txt

test-packages: packages
	@$(TOOLS) tests/debian-test.txt

web: $(WEB) ## build the page that the node serves

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@command -v npm >/dev/null || $(TOOLS) web/debian-build.txt
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(WEB): web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent build

build: packages $(WEB) ## build everything
	$(CARGO) build --locked --workspace

demo: packages $(WEB) ## a whole network on this machine, in this terminal; ARGS="--kill" kills a forwarder
	$(CARGO) build --locked --bin astral
	./target/debug/astral demo $(ARGS)

lint: packages ## formatting and lints, warnings are errors
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

test: test-packages $(WEB) ## the test command: formatting, lints, every test
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked --workspace --no-fail-fast
	$(MAKE) --no-print-directory test-web

test-web: test-packages $(WEB) ## the page's tests alone: units, then Chromium against real nodes
	cd web && npm run --silent test
	$(CARGO) build --locked --bin astral
	cd web && npm run --silent e2e

pictures: test-packages $(WEB) ## take the README's pictures of the page from a real network
	$(CARGO) build --locked --bin astral
	cd web && npm run --silent pictures

bench: packages ## what a fan-out costs, beside a plain TCP fan-out in the same run, and its pieces
	$(CARGO) bench --locked --bench fanout
	$(CARGO) bench --locked -p astral-core --bench micro

bench-peers: packages $(WEB) ## what serving players costs, beside nginx-rtmp in the same run
	@$(TOOLS) benches/debian-peers.txt
	$(CARGO) bench --locked --bench players

budget: packages ## instructions of the hot path beside those kept in benches/budget.txt; ARGS=--write keeps new ones
	@$(TOOLS) benches/debian-budget.txt
	$(CARGO) bench --locked -p astral-core --bench budget -- $(ARGS)

dist: packages $(WEB) ## an archive and a Debian package in target/dist
	contrib/dist.sh

test-dist: dist ## install that package into a clean Debian and play a stream there (root)
	tests/dist/run.sh

test-container: ## build the Containerfile with an engine, run the image, ask its health check (root)
	tests/container/run.sh

BARS_NODES ?= 1000
bars: ## every bar of the simulator beside what it measures; BARS_NODES=10000 is the whole size and takes hours
	$(CARGO) run --locked --release -p astral-netsim -- bars --nodes $(BARS_NODES)
	$(CARGO) run --locked --release -p astral-netsim -- compare wide --nodes 2000

plots: ## draw the pictures of netsim/README.md anew
	$(CARGO) run --locked --release -p astral-netsim -- plot

mutants: ## break one rule after the other: a test and a scenario must notice each
	netsim/mutants/run.sh

test-long: test-packages $(WEB) ## what takes long: every player, OBS and Firefox (with a reason for each that is not there), the API fuzzed
	@$(TOOLS) tests/debian-long.txt || echo "astral: some players can't be installed; their tests say so"
	$(CARGO) test --locked --test e2e -- --ignored --nocapture --test-threads 1
	$(CARGO) test --locked --lib flood -- --ignored --nocapture
	cd web && npm run --silent hls
	cd web && npm run --silent firefox
	tests/schemathesis/run.sh
	$(MAKE) --no-print-directory test-container
	cd web && TEST_SMOOTH=1 npm run --silent e2e

nat-matrix: test-packages $(WEB) ## every kind of NAT with every other, doctor in each, a UPnP router, dead links (root)
	$(CARGO) test --locked --test e2e homes -- --ignored --nocapture --test-threads 1
	$(CARGO) test --locked --test e2e router:: -- --ignored --nocapture --test-threads 1

glass: test-packages $(WEB) ## how old a picture is on the screen, two forwarders behind its source
	$(CARGO) test --locked --test e2e glass -- --ignored --nocapture --test-threads 1

LAB ?= lab20
lab: packages $(WEB) ## real nodes over a modelled internet, beside what the simulator predicts (root); LAB=FILE.toml
	$(CARGO) build --locked --bin astral
	$(CARGO) run --locked -p astral-netsim -- lab $(LAB)

SOAK_SECONDS ?= 3600
soak: packages ## a node attacked for an hour while it forwards a stream: nothing may grow; SOAK_SECONDS=60 is a look
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --lib soak -- --ignored --nocapture

test-camera: test-packages ## publish from a virtual camera (vivid) inside QEMU
	tests/camera/run.sh

fmt: ## format the tree
	$(CARGO) fmt --all
