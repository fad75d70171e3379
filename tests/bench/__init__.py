"""The figures that tailbone promises, each by a command: ``python -m tests.bench [FIGURE ...]``."""
