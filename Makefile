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

RACE := . ./journal/... ./follow/... ./internal/... ./memory ./sqlite ./pebble ./redis ./inbox ./outbox ./transport ./nats ./cache ./aggregate ./saga ./intent ./projection

.PHONY: race
race: ## the toolkit's tests with the race detector, one package after the other; on PostgreSQL and etcd with fewer random cases
	@go list -race -export -deps -test $(RACE) ./postgres ./etcd >/dev/null # compiled on all cores before
	go test -race -p=1 $(RACE)
	go test -race -short -p=1 ./postgres ./etcd

.PHONY: bench
bench: ## benchmarks of docs/benchmarks.md
	go test -run '^$$' -bench . ./sqlite ./pebble ./journal ./transport ./internal/writer ./redis ./shop/orderdb

.PHONY: bench-postgres
bench-postgres: ## PostgreSQL: appends against the bare driver, and beside a history of ten million events
	FREEHOLD_REQUIRE=postgres go test -run '^$$' -bench Conformance/append -benchtime 6x ./postgres
	FREEHOLD_REQUIRE=postgres FREEHOLD_BENCH_EVENTS=10000000 go test -run '^$$' -bench History -benchtime 40x -timeout 2h -v ./postgres

.PHONY: mutants
mutants: ## plant each bug and see its suite turn red
	./internal/mutant/run

.PHONY: torture
torture: ## PostgreSQL's journal under 64 writers, kills and a stranger's transaction, two minutes each
	FREEHOLD_TORTURE=2m FREEHOLD_REQUIRE=postgres go test -timeout 40m -count 1 -v -run '^TestTorture$$' ./postgres

.PHONY: replay
replay: ## the whole Online Retail year against its truth table; needs FREEHOLD_RETAIL_DATA, a directory
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json --stock 1000
	go run ./cmd/shop replay $(RETAIL)/online-retail.csv.gz --truth $(RETAIL)/truth.json --stock 1000 --policy partial

.PHONY: servers
servers: ## the replay on servers while each of them is killed; needs FREEHOLD_RETAIL_DATA
	./internal/crash/servers $(RETAIL)

.PHONY: crash
crash: ## kill -9 at random moments of the replay; needs FREEHOLD_RETAIL_DATA
	./internal/crash/run $(RETAIL)
