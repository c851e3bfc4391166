# make help lists the verbs. Everything is made below .venv, data, results and _build.

PROFILE ?= demo
# a folder that `perturbcore start` wrote uses the package that is installed
ifeq ($(wildcard pyproject.toml),)
VENV    ?= $(abspath $(dir $(shell command -v perturbcore))..)
endif
VENV    ?= .venv
PYTHON  ?= python3
PERTURBCORE_RESULTS ?= results
export PERTURBCORE_RESULTS
# some machines forbid bytecode: each kernel would compile the whole package at its start
unexport PYTHONDONTWRITEBYTECODE

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN      := $(VENV)/bin
READY    := $(if $(wildcard pyproject.toml),$(VENV)/.ready)
NAME     := $(basename $(notdir $(PROFILE)))
SETTINGS := $(if $(filter %.yml %.yaml,$(PROFILE)),$(PROFILE),notebooks/profiles/$(PROFILE).yml)
OUT      := $(PERTURBCORE_RESULTS)/$(NAME)
HTML     := _build/html
PAGES    := $(shell find book -path book/chapters -prune -o -path book/_static/mathjax -prune -o -type f -print)

# Kernels that run side by side share the cores instead of fighting for them.
CORES    := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
JOBS      = $(if $(filter -j,$(MAKEFLAGS)),$(CORES),$(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),1))
THREADS   = $(shell echo $$(( $(CORES) > $(JOBS) ? $(CORES) / $(JOBS) : 1 )))
SHARE     = $(foreach v,OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMBA_NUM_THREADS \
            LOKY_MAX_CPU_COUNT,$(v)="$${$(v):-$(THREADS)}")

.PHONY: help
help: ## this list
	@echo "make <verb> [PROFILE=demo|real|paper|path/to/my.yml] [-j2]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || \
	 sed -n 's/^\([a-z-]*\):.*## /  \1  /p' Makefile

.PHONY: book
book: $(HTML)/.built-$(NAME) ## run the chapters that need it, build the book, say where it is
	@echo "the book ($(NAME)): $(abspath $(HTML))/index.html"

.PHONY: test
test: $(READY) ## run the tests; ARGS="-k words" chooses
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: data
data: $(READY) ## fetch and verify what a profile needs, each licence first
	@$(BIN)/perturbcore data fetch --profile $(PROFILE)

.PHONY: run
run: $(READY) ## one chapter with other values: CHAPTER=name ARGS="-p name value"
	@test -n "$(CHAPTER)" || { echo 'which one? make run CHAPTER=name ARGS="-p name value"'; \
	  $(BIN)/perturbcore chapters; exit 2; }
	@$(SHARE) $(BIN)/perturbcore run $(CHAPTER) --profile $(PROFILE) $(ARGS)

.PHONY: notebooks
notebooks: $(READY) ## the chapters as plain .ipynb, for papermill or Jupyter
	@$(BIN)/perturbcore notebook --all --out $(PERTURBCORE_RESULTS)/notebooks

.PHONY: serve
serve: book ## show the book at a local address
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) $(or $(PORT),8000)

.PHONY: bench
bench: $(READY) ## measure speed side by side with what one would use instead
	for b in benchmarks/bench_*.py; do $(BIN)/python $$b $(ARGS) \
	  --out $(PERTURBCORE_RESULTS)/benchmarks/$$(basename $$b .py).json; done
	$(BIN)/python benchmarks/reporter.py $(PERTURBCORE_RESULTS)/benchmarks

.PHONY: gpu-report
gpu-report: $(READY) ## train published sizes on a GPU and beside it on the CPU; the run record shows it
	$(BIN)/python benchmarks/bench_device.py $(ARGS) --out $(PERTURBCORE_RESULTS)/benchmarks/bench_device.json

