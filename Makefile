# Every target sets up .venv by itself; `make help` lists them.

PYTHON ?= $(shell for name in python3.11 python3; do $$name -c '' 2>/dev/null && echo $$name && break; done)
SCALE ?= small
BIN := .venv/bin
READY := .venv/ready
PIP_INSTALL := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --no-input --constraint constraints.txt
ON_ALL_CORES := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
# Ours is known by its _C; any other detectron2 that imports is the user's own.
OFFICIAL_DETECTRON2 := $(BIN)/python -c "import detectron2" && \
	! $(BIN)/python -c "from detectron2._C import OperatorNotCompiledError"
SET_UP_FROM := setup.py pyproject.toml constraints.txt \
	$(shell find third_party/detectron2 -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: help setup test slow-test gpu-test quickstart lint types docs coverage format clean
.DEFAULT_GOAL := help

help:
	@echo "make test        ruff and mypy, then the fast test suite (CPU)"
	@echo "make quickstart  pretrain, transfer to Mask R-CNN, evaluate; SCALE=small (CPU) or full (one GPU)"
	@echo "make slow-test   the tests that take minutes"
	@echo "make gpu-test    the tests that need a CUDA device"
	@echo "make lint        ruff format --check, ruff check and mypy"
	@echo "make types       mypy on the package"
	@echo "make docs        check links, names, commands and code in the documents"
	@echo "make coverage    the fast test suite; lines of the package that it runs (90 % or more)"
	@echo "make format      let ruff rewrite the files"
	@echo "make setup       only create .venv; every target above does it where needed"
	@echo "make clean       remove .venv, caches and build products; output/ stays"
	@echo "PYTHON=python3.12 chooses the interpreter of a new .venv (default: python3.11, else python3)"

setup: $(READY)

# The networks of the tests are too small for threads. The tests of a file share what they prepare.
test: lint
	$(ON_ALL_CORES)

slow-test: $(READY)
	$(BIN)/python -m pytest -m slow

gpu-test: $(READY)
	@if $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then \
		$(BIN)/python -m pytest -m gpu; \
	else \
		echo "gpu-test: there is no CUDA device here, nothing to check"; \
	fi

quickstart: $(READY)
	$(BIN)/python tools/quickstart.py --scale $(SCALE)

lint: types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -W ignore tools/check_documents.py

coverage: $(READY)
	$(ON_ALL_CORES) --cov=d2_isonet

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An unfinished set-up leaves no stamp, so that the next make takes it up again.
$(READY): $(SET_UP_FROM)
	@test -n "$(PYTHON)" && $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || \
		{ echo "set-up: '$(PYTHON)' is not Python 3.10 or later; name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		{ echo "set-up: creating .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear .venv; }
	@echo "set-up 1/3: torch and torchvision (the first time about 2 GB: 1 to 3 minutes)"
	@$(PIP_INSTALL) torch torchvision
	@if ( $(OFFICIAL_DETECTRON2) ) 2>/dev/null; then \
		echo "set-up 2/3: the official detectron2 that is already installed is used as it is"; \
	else \
		echo "set-up 2/3: detectron2 0.6 and what it needs (half a minute)"; \
		$(PIP_INSTALL) ./third_party/detectron2; \
	fi
	@echo "set-up 3/3: d2_isonet and the development tools (a few seconds)"
	@$(PIP_INSTALL) --editable ".[dev]"
	@touch $@
