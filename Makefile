# Two commands matter: `make demo` shows the network, `make test` proves it. Both work from a bare
# clone on Debian 12: they install the system packages they need (tests/install-packages.sh says
# exactly which ones when it may not), build, and run.

CARGO ?= cargo
TOOLS := tests/install-packages.sh

.PHONY: help demo build test lint packages test-packages fmt bench test-camera

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

packages: ## install the system packages that building and running need
	@$(TOOLS) pipelines/debian-build.txt pipelines/debian-run.txt

test-packages: packages
	@$(TOOLS) tests/debian-test.txt

build: packages ## build everything
	$(CARGO) build --locked --workspace

demo: packages ## a whole network on this machine, in this terminal; ARGS="--kill" kills a forwarder
	$(CARGO) build --locked --bin astral
	./target/debug/astral demo $(ARGS)

lint: packages ## formatting and lints, warnings are errors
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

test: test-packages ## the test command: formatting, lints, every test
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked --workspace --no-fail-fast

bench: packages ## what a fan-out costs, beside a plain TCP fan-out in the same run
	$(CARGO) bench --locked --bench fanout

test-camera: test-packages ## publish from a virtual camera (vivid) inside QEMU
	tests/camera/run.sh

fmt: ## format the tree
	$(CARGO) fmt --all
