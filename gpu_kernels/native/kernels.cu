// GPU entry points: the bodies of gpu_*.h, a barrier after each phase. NVRTC compiles this text too: no standard headers.
#include "gpu_dequantize.h"
#include "gpu_one_bit.h"

template <class K> static __device__ __forceinline__ void launch(const bw_args &a) {
    __shared__ typename K::shared s;
    typename K::mine mine;
#pragma unroll
    for (int p = 0; p < K::phases; ++p) {
        K::phase(p, a, threadIdx.x, blockIdx.x, s, mine);
        if (K::wait(p, a) == BW_FOR_BLOCK) __syncthreads();
        if (K::wait(p, a) == BW_FOR_WARP) __syncwarp();
    }
}

// BLOCKS, if not 0, must fit a multiprocessor: the fused kernel of one bit keeps to 64 registers a thread for that.
// Arguments one by one, each 8 bytes: what every launcher can pass.
#define KERNEL(NAME, BLOCKS, ...) \
    extern "C" __global__ void __launch_bounds__(BW_THREADS, BLOCKS) NAME( \
        const void *x, bw_u32 *words, const float *inverse, const float *zero, bw_u16 *scales, bw_u8 *zeros, float *dense, \
        int *status, bw_i64 rows, bw_i64 columns, bw_i64 group, bw_i64 symmetric) { \
        const bw_args a = {x, words, inverse, zero, scales, zeros, dense, status, rows, columns, group, symmetric}; \
        __VA_ARGS__; \
    }
#define EITHER(WHOLE, ANY) bw_is_whole(a) ? launch<WHOLE>(a) : launch<ANY>(a)
#define OF_TYPE(NAME, T, B) \
    KERNEL(bw_quantize_##NAME##_b##B, 0, typedef bw_quantize<T, B> whole; typedef bw_quantize_any<T, B> any; EITHER(whole, any)) \
    KERNEL(bw_rtn_##NAME##_b##B, B == 1 ? 8 : 0, typedef bw_rtn<T, B> whole; launch<whole>(a))
#define WIDTH(B) \
    OF_TYPE(f32, bw_f32, B) OF_TYPE(f16, bw_f16, B) OF_TYPE(bf16, bw_bf16, B) \
    KERNEL(bw_dequantize_b##B, 0, EITHER(bw_dequantize<B>, bw_dequantize_any<B>))

#if !defined(BW_ONLY)
WIDTH(1) WIDTH(2) WIDTH(3) WIDTH(4) WIDTH(5) WIDTH(6) WIDTH(7) WIDTH(8)
#else // one width, for a quick check
#define WIDTH_OF(B) WIDTH(B)
WIDTH_OF(BW_ONLY)
#endif
