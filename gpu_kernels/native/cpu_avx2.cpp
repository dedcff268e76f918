#if defined(__x86_64__)
#define BW_NAMESPACE bw_avx2
#define BW_AVX2
#include "rows.inl"
#endif
