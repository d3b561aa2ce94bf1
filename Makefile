# The commands of a working day; CI runs `make ci`.
PYTHON ?= python3
BIN := .venv-dev/bin

.PHONY: ci browser dev test lint types wheel demo pdf bench docs docs-serve release-check clean

ci: clean browser dev lint types wheel demo docs

# The tests of how results look need a browser; without one they are skipped and say so.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "no chromium here: tests in a browser will be skipped"

dev:
	rm -rf .venv-dev
	bash -euo pipefail -c "$$($(PYTHON) scripts/readme_command.py test)"

test:
	$(BIN)/pytest -n auto

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

docs:
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/python scripts/docs/build.py

docs-serve:
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/python scripts/docs/build.py --serve

release-check:
	$(BIN)/pip install -q -c constraints.txt -e ".[release]"
	$(BIN)/python scripts/release_check.py

clean:
	rm -rf .venv .venv-dev .venv-wheel build dist
