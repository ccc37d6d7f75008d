# runqy for Airflow. Two commands do everything: `make demo` and `make test`.
# Both need git, make and Python 3.11 or newer with pip; they install the rest here.

PYTHON ?= python3
UV := .tools/bin/uv
# A person who set pip up for a mirror of their own means it for us too.
export UV_DEFAULT_INDEX ?= $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)
ifeq ($(strip $(UV_DEFAULT_INDEX)),)
unexport UV_DEFAULT_INDEX
endif
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test setup check-python lint types layers delivery test-airflow unit e2e faults bench docs docs-tables screenshots release-check clean

help: ## say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: setup ## the main job, end to end, on embedded parts (KEEP=1 leaves it running)
	@$(RUN) -m devtools.demo $(if $(KEEP),--keep)

# Coverage takes a quarter of the time, so that it is measured on demand.
WITH_COVERAGE = --cov --cov-report=term --cov-report=xml:.coverage.xml

test: setup lint types layers delivery ## everything CI runs (COVERAGE=1 measures what the tests cover)
	$(RUN) -m pytest -n $(or $(JOBS),3) --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),$(WITH_COVERAGE))

lint: setup ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: setup ## mypy --strict
	$(RUN) -m mypy runqy_provider runqy_delivery/src runqy_sandbox/src devtools tests dags

layers: setup ## import-linter: which layer may import which
	.venv/bin/lint-imports

# The oldest Python that GPU boxes may have, where this machine has it, and the one at hand.
DELIVERY_PYTHONS = $(PYTHON) $(shell $(UV) python find --no-python-downloads 3.9 2>/dev/null)

delivery: setup ## runqy_delivery alone, in empty environments
	@set -e; for python in $(DELIVERY_PYTHONS); do \
	  echo "runqy-delivery alone, on $$($$python --version):"; \
	  $(UV) venv --quiet --clear .venv-delivery --python $$python; \
	  $(UV) pip install --quiet --python .venv-delivery ./runqy_delivery; \
	  test "$$($(UV) pip list --quiet --python .venv-delivery --format=freeze | wc -l)" = 1 \
	    || { echo "runqy-delivery brought more than itself:"; $(UV) pip list --python .venv-delivery; exit 1; }; \
	  $(UV) pip install --quiet --python .venv-delivery pytest pytest-timeout; \
	  RUNQY_DELIVERY_ALONE=1 .venv-delivery/bin/python -m pytest -q -p no:cacheprovider \
	    -c tests/delivery/pytest.ini tests/delivery; \
	done

test-airflow: setup ## the tests that depend on Airflow, on another one (VERSION=3.1.8, oldest, newest, or all; SHORT=1: few)
	$(RUN) -m devtools.airflow_versions $(VERSION) $(if $(SHORT),--short) $(if $(AIRFLOW_PYTHON),--python $(AIRFLOW_PYTHON)) $(if $(JOBS),--jobs $(JOBS))

unit: setup ## the unit tests: 20 seconds, no servers
	$(RUN) -m pytest -q -n $(or $(JOBS),2) --dist load tests/unit

e2e: setup ## the tests through real Airflow processes
	$(RUN) -m pytest tests/e2e

comma := ,

faults: setup ## faults caused for real, with N jobs in flight each (N=50; ONLY=..., SINKS=...)
	RUNQY_FAULTS_JOBS=$(or $(N),50) $(if $(SINKS),RUNQY_FAULTS_SINKS=$(SINKS)) $(RUN) -m pytest -v -m faults \
	  tests/e2e/test_faults.py tests/e2e/test_executors.py $(if $(ONLY),-k "$(subst $(comma), or ,$(subst -,_,$(ONLY)))")

bench: setup ## the benchmarks: tables and plots, in 30 minutes (QUICK=1: in 10; ONLY=... runs one)
	$(RUN) -m devtools.benchmarks $(ONLY) $(if $(QUICK),--quick)

docs: setup ## the documentation site, built into site/ (SERVE=1 serves it instead)
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs $(if $(SERVE),serve,build --strict)

docs-tables: setup ## the parts of the docs that are generated from the code
	$(RUN) -m devtools.docs.generated

screenshots: setup ## the screenshots of the docs, made by the tests in a browser
	RUNQY_SCREENSHOTS=1 $(RUN) -m pytest -q tests/e2e/test_new_user.py tests/e2e/test_page.py tests/e2e/test_demo.py

release-check: setup ## build all wheels, install and try each in an empty environment
	$(RUN) -m devtools.release_check

setup: check-python .venv/.installed

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "runqy for Airflow needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 \
	  || { echo "'$(PYTHON)' has no pip: install it (Debian: apt-get install python3-pip)." >&2; exit 1; }

$(UV): constraints.txt
	@echo "Setup, 1 of 2: uv, which installs the rest, into .tools (some seconds) ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target .tools -c constraints.txt uv
	@touch $@

.venv/.installed: $(UV) pyproject.toml runqy_delivery/pyproject.toml runqy_sandbox/pyproject.toml constraints.txt
	@echo "Setup, 2 of 2: Airflow, the provider and all tools into .venv (1 to 2 minutes; 20 s if uv has them in its cache) ..."
	@$(UV) venv --quiet --clear .venv --python $(PYTHON)
	@# Without the list of all packages, which has hundreds of lines.
	@{ $(UV) pip install --python .venv -c constraints.txt --group dev -e ./runqy_delivery -e ./runqy_sandbox -e . 2>&1 \
	  || touch .venv/.failed; } | grep -v '^ [-+~] '; test ! -e .venv/.failed
	@touch $@

clean: ## remove what the commands above made
	rm -rf .venv .venv-delivery .airflow .tools dist site .demo .bench .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
