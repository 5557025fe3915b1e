# Two commands matter: `make demo` and `make test`. Both set everything up in .venv first.

PYTHON ?= python3
# Any torch >= 2.13 will do; camfuse is built against the one found in .venv.
TORCH ?= torch==2.14.1 torchvision==0.29.1
# One wheel must serve the oldest torch and the newest.
SMOKE_TORCH ?= 2.13.0 2.14.1

# Whether the CUDA code is compiled, auto, on or off; see cmake/CudaSwitch.cmake.
export CAMFUSE_CUDA ?= auto

# The GPU's own code; CI, which has none, names an architecture.
NVCC_ARCH ?= -arch=native
GPU_CHECK ?= build/gpu_check
# What `make test` leaves out, such as --ignore=tests/gates.
LEFT_OUT ?=
# Tests run in as many processes as there are processors, one thread each unless a test says more.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile \
  --no-loadscope-reorder

VENV := .venv
# One for the editable install and the wheel: what does not depend on CUDA is compiled once.
BUILD := build/native
EDITABLE = --quiet --no-build-isolation --config-settings build-dir=$(BUILD) --editable
BUILT := $(VENV)/.built-$(CAMFUSE_CUDA)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
NATIVE := CMakeLists.txt $(shell find cmake csrc -type f)
NATIVE_CODE := $(shell find csrc tests/emulator tests/standalone -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test test-all test-gpu parity lint format sanitize cuda wheel smoke-wheel bench \
  bench-ops gpu-check bench-gpu sanitize-gpu clean

demo: $(BUILT)  ## A real animation: EfficientNet-Lite0 looks at a cat
	$(VENV)/bin/camfuse demo --out demo

test: $(BUILT) $(VENV)/.dev  ## The test suite
	$(PYTEST) -m "not slow" $(LEFT_OUT)

test-all: $(BUILT) $(VENV)/.dev  ## The test suite with its slow grids
	$(PYTEST)

test-gpu: $(BUILT) $(VENV)/.dev  ## The tests that need a CUDA device; build with CAMFUSE_CUDA=on
	CAMFUSE_REQUIRE_CUDA=1 $(PY) -m pytest -m cuda

parity: $(BUILT) $(VENV)/.dev  ## Maps, and the faces', against other libraries'; the former go to docs/parity.md
	$(PY) tools/parity.py
	$(PYTEST) tests/compat

lint: $(BUILT) $(VENV)/.dev  ## Style, types, formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(NATIVE_CODE)
	$(VENV)/bin/mypy

format: $(VENV)/.dev  ## Rewrites files as `make lint` wants them
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(NATIVE_CODE)

sanitize: $(VENV)/.dev  ## The native ops and their tests under ASan and UBSan
	$(PY) tools/sanitize.py

cuda: $(VENV)/.dev  ## Compiles the CUDA code for every architecture and reads what came out; no GPU
	rm -rf build/cuda-wheel
	CAMFUSE_CUDA=on $(PIP) wheel --verbose --no-build-isolation --no-deps \
	  --config-settings build-dir=$(BUILD) --wheel-dir build/cuda-wheel .
	$(PY) tools/check_cuda_build.py $(BUILD)
	CAMFUSE_REQUIRE_CUDA_BUILD=1 $(PYTEST) tests/gates

wheel: cuda  ## A wheel for other machines, with CUDA code inside, in dist/
	rm -f dist/camfuse-*.whl
	PATH="$(abspath $(VENV)/bin):$$PATH" auditwheel repair --wheel-dir dist \
	  --exclude 'libtorch*.so' --exclude 'libc10*.so' build/cuda-wheel/camfuse-*.whl
	$(PY) tools/check_wheel.py dist/camfuse-*.whl $(BUILD)

smoke-wheel: wheel  ## Tries that wheel in clean environments, without a compiler
	$(PY) tools/smoke_wheel.py dist/camfuse-*.whl $(SMOKE_TORCH)

bench: $(BUILT) $(VENV)/.dev  ## All measurements, and the pages that show them; takes hours
	for name in $$($(PY) -c "from benchmarks.catalogue import ON_CPU; print(*ON_CPU)"); do \
	  $(PY) -m benchmarks $$name --json benchmarks/results/$$name.json || exit 1; done
	$(PY) -m benchmarks.table

bench-ops: $(BUILT) $(VENV)/.dev  ## How long each native op takes, to compare two builds
	$(PY) -m pytest benchmarks/test_ops.py --benchmark-only

bench-gpu: $(BUILT) $(VENV)/.dev  ## What a GPU takes for layer_cam, fused_cam and render_frames
	$(PY) -m benchmarks gpu --json benchmarks/results/gpu.json

gpu-check: $(GPU_CHECK)  ## Checks and times the CUDA ops on a GPU, without torch
	$(GPU_CHECK)

sanitize-gpu: $(GPU_CHECK) $(BUILT) $(VENV)/.dev  ## The CUDA ops under compute-sanitizer
	for tool in memcheck racecheck synccheck initcheck; do \
	  checked="compute-sanitizer --tool $$tool --error-exitcode 1"; \
	  $$checked $(GPU_CHECK) --check-only && \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 CAMFUSE_REQUIRE_CUDA=1 \
	    $$checked $(PY) -m pytest -q -m cuda || exit 1; done

$(GPU_CHECK): $(NATIVE) $(wildcard tests/standalone/* tests/emulator/random.h)
	mkdir -p $(@D)
	nvcc -std=c++17 -O3 -fmad=false --expt-relaxed-constexpr -Icsrc $(NVCC_ARCH) -o $@ \
	  -Werror all-warnings -Xcompiler=-Wall,-Wextra,-Werror \
	  tests/standalone/gpu_check.cu $(addprefix csrc/cuda/,layer_cam.cu fused_cam.cu render_frames.cu)

clean:
	rm -rf $(VENV) build demo

# The environment with all that the demo needs. Torch comes first: camfuse's native code is built
# against it, without build isolation.
$(VENV)/.demo: pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet $$($(PY) -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'])")
	$(PIP) install $(EDITABLE) '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install $(EDITABLE) '.[dev]'
	$(PIP) install --quiet --no-deps quantus==0.6.0
	touch $@

# Native code is built again when it changes; Python code is used where it lies.
$(BUILT): $(VENV)/.demo $(NATIVE)
	$(PIP) install --no-deps $(EDITABLE) .
	rm -f $(VENV)/.built-*
	touch $@
