# Everything a person or a machine runs here. CI runs `make test` and nothing else (.ci/run).
PYTHON    ?= python3
VENV      := .venv
BIN       := $(VENV)/bin
JOBS      ?= 2
# Tests of servers and browsers wait much of their time.
TESTERS   ?= $(shell expr $(JOBS) + 1)
# Where pip has no CPU wheel of torch by itself, name an index that has one: make venv PIP_FLAGS="--extra-index-url ..."
PIP_FLAGS ?=
STAMP     := $(VENV)/.made-from-lock
NUMPY     := $(VENV)/.has-numpy
BYTECODE  := $(VENV)/.compiled
OURS      := bitwright gpu_kernels quantizers sensitivity service solvers worker
# Where the machine forbids bytecode files, each process would compile anew what it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help venv demo test cuda gpu consumers peers larger heldout chaos fuzz sweeps check format system compiled native tools bench api golden lock clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

venv: $(BYTECODE)  ## .venv with exactly the pinned versions, and bitwright itself

# All that native code needs to be compiled: that takes the second core while pip takes the first.
$(NUMPY): requirements/lock.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-compile $(PIP_FLAGS) -c requirements/lock.txt numpy
	touch $@

$(STAMP): requirements/lock.txt pyproject.toml $(NUMPY)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-compile $(PIP_FLAGS) -r requirements/lock.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

# Not by pip, which lets all else wait, but beside other work, and without the tests of others and hundreds of model
# classes, more than a third of all. What is left out is compiled where it is imported.
$(BYTECODE): $(STAMP)
	$(BIN)/python -m compileall -q -x '/tests?/|/torch/testing/_internal/|/transformers/models/' $(VENV)/lib/python*/site-packages $(OURS)
	touch $@

demo:            ## serve, plan two real models, show the plans; leaves nothing running (KEEP=1 keeps the server)
	$(MAKE) -j $(JOBS) native venv
	$(BIN)/python demo/run.py

test:            ## everything: static checks, then all tests
	$(MAKE) -j $(JOBS) --output-sync check venv compiled
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal -q

check: $(STAMP)  ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv     ## rewrite the sources in the one format
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format -q .

system:          # servers, browser and compiler that some tests use
	tools/system_packages.sh

compiled: system $(NUMPY) # native code, once there is a compiler
	$(MAKE) native

native: $(NUMPY) ## compile the native kernels and solvers (without a compiler, numpy does the work)
	@if command -v g++ >/dev/null || command -v c++ >/dev/null || command -v clang++ >/dev/null; then \
	    $(BIN)/python -m gpu_kernels.build && $(BIN)/python -m solvers.native.build; \
	else echo "no C++ compiler: nothing was compiled, numpy does the work"; fi

cuda: venv       ## compile the GPU kernels with nvcc for sm_80 and sm_90, print registers and spills
	$(BIN)/python -m gpu_kernels.cuda

gpu: venv native ## on a machine with a GPU: kernels, quantizers, metrics, jobs and the solver's pass on it, then their speeds
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) "cuda-core>=1.2" "nvidia-cuda-nvrtc>=13"
	BITWRIGHT_TEST_GPU=1 $(BIN)/python -m pytest -q tests/gpu
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu_torch

chaos: native venv    ## the long reliability tests, bounded each (docs/reliability.md lists them): RUN=name, SEED=n repeats, SHORT=1
	$(BIN)/python -m tests.chaos.runs $(or $(RUN),all) $(if $(SEED),--seed $(SEED)) $(if $(SHORT),--short)

tools: venv      ## public tools of an environment of their own: schemathesis against the API (CASES=5000, SEED=n), yamllint
	test -x .venv-tools/bin/schemathesis || { $(BIN)/python -m venv .venv-tools && .venv-tools/bin/pip install -q -r requirements/tools.txt; }
	$(BIN)/python -m tests.api.public_tools --cases $(or $(CASES),5000) $(if $(SEED),--seed $(SEED))
	.venv-tools/bin/yamllint -c docker/yamllint.yaml docker examples

consumers: venv native  ## other people's engines load what we write (own environment; the first time builds llama.cpp)
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" tools/consumers.sh
	BITWRIGHT_TEST_CONSUMERS=1 $(BIN)/python -m pytest -q tests/consumers

