# Every target sets up what it needs. HASHSEARCH_DATA: real images, where there are some.
PYTHON ?= python3
BIN := .venv/bin
comma := ,
ifneq ($(wildcard ../shared/data),)
export HASHSEARCH_DATA ?= $(abspath ../shared/data)
endif

# An environment that could not be finished is not taken for one.
.DELETE_ON_ERROR:
.PHONY: demo test bench format soak venv clean

demo: .venv/demo ## index a sample gallery, print one search, serve the page (ARGS=--no-serve ends before)
	$(BIN)/hashsearch demo $(ARGS)

test: .venv/dev ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not soak" --numprocesses=auto --durations=15

bench: .venv/dev ## speed, beside peers
	$(BIN)/python -m benchmarks.encoding

soak: .venv/dev ## the long trials
	$(BIN)/pytest -m soak

format: .venv/dev ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: .venv/dev ## the environment, in .venv, with everything

# Without pip of its own, which Debian's Python cannot put there: the machine's does it.
.venv/bin/python:
	$(PYTHON) -m venv --without-pip .venv

# One install serves as long as what it was made from does not change.
.venv/demo .venv/dev: .venv/%: pyproject.toml constraints.txt | .venv/bin/python
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(if $(filter dev,$*),demo$(comma)dev,demo)]'
	touch $@

clean: ## drop the environment and what the checks leave behind
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
