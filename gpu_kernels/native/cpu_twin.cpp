// The GPU kernels' bodies on the CPU: every thread of a block through one phase at a time, blocks in turn.
#include <cstdint>
#include <memory>

#include "gpu_one_bit.h"

template <class K> static void run(const bw_args &a) {
    auto s = std::make_unique<typename K::shared>();
    const bw_i64 blocks = bw_ceil(bw_units(a), BW_THREADS);
    for (bw_i64 block = 0; block < blocks; ++block)
        for (int p = 0; p < K::phases; ++p)
            for (int thread = 0; thread < BW_THREADS; ++thread) K::phase(p, a, thread, block, *s);
}

template <int B> static void width(int kind, int type, const bw_args &a) {
    if (kind == 2) return run<bw_dequantize<B>>(a);
    if (kind == 0) return type == 0 ? run<bw_quantize<bw_f32, B>>(a) : type == 1 ? run<bw_quantize<bw_f16, B>>(a) : run<bw_quantize<bw_bf16, B>>(a);
    return type == 0 ? run<bw_rtn<bw_f32, B>>(a) : type == 1 ? run<bw_rtn<bw_f16, B>>(a) : run<bw_rtn<bw_bf16, B>>(a);
}

// kind: 0 quantize, 1 rtn, 2 dequantize. type: 0 float, 1 half, 2 bfloat16.
extern "C" void bw_twin(int kind, int type, int bits, const bw_args *a) {
    switch (bits) {
    case 1: return width<1>(kind, type, *a);
    case 2: return width<2>(kind, type, *a);
    case 3: return width<3>(kind, type, *a);
    case 4: return width<4>(kind, type, *a);
    case 5: return width<5>(kind, type, *a);
    case 6: return width<6>(kind, type, *a);
    case 7: return width<7>(kind, type, *a);
    case 8: return width<8>(kind, type, *a);
    }
}