peers: venv native  ## AutoRound's AutoScheme and ModelOpt's auto_quantize against our plans at their bytes (own environment)
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -r requirements/peers.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers tests/models/llama-stdlib
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers tests/models/mixtral-stdlib

LARGER = $(BIN)/python -m benchmarks.streaming
FEW = --activation-mib 32 --store bfloat16 --formats int4-g64
larger: venv native  ## score and measure models four times larger than the memory of the process, block by block
	$(LARGER) tests/models/llama-stdlib --copies 4 --times 30 --limit-mib 480 --tokens 16 $(FEW)
	$(LARGER) tests/models/mixtral-stdlib --copies 4 --times 26 --limit-mib 600 --tokens 16 $(FEW) --score-only
	$(LARGER) tests/models/mixtral-stdlib --copies 4 --times 26 --limit-mib 600 --tokens 64 $(FEW) --score-only --metric moe
	$(LARGER) tests/models/mixtral-stdlib --copies 4 --times 26 --limit-mib 600 --tokens 64 $(FEW) --score-only --metric rank --option 'by="block"'
	$(LARGER) tests/models/llama-stdlib --copies 4 --times 30 --limit-mib 560 --tokens 16 $(FEW) --score-only --granularity row
	$(LARGER) tests/models/vit-digits --copies 8 --times 32 --limit-mib 480 --tokens 8 $(FEW) --score-only

HELD = $(or $(OUT),.bitwright/held-out)
heldout: venv native  ## train three small models of other data and shapes and measure the default's goals on them (OUT=folder)
	mkdir -p $(HELD)
	$(BIN)/python -m benchmarks.held_out perl-gemma2 --out $(HELD) --steps 600
	$(BIN)/python -m benchmarks.held_out doc-qwen2moe --out $(HELD) --steps 900
	$(BIN)/python -m benchmarks.held_out shapes-deit --out $(HELD) --steps 800
	$(BIN)/python -m benchmarks.held_out_table $(HELD)/perl-gemma2 $(HELD)/doc-qwen2moe --plans 20 --keep $(HELD)/keep
	$(BIN)/python -m benchmarks.held_out_table $(HELD)/shapes-deit --tokens 400 --test 1500 --plans 20 --keep $(HELD)/keep
	$(BIN)/python -m benchmarks.joint $(HELD)/perl-gemma2 --tokens 8192 --test 8192 --menu symmetric --budgets 2.0625,2.15,2.25 \
	    --calibration $(HELD)/perl-gemma2/valid.txt --evaluation $(HELD)/perl-gemma2/test.txt

fuzz: native venv     ## 20,000 random problems against enumeration, 20,000 damaged ones; SEED=n takes others
	$(BIN)/python -m tests.solvers.random_problems --count 20000 --seed $(or $(SEED),1)
	$(BIN)/python -W error -m tests.solvers.fuzz --count 20000 --seed $(or $(SEED),1)

sweeps: native venv   ## the solvers' contract over EXAMPLES random problems a claim, 2,000 problems against enumeration, 2,000 damaged ones
	HYPOTHESIS_PROFILE=sweeps BITWRIGHT_TEST_EXAMPLES=$(or $(EXAMPLES),160) $(BIN)/python -m pytest -q -n $(JOBS) tests/solvers/test_solver_contract.py tests/solvers/test_frontier.py
	$(BIN)/python -m tests.solvers.random_problems --count 2000 --seed $(or $(SEED),1)
	$(BIN)/python -m tests.solvers.fuzz --count 2000 --seed $(or $(SEED),1)

bench: native venv    ## measure everything that has a benchmark
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.solvers ladder
	$(BIN)/python -m benchmarks.metrics tests/models/llama-stdlib
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.dashboard

api: venv        ## openapi/openapi.json anew from the service
	$(BIN)/python -m service.openapi openapi

golden: venv     ## every golden file anew; review the diff
	BITWRIGHT_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q -k golden tests

lock: venv       ## requirements/lock.txt anew from the versions in .venv
	$(BIN)/python tools/lock.py > requirements/lock.new && mv requirements/lock.new requirements/lock.txt

clean:           ## remove what was made here (not .bitwright, which holds results)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
