"""Benchmarks of the figures that tailbone promises: ``python -m tests.bench [FIGURE ...]``."""
