# make demo   creates .venv and segments a real chest CT slice from a sentence (CPU, no download but packages)
# make test   creates .venv and runs the tests, in two processes
# make lint   ruff and mypy
# The first run installs some packages (minutes); later ones start at once.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# On a machine without a GPU, a CPU-only build saves gigabytes where your package index has one:
# make demo TORCH='torch==2.13.0 --index-url <index of CPU builds>'
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# Two processes of one thread each, and a file's tests in one of them: they share what its fixtures made.
TEST_PROCESSES ?= 2

DEMO_IMAGE ?= data/mini/images/lung1_axial_014.png
DEMO_INSTRUCTION ?= Segment the left lung.
DEMO_OUT ?= demo

.PHONY: demo test lint format clean
.DEFAULT_GOAL := demo

# Two stamps: the demo does not wait for the test tools.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) (once; some minutes) ..." >&2
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) $(TORCH)
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/ibisagent segment $(DEMO_IMAGE) "$(DEMO_INSTRUCTION)" --modality CT --out $(DEMO_OUT)
	@echo
	@echo "Look at $(DEMO_OUT)/overlay.png (the mask) and open $(DEMO_OUT)/episode.html in a browser (every step: image, click, mask, thought)."

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis
