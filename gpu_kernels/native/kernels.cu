// GPU entry points: the bodies of gpu.h, a barrier after each phase. NVRTC compiles this text too: no standard headers.
#include "gpu_one_bit.h"

template <class K> static __device__ __forceinline__ void launch(const bw_args &a) {
    __shared__ typename K::shared s;
#pragma unroll
    for (int p = 0; p < K::phases; ++p) {
        K::phase(p, a, threadIdx.x, blockIdx.x, s);
        __syncthreads();
    }
}

// Arguments one by one, each 8 bytes: what every launcher can pass.
#define KERNEL(NAME, ...) \
    extern "C" __global__ void __launch_bounds__(BW_THREADS) NAME( \
        const void *x, bw_u32 *words, const float *inverse, const float *zero, bw_u16 *scales, bw_u8 *zeros, float *dense, \
        int *status, bw_i64 rows, bw_i64 columns, bw_i64 group, bw_i64 symmetric) { \
        const bw_args a = {x, words, inverse, zero, scales, zeros, dense, status, rows, columns, group, symmetric}; \
        launch<__VA_ARGS__>(a); \
    }
#define WIDTH(B) \
    KERNEL(bw_quantize_f32_b##B, bw_quantize<bw_f32, B>) \
    KERNEL(bw_quantize_f16_b##B, bw_quantize<bw_f16, B>) \
    KERNEL(bw_quantize_bf16_b##B, bw_quantize<bw_bf16, B>) \
    KERNEL(bw_rtn_f32_b##B, bw_rtn<bw_f32, B>) \
    KERNEL(bw_rtn_f16_b##B, bw_rtn<bw_f16, B>) \
    KERNEL(bw_rtn_bf16_b##B, bw_rtn<bw_bf16, B>) \
    KERNEL(bw_dequantize_b##B, bw_dequantize<B>)

#if !defined(BW_ONLY)
WIDTH(1) WIDTH(2) WIDTH(3) WIDTH(4) WIDTH(5) WIDTH(6) WIDTH(7) WIDTH(8)
#else // one width, for a quick check
#define WIDTH_OF(B) WIDTH(B)
WIDTH_OF(BW_ONLY)
#endif
