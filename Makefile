# The commands every contributor needs. `make help` lists them.
#
# Versions of the tools that are not part of the module stand here and nowhere else.
GOFUMPT_VERSION     := v0.12.0
STATICCHECK_VERSION := v0.8.2
GOLANGCI_VERSION    := v2.15.0

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO          ?= go
FUZZTIME    ?= 10s
KILLS       ?= 1000
BENCH       ?= .

# tool PACKAGE,VERSION runs a pinned tool: the installed one where it is exactly
# that version, else `go run`, which builds it once into Go's own cache.
tool = integration/tool.sh $(1) $(2)
gofumpt      := $(call tool,mvdan.cc/gofumpt,$(GOFUMPT_VERSION))
staticcheck  := $(call tool,honnef.co/go/tools/cmd/staticcheck,$(STATICCHECK_VERSION))
golangci     := $(call tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_VERSION))

.PHONY: help build demo test test-setup check lint fuzz bench bench-mx bench-imap bench-tunnel soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/understudy, one static binary (Go stamps it with the commit)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/understudy ./cmd/understudy

demo: build ## both sites on this machine: no root, no server, one minute
	bin/understudy demo

test-setup: ## on Debian as root: install what the tests want; elsewhere say what is missing
	@integration/setup.sh

# The race detector covers every package; the stories with real servers run
# after it, one at a time, because they measure time and fill disks.
test: test-setup ## everything; says at the end what was skipped and why
	@$(GO) run ./integration/testreport \
		-- $$(integration/race.sh) -shuffle=on -timeout 10m $$($(GO) list ./... | grep -v /integration) \
		-- -shuffle=on -p 1 -timeout 13m ./integration/...

check: ## formatting, vet, staticcheck and the floor plan
	@bad=$$($(gofumpt) -l -modpath understudy $$(git ls-files -co --exclude-standard '*.go')); \
		if [ -n "$$bad" ]; then echo "not gofumpt-ed:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(staticcheck) ./...
	$(GO) test -count=1 -run '^TestArchitecture$$' ./integration

lint: ## golangci-lint with .golangci.yml (its first build takes minutes)
	$(golangci) run ./...

fuzz: ## every fuzz target for FUZZTIME (10s)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg; \
		done; \
	done

bench: ## the packages' own benchmarks (BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

bench-mx: test-setup ## against Postfix, in turn, in one run; writes docs/results/bench-mx.md
	@mkdir -p docs/results
	$(GO) run ./integration/bench -out docs/results/bench-mx.md

bench-tunnel: test-setup ## against haproxy, in turn, in one run; writes docs/results/bench-tunnel.md
	@mkdir -p docs/results
	$(GO) run ./integration/bench-tunnel -out docs/results/bench-tunnel.md

bench-imap: test-setup ## mbsync, interimap and dsync on the same mailboxes, in one run; writes docs/results/bench-imap.md
	@mkdir -p docs/results
	$(GO) run ./integration/bench-imap -out docs/results/bench-imap.md

soak: test-setup ## the kill and power-cut tests, KILLS (1000) times; merges; the journal's cost
	LAB_KILLS=$(KILLS) $(GO) test -count=1 -v -timeout 120m -run 'Kill|PowerCut' ./integration
	$(GO) test -tags soak -count=1 -v -timeout 10m -run TestMergeOfTwoRspamd ./integration
	LAB_SEEDS=10 $(GO) test -tags soak -count=1 -v -timeout 60m -run 'TestMailsync(Chaos|Cuts)' ./integration
	LAB_SEEDS=30 $(GO) test -count=1 -v -run 'TestReturn|TestHomeMoves$$' ./spamsync/replica/merge
	LAB_COST=2 $(GO) test -count=1 -v -run TestCost ./spamsync/replica/journal
	LAB_CONNECTS=1 $(GO) test -count=1 -v -run NothingLeaks ./dnsfailover/tunnel
	LAB_HISTORIES=20000 $(GO) test -count=1 -v -timeout 60m -run '^TestHistories$$' ./dnsfailover
	LAB_PROFILE=default $(GO) test -count=1 -v -timeout 60m -parallel 6 -run '^TestFailoverDark$$' ./integration
	LAB_PROFILE=fast $(GO) test -count=1 -v -timeout 60m -parallel 6 -run '^TestFailoverDark$$' ./integration
	LAB_PROFILE=default LAB_OUTAGE=10m $(GO) test -count=1 -v -timeout 60m -run '^TestFailover(Cut|RegisterGone)$$' ./integration

clean: ## remove what the targets above built
	rm -rf bin dist
