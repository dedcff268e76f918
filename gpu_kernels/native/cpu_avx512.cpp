// AVX2 and 32-byte registers still, with the instructions that came with AVX-512: sums of products, shuffles under a mask.
#if defined(__x86_64__)
#define BW_NAMESPACE bw_avx512
#define BW_AVX2
#define BW_AVX512
#include "rows.inl"
#endif
