// The GPU kernels' bodies on the CPU: every thread of a block through one phase at a time, blocks in turn.
#include <cstdint>
#include <memory>

#include "gpu_dequantize.h"
#include "gpu_one_bit.h"

template <class K> static void run(const bw_args &a) {
    auto s = std::make_unique<typename K::shared>();
    auto mine = std::make_unique<typename K::mine[]>(BW_THREADS);
    const bw_i64 blocks = bw_ceil(bw_units(a), BW_THREADS);
    for (bw_i64 block = 0; block < blocks; ++block)
        for (int p = 0; p < K::phases; ++p)
            for (int thread = 0; thread < BW_THREADS; ++thread) K::phase(p, a, thread, block, *s, mine[thread]);
}

template <class WHOLE, class ANY> static void either(const bw_args &a) { return bw_is_whole(a) ? run<WHOLE>(a) : run<ANY>(a); }

template <class T, int B> static void of_type(int kind, const bw_args &a) {
    return kind == 0 ? either<bw_quantize<T, B>, bw_quantize_any<T, B>>(a) : run<bw_rtn<T, B>>(a);
}

template <int B> static void width(int kind, int type, const bw_args &a) {
    if (kind == 2) return either<bw_dequantize<B>, bw_dequantize_any<B>>(a);
    return type == 0 ? of_type<bw_f32, B>(kind, a) : type == 1 ? of_type<bw_f16, B>(kind, a) : of_type<bw_bf16, B>(kind, a);
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
