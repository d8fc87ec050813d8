# `make help` lists the targets. Needed: Python >= 3.10 with venv, g++, make and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# setup.py finds ninja, and the notebooks their kernel, by PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Stamps: .venv holds what requirements-dev.txt asks for; the extension is younger than its sources
# (`find` lists folders too, whose time tells of a deleted file); functx is installed as editable;
# .venv holds the libraries of models too.
ENV := $(VENV)/.requirements
BUILT := build/.built
READY := $(VENV)/.editable
ZOO := $(VENV)/.requirements-zoo
SOURCES := setup.py $(shell find csrc)

# One thread each for the test workers: with more, two workers on two cores fight over them.
PYTEST = OMP_NUM_THREADS=1 python -m pytest -n auto --dist worksteal

PROGRAMS ?= 10000
CALLS ?= 1000

.DEFAULT_GOAL := help
.PHONY: help env build demo test test-quick test-zoo test-zoo-all test-cpp fuzz soak bench lint format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

env: $(ENV)  ## set up .venv

build: $(READY)  ## compile the extension in place; only what changed

demo: $(READY)  ## the Jacobians and Hessians notebook: check the numbers, time them, draw a plot
	python -m benchmarks.demo

test: $(READY)  ## every test, the docstring examples too
	$(PYTEST)

test-quick: $(READY)  ## the tests without the slow ones: under 3 minutes
	$(PYTEST) -m "not slow"

test-zoo: $(READY) $(ZOO)  ## real models of other libraries: the quick ones
	$(PYTEST) -m "not slow" test/zoo/test_zoo.py

test-zoo-all: $(READY) $(ZOO)  ## all of them
	$(PYTEST) test/zoo/test_zoo.py

test-cpp: $(ENV)  ## the C++ core without Python: CMake and ctest
	cmake -S . -B build/cmake -G Ninja -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build build/cmake
	ctest --test-dir build/cmake --output-on-failure

fuzz: $(READY)  ## random programs against plain autograd: make fuzz PROGRAMS=100000
	OMP_NUM_THREADS=1 PYTHONPATH=test python test/fuzz.py --programs $(PROGRAMS)

soak: $(READY)  ## every transform and pair, many calls, nothing kept: make soak CALLS=10000
	OMP_NUM_THREADS=1 PYTHONPATH=test python test/soak.py --calls $(CALLS)

bench: $(READY)  ## the benchmarks, against torch.func
	python -m benchmarks

lint: $(ENV)  ## ruff, mypy and clang-format, checking only
	ruff check
	ruff format --check
	mypy
	find csrc test/cpp -name '*.cpp' -o -name '*.h' | xargs clang-format --dry-run --Werror

format: $(ENV)  ## rewrite the files the way lint wants them
	ruff check --fix
	ruff format
	find csrc test/cpp -name '*.cpp' -o -name '*.h' | xargs clang-format -i

clean:  ## remove what was built; .venv stays
	rm -rf build dist *.egg-info functx/*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache

$(ENV): requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(ZOO): requirements-zoo.txt $(ENV)
	python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-zoo.txt
	touch $@

# Quicker than pip, and the compiler's messages are seen. Objects that are up to date are kept.
$(BUILT): $(ENV) $(SOURCES)
	python setup.py build_ext --inplace
	touch $@

# Makes `import functx` work in any folder. The Python files and the extension stay where they are,
# so once is enough: a newer extension is no reason to install again.
$(READY): setup.py pyproject.toml | $(BUILT)
	python -m pip install -qq --no-build-isolation --no-deps -e .
	touch $@
