# make demo · make test · make bench: each sets up .venv by itself, and again only what has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE_SOURCES := $(wildcard csrc/*) CMakeLists.txt

.DEFAULT_GOAL := help
.PHONY: help demo test sanitize bench clean compiler

help:
	@echo "make demo      train on handwritten digits, evaluate, and predict one image (about a minute)"
	@echo "make test      all tests and checks (about ten minutes, most of it the sanitizers)"
	@echo "make sanitize  the kernels' tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer"
	@echo "make bench     gatewise beside torch.nn.LSTM over a grid of sizes, and its variants (a quarter of an hour)"
	@echo "make clean     remove .venv and everything built"

demo: $(VENV)/built
	@rm -rf runs/demo
	$(BIN)/gatewise train digits --run runs/demo
	$(BIN)/gatewise evaluate runs/demo
	$(BIN)/gatewise predict runs/demo docs/seven.png

test: $(VENV)/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if $(HAS_SANITIZERS); then $(MAKE) --no-print-directory sanitize; \
	else echo "left out: make sanitize, which needs GCC with libasan, libubsan and libtsan"; fi
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2 --dist loadfile

bench: $(VENV)/built
	$(BIN)/gatewise bench
	$(BIN)/gatewise bench --variants all

# The kernels' tests with each read, write and operation checked (address) and with races between threads seen (thread),
# on a build of the core with nothing of torch; again only when something of it has changed.
sanitize:
	@$(MAKE) --no-print-directory --jobs=2 --output-sync build/sanitize-address/passed build/sanitize-thread/passed

GCC := $${CXX:-c++}
HAS_SANITIZERS = $(GCC) -v 2>&1 | grep -q '^gcc version' && \
  for name in asan ubsan tsan; do test -e "$$($(GCC) -print-file-name=lib$$name.so)" || exit 1; done

RUNTIME_address := asan
RUNTIME_thread := tsan
TESTS_address := tests/test_kernels.py tests/test_varied_kernels.py tests/test_math.py
TESTS_thread := tests/test_kernels.py tests/test_varied_kernels.py -m threads
# Red zones wider than any vector; fresh memory full of NaN. (Python keeps some memory to its end.)
OPTIONS_address := ASAN_OPTIONS=detect_leaks=0:redzone=256:max_malloc_fill_size=1000000000:malloc_fill_byte=255 \
  UBSAN_OPTIONS=print_stacktrace=1
OPTIONS_thread := TSAN_OPTIONS=halt_on_error=1

# Threads that wait do not spin: two test runs share the cores. Python starts without its site module, whose .pth files
# would put the usual gatewise first. ThreadSanitizer of GCC 12 does not know the memory map that newer kernels draw by
# chance: setarch -R has them draw none, where it may.
build/sanitize-%/passed: $(VENV)/installed $(CORE_SOURCES) $(wildcard src/gatewise/kernels/*.py) \
    src/gatewise/reference/code.py tests/test_kernels.py tests/test_varied_kernels.py tests/cells.py tests/test_math.py \
    | compiler
	@echo "the kernels' tests, sanitizer $*"
	@rm -rf $(@D)/package && mkdir -p $(@D)/package && cp -R src/gatewise $(@D)/package
	@$(BIN)/cmake -S . -B $(@D) -G Ninja -D CMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -D Python_EXECUTABLE=$(abspath $(BIN))/python -D nanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)" \
	  -D GATEWISE_SANITIZE=$* --log-level=WARNING >$(@D)/configured
	@$(BIN)/cmake --build $(@D) -- --quiet -j2
	@$(BIN)/cmake --install $(@D) --prefix $(@D)/package >$(@D)/installed
	@libraries=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))'); \
	fixed=$$(setarch -R true 2>/dev/null && echo setarch -R); \
	export PYTHONPATH=$(@D)/package:$$libraries OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(OPTIONS_$*) \
	LD_PRELOAD="$$($(GCC) -print-file-name=lib$(RUNTIME_$*).so) $$($(GCC) -print-file-name=libstdc++.so)"; \
	$$fixed $(BIN)/python -S -c 'from gatewise import _core; assert _core.__file__.startswith("$(abspath $(@D))")' && \
	$$fixed $(BIN)/python -S -m pytest -q -p no:faulthandler --capture=sys $(TESTS_$*)
	@touch $@

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

# gatewise itself, in place: only a change of the core compiles again. (What is installed knows each module's file by name,
# and finds a file that has become a package only when it is installed again.)
$(VENV)/built: $(VENV)/installed $(CORE_SOURCES) $(wildcard src/gatewise/*/__init__.py) | compiler
	@echo "compiling the core ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
