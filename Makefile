# Every target installs what it needs. HASHSEARCH_DATA names a folder of real images, if any.
PYTHON ?= python3
BIN := .venv/bin
comma := ,
# Many tests wait for processes and clocks, so there is one more worker than cores.
WORKERS = $(shell $(BIN)/python -c "from hashsearch.hardware import usable_cores; print(usable_cores() + 1)")
ifneq ($(wildcard ../shared/data),)
export HASHSEARCH_DATA ?= $(abspath ../shared/data)
endif

# Where it is set, each of the hundreds of processes of the tests compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

# Delete a target whose recipe failed, so that an unfinished environment is built again.
.DELETE_ON_ERROR:
.PHONY: demo test bench format soak venv clean

demo: .venv/demo ## index a sample gallery, print one search, serve the page (ARGS=--no-serve skips the page)
	$(BIN)/hashsearch demo $(ARGS)

test: .venv/dev .venv/node/done ## check format, lint and types, and run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not soak" --numprocesses=$(WORKERS) --dist=loadfile \
		--no-loadscope-reorder --durations=15

bench: .venv/bench ## measure encoding, searches beside peers (ARGS=--large), exports, a cluster, the service and the page
	$(BIN)/python -m benchmarks.encoding
	$(BIN)/python -m benchmarks.search $(ARGS)
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.cluster_indexing
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.page

soak: .venv/dev ## run the long tests
	$(BIN)/pytest -m soak -o faulthandler_timeout=9000

format: .venv/dev ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: .venv/dev ## install everything into .venv

# Debian's Python cannot install pip into a new environment, so the machine's own pip is used.
.venv/bin/python:
	$(PYTHON) -m venv --without-pip .venv

# Install again only if the files that list the packages have changed. Each has what demo needs.
.venv/demo .venv/dev .venv/bench: .venv/%: pyproject.toml constraints.txt | .venv/bin/python
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[demo,heic$(if $(filter-out demo,$*),$(comma)$*)]'
	touch .venv/demo $@

# TypeScript and a maker of clients, with which tests check the page and the OpenAPI document. Where
# npm or its network is missing, those tests are skipped.
NODE_TOOLS := openapi-typescript@7.13.0 typescript@5.9.3
.venv/node/done: Makefile | .venv/bin/python
	if command -v npm >/dev/null; then \
		npm install --loglevel=error --no-fund --no-audit --fetch-retries=1 --fetch-timeout=30000 \
			--prefix .venv/node $(NODE_TOOLS) && touch $@ || echo "npm failed: tests that need it are skipped"; \
	fi

clean: ## delete the environment and the caches of the checks
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
