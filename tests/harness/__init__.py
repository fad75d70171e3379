"""What integration tests and benchmarks run things with: programs, a private tailnet, clients."""
