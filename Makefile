# `make` lists the targets. To build and run you need only Go and git.
# `make test` installs the servers that the tests need (see test/install.sh).

# All commands and packages have this version.
VERSION ?= $(shell packaging/version.sh)

# The linker writes the version into the binaries. Go's own version stamping fails if another user owns the checkout, as on
# many build machines.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

BIN      ?= bin
PORT     ?= 3333
SPOOL    ?= run/spool
FUZZTIME ?= 20s
DIST     ?= dist

COMMANDS := hacheck haup hadown hastatus
TOOL     := go tool -modfile=tools/go.mod

# Without the package golang.org/x/net/trace, which google.golang.org/grpc links otherwise (for the client of etcd): it serves
# pages for debugging that nothing here shows. packaging/build.sh has this tag too.
TAGS := grpcnotrace

# Without cgo the commands start faster, run on every distribution, and do not depend on a C compiler. The go command uses
# the profile in cmd/hacheck/default.pgo.
build run demo demo-fleet bench: export CGO_ENABLED := 0

# All files in a package have the time of the commit, so the same commit gives the same bytes.
package: export SOURCE_DATE_EPOCH ?= $(shell git -c safe.directory='*' log -1 --format=%ct 2>/dev/null || echo 0)
package: export ARCHES  ?= amd64 arm64
package: export FORMATS ?= deb rpm root

.PHONY: help build run demo demo-fleet test test-mysql broken-rules fleet-simulation fleet-kills lint vulncheck fuzz bench package golden clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the commands into bin/
	@mkdir -p $(BIN)
	go build -tags $(TAGS) -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ $(COMMANDS:%=./cmd/%)
	@ln -sf hastatus $(BIN)/halist
	@ln -sf hastatus $(BIN)/hashowdowned

run: build ## build and run the daemon on 127.0.0.1:3333 with overrides in run/spool; needs no root
	@mkdir -p $(dir $(SPOOL))
	exec $(BIN)/hacheck -B 127.0.0.1 -p $(PORT) --spool-root $(SPOOL)

demo: build ## show hacheck in a minute: HAProxy and two toy services on free ports; needs haproxy, no root
	@go run ./demo -bin $(BIN)

demo-fleet: build ## show three hosts that coordinate through etcd; needs haproxy and etcd, no root
	@go run ./demo -fleet -bin $(BIN)

# With the build tag "poison" the daemon overwrites each buffer after its request
# (internal/proxy/fastpath/poison_on.go): a test then sees data that was not copied.
test: ## install the servers that the tests need (as root), then run all tests under the race detector; HAPROXY=/path uses another HAProxy, ETCD=/path another etcd
	test/install.sh
	@# Debian installs servers in sbin, which is not in the PATH of a user. The timeout of 30 minutes is for tests that hang:
	@# on a slow machine a package needs more than the 10 minutes that are the default.
	PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" CGO_ENABLED=1 go test -race -shuffle=on -tags poison,$(TAGS) -timeout 30m ./...

test-mysql: ## test the check mysql against a real MySQL, MYSQLD=/path/to/mysqld of 8.4 or later; needs mariadb-client
	CGO_ENABLED=1 go test -race -tags mysql,$(TAGS) -count=1 -timeout 30m -run '^TestMySQL' ./internal/check

broken-rules: ## break one rule of the fleet after the other, and fail unless its tests notice; needs etcd
	go test -tags brokenrules,$(TAGS) -count=1 -v -timeout 30m -run TestBrokenRules ./test

fleet-simulation: ## simulate a fleet of HOSTS (1000) hosts that get PERMITS (5000) while connections, processes and etcd fail; SEED=number repeats the faults of a run; needs etcd
	go test -count=1 -v -timeout 60m -run '^TestSimulation$$' ./internal/fleet -hosts $(or $(HOSTS),1000) -permits $(or $(PERMITS),5000) -seed $(or $(SEED),0)

fleet-kills: ## kill daemons with SIGKILL in the moment of an acknowledgement, KILLS (200) times, and start them again without etcd; needs etcd
	go test -count=1 -v -timeout 60m -run '^TestFleetKilledAtAcknowledgement$$' ./test -kills $(or $(KILLS),200)

lint: ## golangci-lint, gofumpt, staticcheck, and go vet for Linux, macOS and FreeBSD
	$(TOOL) golangci-lint run ./...
	@unformatted=$$($(TOOL) gofumpt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted as gofumpt does:"; echo "$$unformatted"; exit 1; fi
	$(TOOL) staticcheck ./...
	@# Without cgo, as the commands are built: there are no C compilers for the other systems.
	CGO_ENABLED=0 GOOS=linux go vet ./...
	CGO_ENABLED=0 GOOS=linux go vet -tags mysql,brokenrules ./internal/check ./test
	CGO_ENABLED=0 GOOS=darwin go vet ./...
	CGO_ENABLED=0 GOOS=freebsd go vet ./...

vulncheck: ## look up all linked packages in Go's vulnerability database; needs https to vuln.go.dev, or VULNDB
	@$(TOOL) govulncheck $(if $(VULNDB),-db $(VULNDB)) ./cmd/... || { code=$$?; \
	if [ $$code != 3 ]; then echo "not checked: this needs https to vuln.go.dev (HTTPS_PROXY is obeyed), or a copy of" \
		"the database: make vulncheck VULNDB=https://mirror or VULNDB=file:///directory" \
		"(https://go.dev/security/vuln/database says what is in one)"; fi >&2; exit $$code; }

fuzz: ## run every fuzz test for FUZZTIME (20s) each
	test/fuzz.sh $(FUZZTIME)

bench: build ## compare speed and memory with bare net/http, nginx and HAProxy (25 minutes); see bench/RESULTS.md
	go run ./bench -bin $(BIN) $(BENCHFLAGS)

package: ## build deb and rpm packages and a container file system for amd64 and arm64 into dist/
	@mkdir -p $(DIST)
	DIST=$(abspath $(DIST)) VERSION=$(VERSION) packaging/build.sh

golden: ## write the golden files again from the current output; read the diff before you commit
	@pkgs=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -r -n1 dirname | sort -u); \
	if [ -z "$$pkgs" ]; then echo "no package has golden files"; else set -x; go test $$pkgs -update; fi

clean: ## remove the output of the other targets
	rm -rf $(BIN) run dist
