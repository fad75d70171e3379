"""The admin API: gRPC on the tailnet, and its client."""
