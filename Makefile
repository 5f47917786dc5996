# make install: .venv with hff in it.  make test, make lint, make coverage, make demo: what they say, after the same set-up.
# make docs: the documentation site, in site/.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DOCS := $(VENV)/.docs

.PHONY: install test lint coverage demo docs clean

install: $(READY)

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hff needs Python 3.11 or newer; say PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

test: install
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

lint: install
	$(VENV)/bin/black --quiet --check hfftools tests
	$(VENV)/bin/isort --quiet --check hfftools tests
	$(VENV)/bin/flake8 hfftools tests
	$(VENV)/bin/mypy

coverage: install
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal --cov=hfftools --cov-report=term-missing:skip-covered

demo: install
	cd egs/mini && ./run.sh

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

$(DOCS): $(READY) # the tools of the site are installed the first time
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info egs/*/data egs/*/exp
