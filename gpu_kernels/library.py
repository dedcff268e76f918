"""Loading the native library with ctypes."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any

from gpu_kernels.build import library_path

ABI = 9
#: What the library calls its builds.
LEVELS = ("scalar", "avx2", "avx512")
_P, _N, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bw_abi": (_I, []),
    "bw_level": (_I, []),
    "bw_pack": (_I, [_P, _N, _N, _I, _P, _N, _I]),
    "bw_unpack": (None, [_P, _N, _N, _I, _P, _N, _I]),
    "bw_quantize": (None, [_P, _I, _N, _N, _N, _I, _P, _P, _P, _N, _I]),
    "bw_dequantize": (None, [_P, _N, _N, _N, _I, _P, _P, _P, _N, _I]),
    "bw_expand": (None, [_P, _N, _N, _N, _I, _P, _P, _P, _I]),
    "bw_widen": (None, [_P, _I, _N, _P, _I]),
    "bw_gptq_block": (None, [_P, _N, _N, _N, _P, _N, _P, _P, _P, _N, _P, _P, _N]),
    "bw_blocks_quantize": (None, [_P, _N, _P, _P, _P, _I]),
    "bw_blocks_dequantize": (None, [_P, _N, _P, _P, _P, _I]),
    "bw_absmax": (_F, [_P, _N, _I]),
    "bw_small_quantize": (None, [_P, _N, _N, _I, _N, _N, _P, _P, _P, _I]),
    "bw_small_dequantize": (None, [_P, _N, _N, _I, _N, _N, _P, _P, _P, _I]),
    "bw_rtn_pack": (_I, [_P, _I, _N, _N, _N, _I, _I, _I, _P, _N, _P, _P, _I]),
    "bw_twin": (None, [_I, _I, _I, _P]),
    "bw_checksum": (ctypes.c_uint64, [_P, _N, _I]),
    "bw_rtn": (_I, [_P, _N, _N, _N, _I, _I, _I, _P, _P, _P, _I]),
}


@lru_cache(maxsize=1)
def library() -> Any | None:
    """The loaded library, or None: not built, not loadable here, or BITWRIGHT_NATIVE=0. numpy then does the work.

    BITWRIGHT_NATIVE=scalar leaves AVX2 alone, as on a processor that has none; =avx2 leaves AVX-512 alone.
    """
    if os.environ.get("BITWRIGHT_NATIVE", "1") == "0":
        return None
    path = library_path()
    if not path.is_file():
        return None
    try:
        native = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(native, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return native if native.bw_abi() == ABI else None


def backend() -> str:
    """What does the work: `avx512`, `avx2`, `scalar` (native code without either) or `numpy`."""
    native = library()
    if native is None:
        return "numpy"
    return LEVELS[native.bw_level()]