.PHONY: constraints
constraints: $(READY) ## resolve the exact pins anew; they must hold, as wheels, for Python 3.11 to 3.13
	$(BIN)/uv pip compile -q --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  $(foreach l,$(PIP_FIND_LINKS),--find-links $(l)) --extra test pyproject.toml \
	  | grep -v '^--' | sed 's/+cpu$$//' > $(VENV)/constraints.new
	for v in 3.11 3.12 3.13; do $(BIN)/uv pip compile -q --python-version $$v --only-binary :all: --no-binary docrep \
	  -c $(VENV)/constraints.new --extra test pyproject.toml > /dev/null; done
	{ sed '/^[^#]/,$$d' constraints.txt; cat $(VENV)/constraints.new; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

.PHONY: clean
clean: ## remove what was computed and built, keep data and the environment
	rm -rf _build book/chapters book/_static/mathjax
	for owner in "$(PERTURBCORE_RESULTS)"/*/profile.txt; do \
	  if [ -f "$$owner" ]; then rm -rf "$$(dirname "$$owner")"; fi; done

.PHONY: distclean
distclean: clean ## remove downloads and the environment as well
	rm -rf data .venv

# --- the environment ---------------------------------------------------------------------------

ifneq ($(READY),)
# uv does not compile by default; without bytecode every kernel would pay for it at each start.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo 'setting up $(VENV): some minutes the first time'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv 2> >(grep -v WARNING >&2) || true
	@$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode \
	  $(foreach l,$(PIP_FIND_LINKS),--find-links $(l)) -c constraints.txt -e '.[test]' \
	  || { echo 'uv did not manage, pip tries'; $(BIN)/python -m pip install -q \
	       --disable-pip-version-check -c constraints.txt -e '.[test]'; }
	@touch $@
endif

# --- chapters ----------------------------------------------------------------------------------

$(SETTINGS):
	@echo "error: there is no profile $(PROFILE): choose one of notebooks/profiles, or give a path"; exit 1

$(OUT)/data.ready: $(SETTINGS) | $(READY)
	@$(BIN)/perturbcore data fetch --profile $(PROFILE)
	@mkdir -p $(@D) && touch $@

# The package says what depends on what: one stamp per chapter and data set, changed only where
# something changed that they depend on. Asked anew each time a book is wanted.
ifneq ($(filter book serve $(HTML)/%,$(MAKECMDGOALS)),)
include $(OUT)/rules.mk
endif
.PHONY: ask
$(OUT)/rules.mk: ask | $(READY) $(SETTINGS)
	@$(BIN)/perturbcore rules --profile $(PROFILE)

# all data sets by one process: half of the time for one of them is the start; beside it run the
# chapters that open none, as the rules say
$(OUT)/responses/all.ready: $(DATASETS:%=$(OUT)/stamps/data-%) $(OUT)/data.ready | $(READY)
	@echo 'opening $(words $(DATASETS)) data sets ($(NAME))'; $(BIN)/perturbcore responses $(DATASETS) --profile $(PROFILE)
	@mkdir -p $(@D) && touch $@

$(OUT)/chapters/%.ipynb: | $(READY) $(OUT)/data.ready
	@echo 'running $* ($(NAME), $(THREADS) threads)'; $(SHARE) $(BIN)/perturbcore run $* \
	  --profile $(PROFILE) --for-book --update

# a chapter whose prose alone is new leaves its record, and those after it, alone; nothing to run, as
# for a command Make would wait for a free place, and start other chapters before those that follow
$(OUT)/runs/%.json: $(OUT)/chapters/%.ipynb ;

# The stamp lies inside the HTML, so that a build with another profile replaces it as well.
$(HTML)/.built-$(NAME): $(CHAPTERS:%=$(OUT)/chapters/%.ipynb) $(OUT)/stamps/book $(PAGES) _config.yml \
                        _toc.yml | $(READY)
	@echo 'building the book ($(NAME))'; $(BIN)/perturbcore book --profile $(PROFILE)
	@touch $@
