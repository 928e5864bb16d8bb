# Every target is one script under scripts/: what people type is what CI runs.
.DEFAULT_GOAL := help
.PHONY: help setup build run test lint format bench figures chaos asan tsan fuzz docs clean

help:    ## Show this list
	@sed -n 's/^\([a-z]*\): *## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup:   ## Install what is missing: system packages, .venv, Python packages
	@scripts/setup.sh

build:   ## Build the native core and install the package into .venv, editable
	@scripts/build.sh

run:     ## Build, start a server with two servables, send it real input, print the answers
	@scripts/run.sh

test:    ## Build and run the C++ tests, then the Python tests
	@scripts/test.sh

lint:    ## ruff, mypy --strict, clang-format: report, change nothing
	@scripts/lint.sh

format:  ## ruff and clang-format: rewrite the files
	@scripts/format.sh

bench:   ## Measure against a do-nothing server
	@scripts/bench.sh

figures: ## Measure everything, and write it into docs/benchmarks.md with its plots
	@scripts/figures.sh

chaos:   ## Load while everything is broken, for CHAOS_MINUTES (5); accounts for every request
	@scripts/chaos.sh

asan:    ## C++ tests, then Python tests, under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/cpp_tests.sh asan
	@scripts/asan_python.sh

tsan:    ## C++ tests under ThreadSanitizer
	@scripts/cpp_tests.sh tsan

fuzz:    ## Fuzzers, each for FUZZ_SECONDS (60) or FUZZ_RUNS inputs
	@scripts/fuzz.sh

docs:    ## Build the documentation into build/docs
	@scripts/docs.sh

clean:   ## Remove what was built; .venv stays
	@rm -rf build dist
