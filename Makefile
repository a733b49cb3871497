# Two commands set up everything on a fresh machine: `make faults` and `make test`. `make help` lists the rest.

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Which specmm an environment imports is the environment's to say.
unexport PYTHONPATH

# No page: `make wheel` takes README.md as it is, and in the wheel of the tests nobody reads it.
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)
SOURCES := $(RUST) pyproject.toml $(shell find python -type f -not -path '*__pycache__*' -not -name '*.so')
WHEEL := target/wheel/built
TARGET = $(or $(CARGO_TARGET_DIR),target)
# Another configuration of the same sources would evict the plain build from its folder.
LOOM := RUSTFLAGS='--cfg specmm_loom' CARGO_TARGET_DIR=target/loom
UNDER_SHUTTLE := RUSTFLAGS='--cfg specmm_shuttle' CARGO_TARGET_DIR=target/shuttle

.PHONY: help dev preflight preflight-ci preflight-peers packages faults test test-rust test-python property lint loom loom-bounds loom-quick guards mutants shuttle free asan tsan bench bench-python hit-ratio counts spin peers wheel deep ci clean

help:
	@echo 'make faults   the main job: fault a real file, with and without the mmap lock (FAULTS="FILE --seconds 5")'
	@echo 'make test     Rust and Python tests and the quick models, within 10 minutes'
	@echo 'make dev      builds in place, in seconds, and runs what you name (PYTEST=tests/files/test_api.py); see CONTRIBUTING.md'
	@echo 'make property the tests that draw their inputs, ten times with fresh seeds (RUNS=3)'
	@echo 'make lint     formatters, linters, types, and what users can name (SURFACE=--update)'
	@echo 'make loom     every model, to completion, held against the committed table (MODELS=--update)'
	@echo 'make loom-bounds  how long each bounded model takes with one preemption more (BOUNDS=TEST)'
	@echo 'make guards   every guard switched off in turn: some model must fail (GUARDS=NAME shows how, GUARDS=--update)'
	@echo 'make mutants  drawn edits of the core, each run against the tests that meet it (MUTANTS="--seed 7 --count 200")'
	@echo 'make shuttle  whole operations with up to 8 threads under drawn schedules (SHUTTLE=TEST; see tests/shuttle/harness.rs)'
	@echo 'make asan     the core under AddressSanitizer'
	@echo 'make tsan     a stress of the core under ThreadSanitizer'
	@echo 'make bench    benchmarks and their ratios, 5 minutes (BENCH="--bench NAME")'
	@echo 'make bench-python  reads from Python beside mmap, numpy, fsspec, diskcache, cachetools (BENCH="--only rows")'
	@echo 'make hit-ratio  what reclaim keeps, beside LRU, S3-FIFO and others (BENCH="--requests 50000")'
	@echo 'make counts   instructions of the hot operations, under valgrind (COUNTS=--update)'
	@echo 'make spin     liveness models of page lock, RCU, retry, lookup and queue, under spin'
	@echo 'make peers    suites of fsspec, zarr, h5py and others through specmm, against a table (PEERS=quick, PEERS="zarr io")'
	@echo 'make wheel    the manylinux wheel and the sdist into target/dist, each tried in an empty environment'
	@echo 'make deep     the long runs of models and property tests'
	@echo 'make ci       lint, test, loom, and what needs packages (.ci/run installs those)'
	@echo 'make clean    removes everything that was built, environments included'

preflight:
	@PYTHON='$(PYTHON)' tools/preflight

# --- the wheel, and environments of the project's own: as a user has it, with what the tests need, with the peers

.venv/made .venv-dev/made .venv-edit/made .venv-peers/made .venv-mutants/made: | preflight
	@echo 'Setting up $(@D). The first build of specmm takes minutes; later ones are quick.'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	touch $@

$(WHEEL): $(SOURCES) .venv/made
	@echo 'Building the wheel ...'
	rm -rf $(@D)
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(@D) .
	touch $@

