"""The extension that build.py makes from _cdef.h; cffi's objects have no types."""

from typing import Any

ffi: Any
lib: Any
