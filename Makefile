# `make help` lists the targets. Recipes of more than a line are in scripts/.

SHELL := /bin/bash
TOOL := go tool -modfile=$(CURDIR)/tools/go.mod
TEMPORAL := authz/temporal
# Arguments for the programs that run and demo start, as in `make run ARGS="--data /tmp/x"`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help build run demo test lint bench fuzz generate verify postgres openid verifiers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the programs into bin/
	go build -o bin/ ./cmd/...

run: build postgres ## build and serve a development set-up with its own database
	bin/sallyportd dev $(ARGS)

demo: postgres ## tell the whole story on a real Temporal server, to the revoked worker
	cd $(TEMPORAL) && go run ./cmd/demo $(ARGS)

test: postgres verifiers openid ## run all tests, of both modules
	@scripts/test.sh

lint: ## check the code of both modules and their dependencies' known vulnerabilities
	@scripts/lint.sh

bench: postgres ## run the benchmarks, of both modules
	go test -run '^$$' -bench . -benchmem ./...
	cd $(TEMPORAL) && go test -run '^$$' -bench . -benchmem ./...

fuzz: ## fuzz each target for FUZZTIME (10s)
	@scripts/fuzz.sh

generate: ## write the generated code: protobuf, schema.sql, the Temporal method table
	$(TOOL) buf lint
	$(TOOL) buf generate
	go test ./migrations -run TestSchema -update
	cd $(TEMPORAL) && go run ./internal/genmethods ../temporal_methods.go

verify: ## fail when the generated code is not what `make generate` writes
	@scripts/verify.sh

postgres: # install PostgreSQL's programs where they are missing and that is possible
	@scripts/postgres.sh

openid: # install the OpenID providers that tests sign in with, where npm is
	@scripts/openid.sh

verifiers: # install the npm packages that check what we issue, where that is possible
	@scripts/verifiers.sh
