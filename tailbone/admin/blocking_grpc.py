"""grpc for a command that makes one blocking call: quick to import, and quiet.

``from tailbone.admin.blocking_grpc import grpc``. A process that has imported grpc already gets that.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

_AIO = "grpc.aio"


def _import() -> Any:
    """Import grpc, and keep it from importing its asyncio half: that is a fifth of the command's time.

    Where a version of grpc cannot do without, it gets it. Whoever imports ``grpc.aio`` later gets it, too.
    """
    # Both are read when grpc is imported. Its own resolver knows less of search domains and of MagicDNS's
    # split DNS than the system's, which every other program on this machine asks.
    os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
    # Its connection errors would stand on standard error beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "grpc" not in sys.modules and _AIO not in sys.modules:
        sys.modules[_AIO] = ModuleType(_AIO)
        try:
            import grpc

            del grpc.aio
        except (ImportError, AttributeError):
            pass
        finally:
            del sys.modules[_AIO]
    import grpc

    return grpc


grpc = _import()
