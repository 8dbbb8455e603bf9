# make env    build .venv with everything (PyTorch for the CPU; `make env TORCH=cuda` on a machine with an NVIDIA GPU)
# make demo   virtual patients, the whole workflow, reports
# make test   all tests
# make kernels  the S values' kernels anew (they are in resources/kernels)
# make lint   ruff, snakefmt, snakemake --lint, versions, hadolint

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= 2
TORCH ?= cpu
BIN := .venv/bin
TORCH_VERSION := $(shell sed -n 's/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# macOS wheels of torch have no CUDA and no local version.
LOCAL := $(if $(filter Darwin,$(shell uname)),,+$(TORCH))

.PHONY: env
env: .venv/.made-$(TORCH)

# The CPU wheel is asked for by its exact local version, so that no resolver can take the CUDA build in its place.
.venv/.made-$(TORCH): requirements.lock pyproject.toml resources/viewer/package-lock.json
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cuda)
	$(BIN)/pip install --quiet torch==$(TORCH_VERSION)
else
	$(BIN)/pip install --quiet torch==$(TORCH_VERSION)$(LOCAL) || \
	$(BIN)/pip install --quiet torch==$(TORCH_VERSION)$(LOCAL) --extra-index-url $(TORCH_CPU_INDEX)
endif
	$(BIN)/pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/npm ci --prefix resources/viewer --ignore-scripts --no-audit --no-fund
	rm -f .venv/.made-*
	touch $@

# Three virtual patients; `make demo-eight` is the whole cohort after Table 1 of the study.
VIRTUAL := .venv/bin/python -m theraflow.virtual
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

.PHONY: demo
demo: env
	$(VIRTUAL) --output data/virtual --patients P003 P005 P007 --cores $(CORES)
	$(SNAKEMAKE)

.PHONY: demo-eight
demo-eight: env
	$(VIRTUAL) --output data/virtual --cores $(CORES)
	$(SNAKEMAKE) --configfile config/config.yaml config/eight/config.yaml

# The energy around a point that each nuclide gives to water, by transport: resources/kernels, minutes.
KERNELS := $(patsubst resources/%,results/%,$(wildcard resources/kernels/*.tsv))

.PHONY: kernels
kernels: env
	$(SNAKEMAKE) $(KERNELS)
	cp $(KERNELS) resources/kernels

# A file a worker, so that a run of the workflow is made once for all its tests (xdist 3.8 groups no single tests under
# pytest 9).
.PHONY: test
test: env
	$(BIN)/pytest --numprocesses $(CORES) --dist loadfile

.PHONY: lint
lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/python tools/versions.py --check
	$(BIN)/hadolint Dockerfile
