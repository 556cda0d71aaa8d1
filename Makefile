# make demo · make test · make bench: each sets up .venv by itself, and again only what has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE_SOURCES := $(wildcard csrc/*) CMakeLists.txt

.DEFAULT_GOAL := help
.PHONY: help demo test bench clean compiler

help:
	@echo "make demo    train on handwritten digits, evaluate, and predict one image (about a minute)"
	@echo "make test    all tests and checks (a few minutes)"
	@echo "make bench   gatewise beside torch.nn.LSTM over a grid of sizes (about ten minutes)"
	@echo "make clean   remove .venv and everything built"

demo: $(VENV)/built
	@rm -rf runs/demo
	$(BIN)/gatewise train digits --run runs/demo
	$(BIN)/gatewise evaluate runs/demo
	$(BIN)/gatewise predict runs/demo docs/seven.png

test: $(VENV)/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

bench: $(VENV)/built
	$(BIN)/gatewise bench

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

compiler:
	@for cxx in "$$CXX" c++ g++ clang++; do \
	  if [ -n "$$cxx" ] && command -v $$cxx >/dev/null 2>&1; then exit 0; fi; \
	done; \
	echo "gatewise needs a C++ compiler and found none: install one (Debian, Ubuntu: apt install g++) or name yours in CXX" >&2; \
	exit 1

# The virtual environment with everything in the versions that constraints.txt names.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "gatewise needs Python 3.11 or newer and '$(PYTHON)' is none: name another, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing what gatewise needs into $(VENV) (a minute or two) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $(VENV)/requirements.txt
	@touch $@

# gatewise itself, in place: only a change of the core compiles again.
$(VENV)/built: $(VENV)/installed $(CORE_SOURCES) | compiler
	@echo "compiling the core ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
