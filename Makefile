# make demo   installs into .venv and evaluates the bundled miniature with vanilla CLIP and with ClearCLIP
# make test   the whole test suite, in the same environment
# make lint   style, format and types; make docs: the API reference, in docs/api
# Another Python: make demo PYTHON=python3.12 ; another place for the environment: make test VENV=../venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Not the environment's own python: make would take its time stamp for that of the system's.
READY := $(VENV)/.ready
# Constraints are the versions that were tested.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint docs install clean

demo: $(READY)
	$(BIN)/python tools/tour.py

test: $(READY)
	$(INSTALL) --editable ".[dev]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(INSTALL) mypy ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(INSTALL) pdoc
	$(BIN)/pdoc --docformat google --output-directory docs/api clearclip $(addprefix clearclip.,methods model_settings weights text windows backbones \
		visualize results evaluation)

install: $(READY)

$(READY): requirements.txt constraints.txt pyproject.toml
	@echo "making $(VENV) with $(PYTHON) and installing (a few minutes, about 6 GB, most of it PyTorch) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

clean:
	rm -rf $(VENV) outputs work_dirs
