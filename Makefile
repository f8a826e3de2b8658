# Every target makes the virtual environment first if it is missing or older than what it is made from.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# All that is developed and tested with; and what the paper's experiment needs, which is much less to download.
STAMP  := $(VENV)/.agileact-ready
FIRST  := $(VENV)/.agileact-paper-ready
OUT    ?= runs/paper
PAPER  ?=
# Two processes, each with half of the tests in their order, so that what a module sets up is set up once; who is done
# first takes over from the other.
WORKERS = -n 2 --dist worksteal
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test test-all mutation check format lint types doctest docs paper-full setup wheel bench clean
.DEFAULT_GOAL := run

setup: $(STAMP)

MADE_FROM := pyproject.toml constraints.txt setup.py $(wildcard csrc/*)

$(FIRST): $(MADE_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "agileact needs Python 3.10 or newer, $(PYTHON) is older; name another: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PIP) setuptools wheel torch numpy
	$(PIP) --no-build-isolation -e '.[paper]'
	@touch $@

$(STAMP): $(FIRST) $(MADE_FROM)
	$(PIP) --no-build-isolation -e '.[dev]'
# Not dependencies: they ask for torchvision, which the networks that we test do not use.
	$(PIP) --no-deps pytorchcv timm vit-pytorch denoising-diffusion-pytorch ema-pytorch pytorch-fid
	@touch $@

run: $(FIRST)
	$(BIN)/agileact paper --preset quick --out $(OUT) $(PAPER)

paper-full: $(FIRST)
	$(BIN)/agileact paper --preset full --out runs/paper-full $(PAPER)

# What a change is tried with: all but what carries the mark slow (CONTRIBUTING.md, "Tests").
test: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# Everything, as a bare `pytest` does in one process.
test-all: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS)

# Seeded faults, and which tests find them.
mutation: $(STAMP)
	$(BIN)/python tests/mutation.py

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# The Triton kernels are code for the GPU's compiler alone; importing them needs Triton.
doctest: $(STAMP)
	$(BIN)/python -m pytest --doctest-modules src --ignore=src/agileact/ops/triton_kernels.py

# The site, into build/site: opens from disk, no server needed. A warning is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site is in build/site; open build/site/index.html"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types doctest test

# A wheel for this PyTorch and this platform, installed into an empty environment and tried there.
wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .
	rm -rf build/try && $(PYTHON) -m venv build/try
	build/try/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy dist/*.whl
	cd build/try && bin/python -m agileact.cli doctor && bin/python -c 'import torch, agileact as ag; \
	  y = ag.AgileReLU(3)(torch.ones(2, 3, requires_grad=True)); y.sum().backward(); print("the wheel works")'

bench: $(STAMP)
	for kind in op step compile pool monitor study; do $(BIN)/agileact bench $$kind --out benchmarks/results/$$kind.json || exit 1; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
