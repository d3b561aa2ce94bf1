"""Makes `python -m langchain_crossrerank.cli` work."""

import sys

from langchain_crossrerank.cli import main

sys.exit(main())
