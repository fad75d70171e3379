"""Fuzzing: ``python -m tests.endurance.fuzz [--minutes 10] [TARGET …]``."""
