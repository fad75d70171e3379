"""Helpers of tests and benchmarks: programs, a private tailnet, clients."""
