"""Memory of the C library that stays with the process between two training steps."""

import ctypes

# Of glibc's malloc.h, and the largest block that glibc keeps: HEAP_MAX_SIZE / 2 on 64 bits.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT_BLOCK_BYTES = 32 * 2**20
NEVER_TRIM_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep the memory that a step frees, for the next step to use again.

    By default glibc gives freed memory back to the system as soon as a few large blocks of it lie
    at the heap's end; the next step's tensors then come page by page, zeroed, one fault each.
    Blocks of more than 32 MiB still do. Other C libraries, which lack the setting, are left alone.

    Returns:
        Whether the C library took the setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        [
            mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES),
            mallopt(M_TRIM_THRESHOLD, NEVER_TRIM_BYTES),
        ]
    )
