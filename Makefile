# What one types. Every target makes .venv first, if it has to: tools/setup.

VENV := .venv/bin
# The suite waits as long as it computes, so two for each core; more than eight only add noise to what measures time.
WORKERS ?= $(shell n=$$(( 2 * $$(nproc 2>/dev/null || echo 2) )); [ $$n -le 8 ] && echo $$n || echo 8)
# Each worker would compile every test again.
unexport PYTHONDONTWRITEBYTECODE
# More for pytest: make test ARGS="-k pool -x"
ARGS ?=
SOAK_SECONDS ?= 600

.PHONY: help setup run demo-consul demo-cluster test test-interpreted test-pythons check check-style bench bench-quick docs site \
	screenshots soak dist lock

help:
	@echo "make run     two backends, a data plane, a control plane and its page to play with (Ctrl-C ends them)"
	@echo "make demo-consul  a real Consul that gains, loses and forgets services, under traffic (ends by itself)"
	@echo "make demo-cluster  as root: three nodes in namespaces, canaries, a drain, a node killed under traffic (ends by itself)"
	@echo "make test    everything, with real programs (installs what is missing, if root)"
	@echo "make test-interpreted  the connection path again, interpreted, if the other run had it compiled"
	@echo "make test-pythons  what needs no other program, on every further Python that is here"
	@echo "make check   format, lint, layers, types and unit tests: before each commit"
	@echo "make bench   the figures, beside other proxies (bench-quick: in a few minutes)"
	@echo "make docs    the generated reference, from the code"
	@echo "make site    the documents as a site, in site/"
	@echo "make screenshots  docs/images again: the page and top, of a node under load (a minute)"
	@echo "make soak    changes and faults under load, of a node and of a cluster, for SOAK_SECONDS=$(SOAK_SECONDS) each; then the compiled form with sanitizers"
	@echo "make dist    wheels, compiled for this machine and pure, and the source, in dist/"
	@echo "make lock    requirements.lock, from pyproject.toml"

setup:
	@tools/setup

run: setup
	@$(VENV)/python tools/run_demo.py

demo-consul: setup
	@$(VENV)/python -m tools.demo_consul

demo-cluster: setup
	@$(VENV)/python -m tools.demo_cluster $(ARGS)

test: setup
	@tools/install-test-programs
	$(VENV)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What relays, and what kills and cuts it: the second form of the text that is compiled elsewhere.
test-interpreted: setup
	@if [ "$$($(VENV)/lb-dataplane --version | sed 's/.* //')" = compiled ]; then set -x; \
		LIVELB_INTERPRETED=1 $(VENV)/pytest -n $(WORKERS) --dist worksteal -q $(ARGS) \
			tests/together tests/dataplane/core tests/dataplane/net tests/dataplane/worker tests/faults; \
	else echo "It is not compiled here; everything has run interpreted already"; fi

test-pythons: setup
	@WORKERS=$(WORKERS) tools/test-pythons $(ARGS)

check: check-style
	$(VENV)/pytest -n $(WORKERS) -q --ignore=tests/integration --ignore=tests/faults --ignore=tests/cluster $(ARGS)

check-style: setup
	$(VENV)/ruff format --check
	$(VENV)/ruff check
	$(VENV)/lint-imports
	$(VENV)/mypy

bench: setup
	@tools/bench/install-peers
	$(VENV)/python -m tools.bench $(ARGS)

bench-quick: setup
	@tools/bench/install-peers
	$(VENV)/python -m tools.bench --quick $(ARGS)

ifneq ($(wildcard tools/gen_reference.py),)
docs: setup
	$(VENV)/python tools/gen_reference.py $(ARGS)
endif

site: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet
	@echo "site/ is made; to read it: $(VENV)/python -m http.server --directory site --bind 127.0.0.1 8000"

screenshots: setup
	@tools/install-test-programs
	$(VENV)/python -m tools.screenshot $(ARGS)

soak: setup
	$(VENV)/python tools/soak.py --seconds $(SOAK_SECONDS) $(ARGS)
	$(VENV)/python tools/soak_workers.py
	$(VENV)/python tools/soak_workers.py --balance-workers --share 0.3
	$(VENV)/python -m tools.soak_cluster --seconds $(SOAK_SECONDS)
	$(VENV)/python tools/soak_sanitized.py

dist: setup
	$(VENV)/hatchling build -d dist
	LIVELB_INTERPRETED=1 $(VENV)/hatchling build -d dist -t wheel

lock: setup
	@command -v uv >/dev/null || [ -x $(VENV)/uv ] || $(VENV)/python -m pip install --quiet uv
	PATH="$$PATH:$(CURDIR)/$(VENV)" uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --all-extras --group dev pyproject.toml -o requirements.lock
