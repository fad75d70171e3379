"""The extension that build.py generates from _cdef.h; cffi's objects have no types."""

from typing import Any

ffi: Any
lib: Any
