"""Benchmarks of the figures that tailbone promises: ``python -m tests.bench [FIGURE ...]``."""

import sys
from pathlib import Path

# The harness is what the tests have on their path.
sys.path.insert(0, str(Path(__file__).parents[1]))
