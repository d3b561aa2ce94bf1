# The commands of a working day; CI runs `make ci`.
PYTHON ?= python3
BIN := .venv-dev/bin

.PHONY: ci dev test lint types wheel demo pdf bench clean

ci: clean dev lint types wheel demo

dev:
	rm -rf .venv-dev
	bash -euo pipefail -c "$$($(PYTHON) scripts/readme_command.py test)"

test:
	$(BIN)/pytest

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

wheel:
	PYTHON=$(PYTHON) bash scripts/check_wheel.sh

demo:
	rm -rf .venv
	HF_HUB_OFFLINE=1 bash -euo pipefail -c "$$($(PYTHON) scripts/readme_command.py demo)"

pdf:
	$(BIN)/python scripts/build_pdf.py

bench:
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/cold_start.py

clean:
	rm -rf .venv .venv-dev .venv-wheel build dist
