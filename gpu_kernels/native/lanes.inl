// ---- eight floats, one of each group: the same IEEE operations in the same order in both builds ------------------------
typedef float V8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));

static inline V8 v_set(float a) { return V8{a, a, a, a, a, a, a, a}; }
static inline V8 v_pick(I8 mask, V8 a, V8 b) { return (V8)((mask & (I8)a) | (~mask & (I8)b)); }
static inline V8 v_abs(V8 a) { return (V8)((I8)a & 0x7fffffff); }
static inline I8 v_finite(V8 a) { return v_abs(a) <= v_set(3.402823466e38f); }
#if defined(BW_AVX2)
static inline V8 v_rint(V8 a) { return (V8)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline V8 v_sqrt(V8 a) { return (V8)_mm256_sqrt_ps((__m256)a); }
static inline V8 v_min(V8 a, V8 b) { return (V8)_mm256_min_ps((__m256)a, (__m256)b); }
static inline V8 v_max(V8 a, V8 b) { return (V8)_mm256_max_ps((__m256)a, (__m256)b); }
#else
static inline V8 v_rint(V8 a) {
    for (int k = 0; k < 8; ++k) a[k] = bw_rint(a[k]);
    return a;
}
static inline V8 v_sqrt(V8 a) {
    for (int k = 0; k < 8; ++k) a[k] = __builtin_sqrtf(a[k]);
    return a;
}
static inline V8 v_min(V8 a, V8 b) { return v_pick(a < b, a, b); }
static inline V8 v_max(V8 a, V8 b) { return v_pick(a > b, a, b); }
#endif
static inline V8 v_clamp(V8 a, V8 low, V8 high) { return v_min(v_max(a, low), high); }
// 1 / a, and 0 where that is not finite.
static inline V8 v_reciprocal(V8 a) {
    const V8 r = 1.0f / a;
    return v_pick(v_finite(r), r, v_set(0));
}
