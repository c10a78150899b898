# Everything bootstraps from Python >= 3.11 with pip: `make run`, `make test`.
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make requirements"

.PHONY: run test lint install requirements readmes goldens clean

run: install ## The main job: the whole tree on the embedded example
	$(BIN)/collabopt run --example digits

test: install ## All tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: install ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p .build/collabopt
	ln -sfn ../../components .build/collabopt/components
	ln -sfn ../../pipelines .build/collabopt/pipelines
	MYPYPATH=.build $(BIN)/mypy -p collabopt.components -p collabopt.pipelines

install: .venv/installed

$(UV):
	$(PYTHON) -m pip install --quiet --root-user-action ignore --disable-pip-version-check --target .tools uv==$(UV_VERSION)

.venv/installed: $(UV) requirements-dev.txt pyproject.toml
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(INSTALL) --require-hashes -r requirements-dev.txt
	$(INSTALL) --no-build-isolation --editable .
	touch $@

requirements: $(UV) ## Pin anew: base, engine (what the image runs), dev (what the tests need)
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) pyproject.toml requirements-cpu.in --extra engine --excludes image-excludes.txt -o requirements-engine.txt
	$(COMPILE) pyproject.toml requirements-cpu.in --extra engine --extra dev -o requirements-dev.txt

readmes: install ## Write every component's README.md anew
	$(BIN)/python .ci/component_readmes.py

goldens: install ## Write what compiled pipelines are compared with anew
	COLLABOPT_WRITE_GOLDENS=1 $(BIN)/python -m pytest -q tests/pipelines/test_golden.py

clean:
	rm -rf .venv .tools .build build *.egg-info
