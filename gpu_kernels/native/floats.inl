// ---- floats -> codes --------------------------------------------------------------------------------------------
// Loads of 1 and 8 values by input type.
struct F32 {
    typedef float type;
    static inline float one(const type *p) { return *p; }
#if defined(BW_AVX2)
    static BW_INLINE __m256 eight(const type *p) { return _mm256_loadu_ps(p); }
#endif
};
struct F16 {
    typedef bw_u16 type;
    static inline float one(const type *p) { return bw_from_half(*p); }
#if defined(BW_AVX2)
    static BW_INLINE __m256 widened(__m128i v) { return _mm256_cvtph_ps(v); }
    static BW_INLINE __m256 eight(const type *p) { return widened(_mm_loadu_si128((const __m128i *)p)); }
#endif
};
struct BF16 {
    typedef bw_u16 type;
    static inline float one(const type *p) { return bw_from_bf16(*p); }
#if defined(BW_AVX2)
    static BW_INLINE __m256 widened(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
    static BW_INLINE __m256 eight(const type *p) { return widened(_mm_loadu_si128((const __m128i *)p)); }
#endif
};

#if defined(BW_AVX2)
template <class T> static BW_INLINE __m256i eight_codes(const typename T::type *x, __m256 inverse, __m256 zero, __m256 top) {
    __m256 q = _mm256_add_ps(_mm256_round_ps(_mm256_mul_ps(T::eight(x), inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), zero);
    q = _mm256_min_ps(_mm256_max_ps(_mm256_setzero_ps(), q), top); // max and min give their second operand for NaN
    return _mm256_cvtps_epi32(q);
}
#endif

// One run of values with one scale and zero point.
template <class T>
static inline void quantize_run(const typename T::type *x, int64_t n, float inverse, float zero, float top, uint8_t *codes) {
    int64_t i = 0;
#if defined(BW_AVX2)
    const __m256 iv = _mm256_set1_ps(inverse), zv = _mm256_set1_ps(zero), tv = _mm256_set1_ps(top);
    for (; i + 32 <= n; i += 32) {
        const __m256i a = _mm256_packus_epi32(eight_codes<T>(x + i, iv, zv, tv), eight_codes<T>(x + i + 8, iv, zv, tv));
        const __m256i b = _mm256_packus_epi32(eight_codes<T>(x + i + 16, iv, zv, tv), eight_codes<T>(x + i + 24, iv, zv, tv));
        const __m256i c = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(codes + i), c);
    }
    for (; i + 8 <= n; i += 8) {
        const __m256i a = _mm256_packus_epi32(eight_codes<T>(x + i, iv, zv, tv), _mm256_setzero_si256());
        const __m256i c = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, a), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        const uint64_t eight = (uint64_t)_mm256_extract_epi64(c, 0);
        std::memcpy(codes + i, &eight, 8);
    }
#endif
    for (; i < n; ++i) codes[i] = (uint8_t)bw_code(T::one(x + i), inverse, zero, top);
}

// One run of codes back to floats: (code - zero) * scale.
static inline void dequantize_run(const uint8_t *codes, int64_t n, float zero, float scale, float *out) {
    int64_t i = 0;
#if defined(BW_AVX2)
    const __m256 zv = _mm256_set1_ps(zero), sv = _mm256_set1_ps(scale);
    for (; i + 8 <= n; i += 8) {
        const __m256 c = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i))));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_sub_ps(c, zv), sv));
    }
#endif
    for (; i < n; ++i) out[i] = ((float)codes[i] - zero) * scale;
}

// Numbers as float32.
template <class T> static void widen_all(const typename T::type *x, int64_t n, float *out) {
    int64_t i = 0;
#if defined(BW_AVX2)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, T::eight(x + i));
#endif
    for (; i < n; ++i) out[i] = T::one(x + i);
}
// The numbers themselves where they are float32, else in `room`.
template <class T> static const float *floats_of(const typename T::type *x, int64_t n, float *room) {
    if (sizeof(typename T::type) == 4) return (const float *)x;
    widen_all<T>(x, n, room);
    return room;
}
