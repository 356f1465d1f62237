# `make demo` and `make test` do their own set-up; `make help` lists the rest.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
WHEEL_VENV := .wheel-venv
FEW_IMAGES := data.source.train=64 data.source.test=16 profile.train_images=32 profile.test_images=16 \
	profile.memory=2048 profile.clusters=20 profile.linear_epochs=1 profile.bootstrap=20

unexport PYTHONPATH # paka is what is installed
unexport PYTHONDONTWRITEBYTECODE # or each process would compile torch and the others anew
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint types docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The exact versions of constraints.txt and this checkout, in .venv; made once and after a change of either file.
# Files are compiled when they are first imported: most of more than 20,000 never are.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "expected Python 3.11 to 3.13, got " + sys.version.split()[0] + ": set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.installed ## post-train the packaged encoder on procedural images (SEED=0)
	$(BIN)/python -m paka.train experiment=demo seed=$(SEED)

test: .venv/.installed ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test-slow: .venv/.installed ## run the tests that take longer
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 8

lint: .venv/.installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed ## check types
	$(BIN)/mypy

docs: .venv/.installed ## build the documentation into docs/_build; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 docs docs/_build
	@echo "docs/_build/index.html"

# The second environment sees the dependencies of .venv through a path file, but takes paka from the wheel alone:
# the wheel's own folder comes first on the path, and editable installs of .venv are not processed there.
wheel: .venv/.installed ## build the wheel, install it elsewhere and run it from an empty folder
	rm -rf dist $(WHEEL_VENV)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	$(BIN)/python -m venv --without-pip $(WHEEL_VENV)
	$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(WHEEL_VENV)/bin/python install --no-deps dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(WHEEL_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
	folder=$$(mktemp -d) && bin=$$(cd $(WHEEL_VENV)/bin && pwd) && cd "$$folder" \
		&& "$$bin/python" -c 'import sys, paka; sys.exit(not paka.__file__.startswith(sys.prefix) and paka.__file__)' \
		&& "$$bin/paka-train" experiment=demo trainer.max_steps=2 $(FEW_IMAGES) \
		&& rm -rf "$$folder"

clean: ## remove environments, caches and builds
	rm -rf .venv $(WHEEL_VENV) dist build docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
