"""How the worker's allocators treat freed memory. Not here: who holds it."""

import os
from contextlib import suppress


def give_back_early() -> None:
    """Keep little of what is freed: blocks come and go by the thousand, and no two are of one size.

    Polars' own allocator reads its options when it is loaded: to be called before. Threads share glibc's heap:
    one a thread keeps some 40 MB that another has freed.
    """
    import ctypes

    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:50,muzzy_decay_ms:0")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX; other C libraries have no such function
