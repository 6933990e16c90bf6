# `make demo` and `make test` do all set-up themselves. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto

.PHONY: demo test test-slow chaos test-frameworks test-models browser package lint types test-oldest bench \
  mutation site clean

# The CPU build of torch where its index answers; elsewhere the registry's default build.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nettime needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	@index=https://download.pytorch.org/whl/cpu; \
	if curl --silent --fail --head --max-time 5 "$$index/torch/" > /dev/null 2>&1; \
	then extra="--extra-index-url $$index"; fi; \
	set -x; $(BIN)/pip install --quiet $$extra -c constraints.txt 'torch>=2.13,<2.14'
	PYTHONWARNINGS='ignore:Editable installation' \
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@# What Numba compiles is kept: compiled now, no first answer waits for it.
	$(BIN)/nettime estimate bert-base -d ideal -d wafer -d zen3 -d sigma-like -d systolic > /dev/null
	touch $@

demo: .venv/ready
	$(BIN)/nettime demo

test: .venv/ready
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

test-slow: .venv/ready
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

# Kills, damage and hostile inputs, counted by kind; at most an hour. Not part of `make test`.
chaos: .venv/ready
	$(BIN)/python -m tests.chaos

# The same training in others' loops and by others' optimizers; installs them beside the rest,
# without moving torch.
test-frameworks: .venv/ready
	$(BIN)/pip install --quiet -c constraints.txt -e '.[frameworks,optimizers,trackers]'
	$(BIN)/python -m pytest -n $(WORKERS) tests/sparse_train/integrations \
	  tests/analysis/estimating/test_public_models.py

# Sixty public models of reduced width, from their configurations: some ten minutes.
test-models: .venv/ready
	$(BIN)/pip install --quiet -c constraints.txt -e '.[frameworks]' torchvision torch_geometric
	$(BIN)/python -m pytest -n $(WORKERS) tests/public_models

# The report in a browser, on a wide screen and on a phone; `make test` skips this without Chromium.
browser: .venv/ready
	command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
	  || { apt-get update --quiet && apt-get install --yes --no-install-recommends chromium; }
	$(BIN)/python -m pytest tests/analysis/reporting/test_report_in_browser.py

# A wheel and a source distribution in build/package, as an index would take them.
package: .venv/ready
	$(BIN)/pip install --quiet build twine
	rm -rf build/package
	$(BIN)/python -m build --outdir build/package .
	$(BIN)/twine check --strict build/package/*

# The other end of the supported versions: torch 2.11 with torchrl and tensordict 0.13. The
# interpreter of its Triton, 3.6, cannot run with NumPy 2.4: the tests of GPU kernels need it.
.venv-oldest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet 'torch==2.11.*' 'torchrl==0.13.*' 'tensordict==0.13.*' 'numpy<2.4' -e '.[test]'
	touch $@

test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pytest -n $(WORKERS) -m 'not slow'

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/pyrefly check

bench: .venv/ready
	$(BIN)/python -m benchmarks

# Small faults in the modules that decide a price, and which of them no test notices, on
# docs/mutation.md: an hour or two. Of one module: `make mutation MODULES=hwsim/net_time.py`.
mutation: .venv/ready
	$(BIN)/pip install --quiet 'mutmut>=3.8'
	$(BIN)/python -m tests.mutation $(MODULES)

# The documentation as pages, from docs/ and the docstrings: build/site/index.html.
site: .venv/ready
	$(BIN)/pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf .venv .venv-oldest build *.egg-info .pytest_cache .ruff_cache
