"""A JWT issuer that uses a Tailscale network as its identity provider."""
