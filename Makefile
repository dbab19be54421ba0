SHELL := bash
RETAIL ?= $(FREEHOLD_RETAIL_DATA)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: check
check: format vet lint test race ## everything that must hold before a change lands

.PHONY: format
format: ## fail if a file is not gofmt-ed
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }

.PHONY: vet
vet: ## go vet
	go vet ./...

.PHONY: lint
lint: ## staticcheck, as a tool of the module
	go tool staticcheck ./...

.PHONY: test
test: ## all tests that need no server
	go test ./...

.PHONY: race
race: ## the toolkit's tests with the race detector
	go test -race . ./journal/... ./follow/... ./internal/... ./memory ./sqlite ./pebble ./inbox ./outbox ./transport ./nats ./cache ./aggregate ./saga ./intent ./projection

.PHONY: bench
bench: ## benchmarks of docs/benchmarks.md
	go test -run '^$$' -bench . ./sqlite ./pebble ./journal ./transport ./internal/writer

.PHONY: mutants
mutants: ## plant each bug and see its suite turn red
	./internal/mutant/run

.PHONY: replay
replay: ## the whole Online Retail year against its truth table; needs FREEHOLD_RETAIL_DATA, a directory
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json --stock 1000
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json --stock 1000 --policy partial

.PHONY: crash
crash: ## kill -9 at random moments of the replay; needs FREEHOLD_RETAIL_DATA
	./internal/crash/run $(RETAIL)
