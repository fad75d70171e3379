"""The admin API: gRPC on the tailnet, and its client."""

from typing import Final

CODE_METADATA: Final = "tailbone-code"
"""The trailing metadata that carries an error's own code. The Go program does not send it."""
