"""Prints the site's table of model families (`docs/reference/model-families.md`) from those that the tests score.

python scripts/model_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny_models import markdown_table

if __name__ == "__main__":
    print(markdown_table())
