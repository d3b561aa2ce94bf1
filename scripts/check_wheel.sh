#!/usr/bin/env bash
# Builds the wheel, checks its size, and tests it without the source tree and without extras: import, rerank, command
# line, unit tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
rm -rf .venv-wheel dist
.venv-dev/bin/python -m build --outdir dist . >/dev/null
size=$(wc -c < dist/*.whl)
if [ "$size" -gt 60000000 ]; then echo "the wheel has $size bytes; the limit is 60 MB" >&2; exit 1; fi
"${PYTHON:-python3}" -m venv .venv-wheel
.venv-wheel/bin/pip install -q -c constraints.txt dist/*.whl
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
cp -r tests "$away/tests"
cp pyproject.toml "$away/"
cd "$away"
"$root/.venv-wheel/bin/python" - <<'PYTHON'
import sys

from langchain_core.documents import Document

import langchain_crossrerank
from langchain_crossrerank import CrossEncoderReranker

documents = [Document("The ferry leaves at nine."), Document("LoRA trains small matrices beside frozen weights.")]
best = CrossEncoderReranker(model="bundled", top_n=1).invoke({"query": "What is LoRA?", "documents": documents})
assert best[0].metadata["initial_rank"] == 2, best
assert "torch" not in sys.modules and "site-packages" in langchain_crossrerank.__file__
print("wheel without extras:", best[0])
PYTHON
"$root/.venv-wheel/bin/crossrerank" --version
"$root/.venv-wheel/bin/crossrerank" --help >/dev/null
echo "The ferry leaves at nine." > notes.txt
if answer=$("$root/.venv-wheel/bin/crossrerank" ask notes.txt "When does the ferry leave?" --offline 2>&1); then
  echo "ask works without extras; update this script and the README" >&2; exit 1
fi
case $answer in *'pip install "langchain-crossrerank['*) ;; *) echo "no pip line: $answer" >&2; exit 1 ;; esac
"$root/.venv-wheel/bin/pip" install -q -c "$root/constraints.txt" pytest pytest-asyncio pytest-socket pytest-xdist hypothesis cloudpickle
"$root/.venv-wheel/bin/pytest" -q -n auto tests/unit
