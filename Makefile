# The only set-up there is: each target makes its own .venv and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-matrix lint docs dist clean

$(VENV)/.ready: pyproject.toml scripts/setup.sh
	PYTHON="$(PYTHON)" bash scripts/setup.sh "$(VENV)"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/autotune-rlm demo

test: $(VENV)/.ready lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The suite at both ends of what is supported: the oldest Python with the oldest Triton, the newest with the newest.
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
test-matrix:
	PYTHON="$(OLDEST_PYTHON)" TRITON_VERSION=3.4.0 bash scripts/setup.sh .venv-oldest
	PYTHON="$(NEWEST_PYTHON)" TRITON_VERSION=3.9.0 bash scripts/setup.sh .venv-newest
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile

# The pages and the reference of every public name: build/site/index.html opens without a server.
docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# What `pip install` takes: a wheel and a source distribution in dist/.
dist: $(VENV)/.ready
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest build dist
