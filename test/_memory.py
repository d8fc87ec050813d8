"""Bytes in use, exactly: malloc is where CPU tensors and the objects of C++ come from."""

from __future__ import annotations

import ctypes
import os


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


try:
    _mallinfo2 = ctypes.CDLL(None).mallinfo2
    _mallinfo2.restype = _Mallinfo
except (AttributeError, OSError):  # no glibc, or one before 2.33
    _mallinfo2 = None

EXACT = _mallinfo2 is not None


def bytes_in_use() -> int:
    """Of the main thread's heap; without glibc what the process holds, which is rounded."""
    if _mallinfo2 is None:
        return resident_bytes()
    info = _mallinfo2()
    return info.uordblks + info.hblkhd


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