# The second line replaces an older build of the same version.
.venv/installed: $(WHEEL)
	.venv/bin/python -m pip install --quiet "$$(echo target/wheel/*.whl)[cli]"
	.venv/bin/python -m pip install --quiet --force-reinstall --no-deps target/wheel/*.whl
	touch $@

.venv-dev/installed: $(WHEEL) .venv-dev/made
	.venv-dev/bin/python -m pip install --quiet --group dev "$$(echo target/wheel/*.whl)[cli]"
	.venv-dev/bin/python -m pip install --quiet --force-reinstall --no-deps target/wheel/*.whl
	touch $@

# No specmm: the tool reads and builds the sources.
.venv-mutants/installed: pyproject.toml .venv-mutants/made
	.venv-mutants/bin/python -m pip install --quiet --group mutants
	touch $@

.venv-peers/installed: $(WHEEL) .venv-peers/made pyproject.toml
	.venv-peers/bin/python -m pip install --quiet --group peers "$$(echo target/wheel/*.whl)"
	.venv-peers/bin/python -m pip install --quiet --force-reinstall --no-deps target/wheel/*.whl
	touch $@

# --- in place: the sources of python/ as they are, beside an extension that is built anew when Rust has changed

IN_PLACE := python/specmm/_core.abi3.so
# A folder of its own: maturin and plain cargo would evict each other's builds.
MATURIN := VIRTUAL_ENV=$(CURDIR)/.venv-edit CARGO_TARGET_DIR=target/dev .venv-edit/bin/maturin develop --quiet --profile edit

.venv-edit/installed: pyproject.toml .venv-edit/made
	.venv-edit/bin/python -m pip install --quiet --group edit
	$(MATURIN) --extras cli
	touch $@

$(IN_PLACE): $(RUST) .venv-edit/installed
	$(MATURIN) --skip-install
	touch $@

dev: $(IN_PLACE)
	$(if $(PYTEST),.venv-edit/bin/python -m pytest $(PYTEST),@echo 'Built in place: .venv-edit/bin/python imports specmm from python/')

# --- the two commands

faults: .venv/installed
	.venv/bin/specmm faults $(FAULTS)

test: test-rust loom-quick test-python

# Examples in documentation also as a user of the crate builds them, without features.
test-rust: | preflight
	cargo test --all-features
	cargo test --doc

# SPECMM_HYPOTHESIS chooses the profile: dev (the default), ci or deep.
test-python: .venv-dev/installed
	.venv-dev/bin/python -m pytest $(PYTEST)

# The tests that draw their inputs, each run with another seed, which it prints, and with no memory of what failed before.
property: .venv-dev/installed
	set -e; for run in $$(seq $(or $(RUNS),10)); do \
	    seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); memory=$$(mktemp -d); \
	    echo "run $$run: make test-python PYTEST='-m hypothesis --hypothesis-seed=$$seed'"; \
	    HYPOTHESIS_STORAGE_DIRECTORY=$$memory .venv-dev/bin/python -m pytest -q -m hypothesis --hypothesis-seed=$$seed; \
	    rm -r $$memory; \
	done

# --- models: a test whose name begins with `big_` is left to `make loom`; SPECMM_DEEP=1 takes the bounds away. QUICK='NAME
# --nocapture' runs some with what they print

loom-quick: | preflight
	$(LOOM) cargo test --profile loom --all-features --lib --tests -- --skip big_ $(QUICK)

# What they explored is held against tests/loom/models.json; MODELS=--update writes that table anew. The list of models is the
# binary's own, so that a run that leaves one out is noticed.
REPORT := target/loom/report

loom: | preflight
	mkdir -p $(dir $(REPORT)) && rm -f $(REPORT) $(REPORT).list
	SPECMM_LOOM_REPORT=$(CURDIR)/$(REPORT) $(LOOM) cargo test --profile loom --all-features --lib --tests
	SPECMM_LOOM_LIST=1 SPECMM_LOOM_REPORT=$(CURDIR)/$(REPORT).list $(LOOM) \
	    cargo test --quiet --profile loom --all-features --lib -- models:: open_question::
	$(if $(SPECMM_DEEP),,$(PYTHON) tools/models.py $(REPORT) $(REPORT).list $(MODELS))
	$(if $(SPECMM_DEEP),,$(PYTHON) tools/pairs.py loom $(REPORT) $(MODELS))

# Seconds of CPU, at most 40 each, into tests/loom/next_bounds.json: of models whose bound is new, or BOUNDS=TEST.
loom-bounds: | preflight
	$(LOOM) cargo --config 'target."cfg(all())".runner = "$(PYTHON) tools/models.py --next-bound"' \
	    test --profile loom --all-features --lib -- $(BOUNDS)

# Every named guard and ordering switched off in turn, and what is found held against docs/guards.md; GUARDS=--update writes
# that page. GUARDS=NAME shows one with its counterexample, GUARDS="NAME --update" adds it to the page, GUARDS=--all tries each
# name in every model. Code that moved needs no model: tools/guards.py --update.
guards: | preflight
	$(LOOM) cargo --config 'target."cfg(all())".runner = "$(PYTHON) tools/guards.py"' \
	    test --profile loom --all-features --lib -- $(GUARDS)

# Edits of the sources that have no name: tools/mutants says how. A fresh seed unless MUTANTS="--seed N". With --update, what killed
# them is remembered in tests/mutants/killers.json and tried first: so for the draw of `make ci`, which is always the same.
mutants: .venv-mutants/installed
	.venv-mutants/bin/python -m tools.mutants $(MUTANTS)

# Without the names the library compiles to the same assembly.
free: | preflight
	$(PYTHON) tools/free_names.py target/free

SHUTTLE_REPORT := target/shuttle/report

# Nothing is captured: a schedule that failed must be seen even if the process aborts. Which operations met is held against
# tests/pairs/found.json; PAIRS=--update writes that file anew.
shuttle: | preflight
	mkdir -p $(dir $(SHUTTLE_REPORT)) && rm -f $(SHUTTLE_REPORT)
	SPECMM_SHUTTLE_REPORT=$(CURDIR)/$(SHUTTLE_REPORT) $(UNDER_SHUTTLE) \
	    cargo test --profile loom --all-features --lib -- $(or $(SHUTTLE),shuttle_tests) --nocapture
	$(if $(SPECMM_DEEP)$(SHUTTLE),,$(PYTHON) tools/pairs.py shuttle $(SHUTTLE_REPORT) $(PAIRS))

# --- for developers

# The second clippy sees the crate as a user builds it: examples need no feature, and what only a feature uses is dead.
lint: .venv-dev/installed
	@PYTHON='$(PYTHON)' tools/preflight rustfmt clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo clippy --all-targets -- -D warnings
	$(LOOM) cargo clippy --all-features --lib --tests -- -D warnings
	$(UNDER_SHUTTLE) cargo clippy --all-features --lib --tests -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features --document-private-items
	.venv-dev/bin/ruff check
	.venv-dev/bin/ruff format --check
	.venv-dev/bin/mypy
	.venv-dev/bin/stubtest specmm._core --allowlist tools/stubtest-allowlist --ignore-unused-allowlist
	.venv-dev/bin/python tools/surface.py $(SURFACE)

# With a linker of its own, so that the wheel runs on any Linux of the last ten years.
wheel: | preflight
	PYTHON='$(PYTHON)' tools/wheel

# Ratios of this run only: what criterion measured earlier is left out.
bench: | preflight
	start=$$(date +%s) && cargo bench --all-features $(or $(BENCH),--benches) && \
	    $(PYTHON) tools/bench_ratios.py $(TARGET)/criterion --since $$start

# Timed by pyperf, some ten minutes; BENCH="--only rows" runs some.
bench-python: .venv-dev/installed
	.venv-dev/bin/python -m pip install --quiet --group bench
	.venv-dev/bin/python benches/python $(BENCH)

hit-ratio: .venv-dev/installed
	.venv-dev/bin/python -m pip install --quiet --group bench
	.venv-dev/bin/python benches/python/hit_ratio.py $(BENCH)

# Instructions of the hot operations against tests/counts/expected.json; COUNTS=--update writes that file.
counts: | preflight
	@PYTHON='$(PYTHON)' tools/preflight valgrind
	cargo build --release --all-features --example counts
	$(PYTHON) tests/counts/run.py $(TARGET)/release/examples/counts $(COUNTS)

# What loom cannot say: that everybody is served. Planted bugs come first, and each must be found.
spin: | preflight
	@PYTHON='$(PYTHON)' tools/preflight spin
	$(PYTHON) tests/spin/run.py

# Other libraries' suites, plainly and through specmm (tests/peers/run.py); what differs and why is in a table beside it.
peers: preflight-peers .venv-peers/installed
	.venv-peers/bin/python tests/peers/run.py $(PEERS)

preflight-peers:
	@PYTHON='$(PYTHON)' tools/preflight cpython-tests

# The core's tests and its stress under AddressSanitizer, the stress under ThreadSanitizer; each with its positive controls.
asan: | preflight
	tools/asan

tsan: | preflight
	tools/tsan

deep: export SPECMM_DEEP = 1
deep: export SPECMM_HYPOTHESIS = deep
deep: loom shuttle test-python peers
	$(MAKE) guards GUARDS=--all
	$(MAKE) mutants MUTANTS='--count 200'
	SPECMM_HYPOTHESIS=dev $(MAKE) property

# Jobs that need a Debian package are targets of their own, added to `ci` as they land; .ci/run installs PACKAGES, and
# each is a tool that preflight asks for by name: a missing one fails, nothing is skipped.
PACKAGES := valgrind spin

packages:
	@echo $(PACKAGES)

preflight-ci:
	@PYTHON='$(PYTHON)' tools/preflight rustfmt clippy cpython-tests $(PACKAGES)

ci: export SPECMM_HYPOTHESIS = ci
ci: PEERS = quick
ci: MUTANTS = --seed 1
ci: preflight-ci lint test loom guards free counts asan tsan shuttle spin mutants peers

clean:
	rm -rf target .venv .venv-dev .venv-edit .venv-mutants .venv-peers $(IN_PLACE) .hypothesis .mypy_cache .pytest_cache .ruff_cache
