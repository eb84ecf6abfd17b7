.PHONY: build demo test cross release bench torture lint fmt docs fuzz clean

build: ## the program, stripped, in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/bake ./cmd/bake

demo: ## bake the web server on the embedded cloud and fetch its page
	scripts/demo

test: ## everything that must pass
	scripts/test

cross: ## that the other systems can have it too; "scripts/cross all" builds for each
	scripts/cross

release: ## archives, packages, SBOMs and checksums for every system, in dist/
	scripts/release

bench: ## what docs/performance.md holds
	scripts/bench

torture: ## kill, refuse and lose at every point of a bake; see docs/reliability.md
	go run ./internal/torture

lint: ## golangci-lint v2, built from source if need be
	scripts/lint

fmt:
	gofmt -w $$(git ls-files '*.go')

docs: ## generate docs/options from the source, and what the program has of docs
	go test ./docs -update
	go test ./builtin/reference -update

fuzz: ## each fuzz target for a minute
	scripts/fuzz

clean:
	rm -rf bin dist
