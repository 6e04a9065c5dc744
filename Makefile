# entrepot: `make run` to use it, `make lint test` before a change is sent.

CARGO ?= cargo
IMAGE ?= entrepot
TOOLS := target/tools
# Seconds for each fuzz target.
FUZZ ?= 5

.PHONY: run test lint bench image images

# Runs the proxy, with its data where the configuration or the defaults say.
run:
	$(CARGO) run --release --locked -- serve

# Runs all tests; those of the container engines need root.
test:
	scripts/install-test-tools
	$(CARGO) test --workspace --locked

# Checks everything that can be checked without running it, and runs each fuzz target for a moment.
lint: export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)
lint: export RUSTDOCFLAGS := -D warnings
lint:
	scripts/install-lint-tools $(TOOLS)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) doc --workspace --no-deps --document-private-items --locked
	$(CARGO) deny check bans licenses sources
	scripts/check-advisories
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	scripts/fuzz $(FUZZ)

# Times single functions, then entrepot beside what else is installed: bench/README.md.
bench:
	$(CARGO) bench --package entrepot --bench hot --locked
	$(CARGO) run --release --locked --package entrepot-cache --example figures
	$(CARGO) build --release --locked
	$(CARGO) run --release --locked --package entrepot-bench -- $(ARGS)

# Builds the container image.
image:
	docker build --tag $(IMAGE) .

# Builds it for both platforms, the other one in emulation, and pushes it: IMAGE=registry.corp/entrepot.
images:
	docker buildx build --platform linux/amd64,linux/arm64 --tag $(IMAGE) --push .
