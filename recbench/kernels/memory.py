"""Memory that was freed but is still held by the process."""

from __future__ import annotations

import ctypes


def trim() -> bool:
    """Hand freed memory back to the system, where the C library can (glibc); False where it cannot.

    Batches of ever other sizes leave holes in its heap that the next batch does not fit into: the process grows step by step while
    the tensors alive stay the same.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return True
