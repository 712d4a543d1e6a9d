# Targets that run Python share a virtual environment, .venv, which the first of them makes; each installs what it needs on
# its first call, and again only when pyproject.toml or setup.py change. EQKERNEL_DATA, if set, is where MNIST and the others
# are looked for.
PYTHON ?= python3
BIN := .venv/bin
CUDA ?= 13
# What the GPU targets install first; empty, with BIN, they use a Python that has it all (docs/cuda.md).
GPU_NEEDS ?= .venv/installed-test .venv/installed-cuda$(CUDA)
GPU_BENCH_NEEDS ?= .venv/installed-bench .venv/installed-cuda$(CUDA)
FUZZ_SECONDS ?= 600
PREFIX ?= /usr/local
PYTHONS ?= python3.11 python3.12 python3.13
CFLAGS ?= -O3
GPU_TESTS := tests/test_cuda.py tests/test_cuda_backend.py tests/test_cuda_conv.py tests/test_cuda_large.py
APT = $$([ $$(id -u) = 0 ] || echo sudo) apt-get install --yes --no-install-recommends

.PHONY: help demo test bench test-gpu bench-gpu lint clean fuzz install-c check-fixed check-rtl check-sanitize \
    check-planted check-valgrind check-wheel synth vectors

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s%s\n", $$1, $$2 }' Makefile

demo: .venv/installed ## train on 8x8 digits with three seeds; weights and a picture land in demo/
	$(BIN)/eqkernel train digits --seeds 3 --out demo

# A crashed worker ends the run: replaced, it would leave pytest-xdist waiting for its files for ever.
test: .venv/installed-test ## run the tests, a file to a process
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

bench: .venv/installed-bench ## time eqkernel beside its rivals (installs torch and jax)
	$(BIN)/python -m bench

test-gpu: $(GPU_NEEDS) ## test the CUDA kernels on this machine's GPU (CUDA=12 or 13)
	EQKERNEL_GPU=1 $(BIN)/python -m pytest -W default::UserWarning -W default::FutureWarning $(GPU_TESTS)
	for tool in memcheck racecheck initcheck synccheck; do \
		EQKERNEL_GPU=1 compute-sanitizer --tool $$tool --error-exitcode 1 $(BIN)/python tests/cuda_cases.py || exit 1; done

bench-gpu: $(GPU_BENCH_NEEDS) ## time the CUDA backend beside its rivals; writes bench-gpu.json
	$(BIN)/python -m bench.gpu

# mypy reads no compiled code, so none is made for it.
lint: .venv/installed-lint ## ruff on the sources, mypy on the package as it installs
	$(BIN)/ruff check .
	rm -rf build
	CC=false $(BIN)/pip install --quiet --no-deps --target build/package .
	MYPYPATH=build/package $(BIN)/mypy --package eqkernel

check-fixed: .venv/made ## integer network: ap_fixed and ac_fixed equal C99 (fetches the headers that hls4ml carries)
	[ -d .venv/hls4ml ] || $(BIN)/pip install --quiet --no-deps --target .venv/hls4ml hls4ml==1.3.0
	sh bindings/integer/check_fixed.sh .venv/hls4ml/hls4ml/templates

check-rtl: ## integer network: SystemVerilog equals C99 in Verilator, bits and cycles (installs Verilator on Debian)
	command -v verilator > /dev/null || $(APT) verilator
	sh bindings/integer/rtl/check_rtl.sh build/rtl

check-sanitize: .venv/installed-test ## C library: AddressSanitizer and UBSan find nothing in the examples and the C tests
	$(BIN)/python -m pytest -q tests/test_c_examples.py tests/test_fuzz.py tests/test_integer_vectors.py

PLANTED = tests/test_c_mutations.py tests/test_mutations.py
check-planted: .venv/installed-test ## the bugs planted in compiled code that `make test` leaves out are caught too
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --max-worker-restart 0 -m exhaustive \
		$(PLANTED)

check-valgrind: .venv/installed-test ## C library and integer network: valgrind finds nothing (installs it on Debian)
	command -v valgrind > /dev/null || $(APT) valgrind
	$(BIN)/python -m pytest -q tests/test_fuzz.py tests/test_integer_vectors.py -k valgrind

check-wheel: .venv/made ## one wheel installs, checks itself and trains on each of PYTHONS (python3.11 python3.12 python3.13)
	rm -rf build/wheel
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	cd build/wheel && for python in $(PYTHONS); do \
		home=$$(basename $$python) && $$python -m venv $$home && \
		$$home/bin/pip install --quiet --disable-pip-version-check ./*.whl && \
		$$home/bin/eqkernel doctor && $$home/bin/eqkernel train digits --backend c --out $$home/digits || exit 1; done

install-c: ## compile the C library; put it, its header and eqkernel.pc under PREFIX (/usr/local)
	mkdir -p $(PREFIX)/include $(PREFIX)/lib/pkgconfig
	$(CC) -std=c99 $(CFLAGS) -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC -shared \
		-Ibindings/include bindings/src/*.c -lm -o $(PREFIX)/lib/libeqkernel.so
	cp bindings/include/eqkernel.h $(PREFIX)/include
	printf 'Name: eqkernel\nDescription: %s\nVersion: %s\nCflags: -I%s\nLibs: -L%s -leqkernel\nLibs.private: -lm\n' \
		'equilibrium propagation in C99' "$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		'$(PREFIX)/include' '$(PREFIX)/lib' > $(PREFIX)/lib/pkgconfig/eqkernel.pc

fuzz: ## fuzz the C ABI with libFuzzer for FUZZ_SECONDS, 600 (installs clang on Debian)
	sh tests/fuzz/fuzz.sh probe || $(APT) clang libclang-rt-dev
	sh tests/fuzz/fuzz.sh $(FUZZ_SECONDS) build/fuzz

synth: .venv/installed-hardware ## integer network: resources and clock on an ECP5, five seeds (some 45 minutes on two cores)
	$(BIN)/python bindings/integer/rtl/synthesise.py

vectors: .venv/installed ## write the integer network's golden vectors again
	$(BIN)/python -m eqkernel.integer.vectors bindings/integer/vectors

clean: ## remove the virtual environment, the demo's results and everything built
	rm -rf .venv build dist demo *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find kernel tests bench -name __pycache__ -prune -exec rm -rf {} +

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "eqkernel needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/installed: .venv/made pyproject.toml setup.py
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-%: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
