"""Concerns of the whole process: its log, signals and cancellation."""
