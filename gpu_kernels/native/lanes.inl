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
// Integers in the same lanes, and eight numbers or bytes in memory.
static inline I8 i_pick(I8 mask, I8 a, I8 b) { return (mask & a) | (~mask & b); }
static inline V8 v_load(const float *x) {
    V8 v;
    std::memcpy(&v, x, sizeof v);
    return v;
}
#if defined(BW_AVX2)
static inline I8 i_max(I8 a, I8 b) { return (I8)_mm256_max_epi32((__m256i)a, (__m256i)b); }
#else
static inline I8 i_max(I8 a, I8 b) { return i_pick(a > b, a, b); }
#endif
// The largest of eight magnitudes, as a number.
static inline float largest(I8 m) {
    bw_float_bits v;
#if defined(BW_AVX2)
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128((__m256i)m), _mm256_extracti128_si256((__m256i)m, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    v.u = (bw_u32)_mm_cvtsi128_si32(_mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
#else
    int32_t most = m[0];
    for (int k = 1; k < 8; ++k) most = m[k] > most ? m[k] : most;
    v.u = (bw_u32)most;
#endif
    return v.f;
}
static inline float least(V8 a) {
#if defined(BW_AVX2)
    __m128 t = _mm_min_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    t = _mm_min_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_min_ss(t, _mm_shuffle_ps(t, t, 1)));
#else
    float x = a[0];
    for (int k = 1; k < 8; ++k) x = a[k] < x ? a[k] : x;
    return x;
#endif
}
// The sum of eight numbers, as reference_quantize.lane_sum ends.
static inline float sum8(V8 t) {
#if defined(BW_AVX2)
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)t), _mm256_extractf128_ps((__m256)t, 1)), two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
#endif
}
// bw_half_scale, by the processor's own conversion where it has one.
static inline bool half_scale(float scale, bw_u16 *out) {
#if defined(BW_AVX2)
    float magnitude = scale < 0 ? -scale : scale;
    magnitude = magnitude > BW_TINY ? magnitude : BW_TINY;
    if (magnitude > BW_MAX_HALF) return false;
    *out = (bw_u16)_cvtss_sh(scale < 0 ? -magnitude : magnitude, _MM_FROUND_TO_NEAREST_INT);
    return true;
#else
    return bw_half_scale(scale, out);
#endif
}
// The highest bits of eight numbers, one each.
static inline uint32_t top_bits(I8 v) {
#if defined(BW_AVX2)
    return (uint32_t)_mm256_movemask_ps((__m256)v);
#else
    uint32_t bits = 0;
    for (int k = 0; k < 8; ++k) bits |= (uint32_t)(v[k] < 0) << k;
    return bits;
#endif
}
static inline void put_bytes(I8 v, uint8_t *out) {
#if defined(BW_AVX2)
    const __m256i low = _mm256_shuffle_epi8((__m256i)v, _mm256_setr_epi32(0x0c080400, -1, -1, -1, 0x0c080400, -1, -1, -1));
    _mm_storel_epi64((__m128i *)out, _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
#else
    for (int k = 0; k < 8; ++k) out[k] = (uint8_t)v[k];
#endif
}
static inline I8 take_bytes(const uint8_t *in) {
#if defined(BW_AVX2)
    return (I8)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in));
#else
    I8 v;
    for (int k = 0; k < 8; ++k) v[k] = in[k];
    return v;
#endif
}
// Byte j: code j below and code j + half above.
static inline void put_nibbles(I8 low, I8 high, uint8_t *out) { put_bytes(low | (high << 4), out); }

// Values of eight codes of a table of 16.
static inline V8 look_up(const float *table, I8 at) {
#if defined(BW_AVX2)
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)at), high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)at);
    return (V8)_mm256_blendv_ps(low, high, (__m256)(at << 28));
#else
    V8 v;
    for (int k = 0; k < 8; ++k) v[k] = table[at[k] & 15];
    return v;
#endif
}
