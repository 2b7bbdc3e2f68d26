# `make` alone lists what there is. Only Go and git are needed to build and run;
# `make test` installs the servers it tests against (see test/install.sh).

# One version for all commands; a tree without tags or without git is "dev".
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo dev)

# The version is stamped by the linker. Go's own stamping would fail the build in a checkout that
# another user owns, which is how many build machines look.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

BIN      ?= bin
PORT     ?= 3333
SPOOL    ?= run/spool
FUZZTIME ?= 20s
DIST     ?= dist

COMMANDS := hacheck haup hadown hastatus
TOOL     := go tool -modfile=tools/go.mod

# Without cgo the commands start faster, run on every distribution, and come out the same whether or
# not there is a C compiler. The profile in cmd/hacheck/default.pgo is picked up by the go command.
build run demo bench: export CGO_ENABLED := 0

# What a package is made of is as old as its commit: the same commit makes the same bytes.
package: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
package: export ARCHES  ?= amd64 arm64
package: export FORMATS ?= deb rpm root

.PHONY: help build run demo test lint vulncheck fuzz bench package golden clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the commands into bin/
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ $(COMMANDS:%=./cmd/%)
	@ln -sf hastatus $(BIN)/halist
	@ln -sf hastatus $(BIN)/hashowdowned

run: build ## build, then run the daemon on 127.0.0.1:3333 with the overrides in run/spool; needs no root
	@mkdir -p $(dir $(SPOOL))
	exec $(BIN)/hacheck -B 127.0.0.1 -p $(PORT) --spool-root $(SPOOL)

demo: build ## watch a minute of it: HAProxy, hacheck and two toy services on free ports; needs haproxy, no root
	@go run ./demo -bin $(BIN)

# With the tag "poison" the daemon overwrites each buffer once its request is answered: see internal/proxy/fastpath/poison_on.go.
test: ## install the servers the tests need (as root), then run every test under the race detector; HAPROXY=/path takes another HAProxy
	test/install.sh
	@# sbin is where Debian keeps servers, and not on the PATH of a user who is not root. The time limit is for what
	@# hangs: a slow or busy machine takes longer than the 10 minutes for a package that are go test's default.
	PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" CGO_ENABLED=1 go test -race -shuffle=on -tags poison -timeout 30m ./...

lint: ## golangci-lint, gofumpt, staticcheck, and go vet for Linux, macOS and FreeBSD
	$(TOOL) golangci-lint run ./...
	@unformatted=$$($(TOOL) gofumpt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted as gofumpt does:"; echo "$$unformatted"; exit 1; fi
	$(TOOL) staticcheck ./...
	@# cgo off: the other systems' C compilers are not at hand, and the commands are built without it.
	CGO_ENABLED=0 GOOS=linux go vet ./...
	CGO_ENABLED=0 GOOS=darwin go vet ./...
	CGO_ENABLED=0 GOOS=freebsd go vet ./...

vulncheck: ## ask Go's vulnerability database about all that is linked; needs https to vuln.go.dev, or VULNDB
	@$(TOOL) govulncheck $(if $(VULNDB),-db $(VULNDB)) ./cmd/... || { code=$$?; \
	if [ $$code != 3 ]; then echo "not checked: this needs https to vuln.go.dev (HTTPS_PROXY is obeyed), or a copy of" \
		"the database: make vulncheck VULNDB=https://mirror or VULNDB=file:///directory" \
		"(https://go.dev/security/vuln/database says what is in one)"; fi >&2; exit $$code; }

fuzz: ## run every fuzz test for FUZZTIME (20s) each
	test/fuzz.sh $(FUZZTIME)

bench: build ## measure all that has a floor, beside bare net/http, nginx and HAProxy (20 minutes); bench/RESULTS.md
	go run ./bench -bin $(BIN) $(BENCHFLAGS)

package: ## deb and rpm packages for amd64 and arm64, and what a container is made of, into dist/
	@mkdir -p $(DIST)
	DIST=$(abspath $(DIST)) VERSION=$(VERSION) packaging/build.sh

golden: ## write the golden files anew from what the code prints today; read the diff before committing
	@pkgs=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -r -n1 dirname | sort -u); \
	if [ -z "$$pkgs" ]; then echo "no package has golden files"; else set -x; go test $$pkgs -update; fi

clean: ## remove what the other targets have built
	rm -rf $(BIN) run dist
