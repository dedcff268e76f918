// ---- round to nearest: range, parameters, codes, correction (quantizers/rtn.py is the truth) ----------------------
static inline bool range_of(const float *x, int64_t n, float *low, float *high) { // false: NaN or infinity
    float lo = x[0], hi = x[0];
    uint32_t worst = 0;
    int64_t i = 0;
#if defined(BW_AVX2)
    if (n >= 8) {
        __m256 l = _mm256_loadu_ps(x), h = l;
        __m256i w = _mm256_setzero_si256();
        const __m256i sign = _mm256_set1_epi32(0x7fffffff);
        for (; i + 8 <= n; i += 8) {
            const __m256 v = _mm256_loadu_ps(x + i);
            l = _mm256_min_ps(l, v);
            h = _mm256_max_ps(h, v);
            w = _mm256_max_epi32(w, _mm256_and_si256(_mm256_castps_si256(v), sign));
        }
        __m128 l4 = _mm_min_ps(_mm256_castps256_ps128(l), _mm256_extractf128_ps(l, 1));
        __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
        __m128i w4 = _mm_max_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
        l4 = _mm_min_ps(l4, _mm_movehl_ps(l4, l4)), h4 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
        w4 = _mm_max_epi32(w4, _mm_shuffle_epi32(w4, 0x4e));
        lo = _mm_cvtss_f32(_mm_min_ss(l4, _mm_shuffle_ps(l4, l4, 1)));
        hi = _mm_cvtss_f32(_mm_max_ss(h4, _mm_shuffle_ps(h4, h4, 1)));
        worst = (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(w4, _mm_shuffle_epi32(w4, 1)));
    }
#endif
    for (; i < n; ++i) {
        bw_float_bits v;
        v.f = x[i];
        const uint32_t magnitude = v.u & 0x7fffffffu;
        worst = magnitude > worst ? magnitude : worst;
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    *low = lo;
    *high = hi;
    return worst < 0x7f800000u;
}

// sum x * step and sum x * x in doubles, in eight lanes: every product is exact, the order is fixed.
static inline void lane_sums(const float *x, const uint8_t *codes, int64_t n, float zero, double *along, double *norm) {
    double a[8] = {0}, b[8] = {0};
    int64_t i = 0;
#if defined(BW_AVX2)
    __m256d a0 = _mm256_setzero_pd(), a1 = a0, b0 = a0, b1 = a0;
    const __m256 zv = _mm256_set1_ps(zero);
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256 s = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i)))), zv);
        const __m256d v0 = _mm256_cvtps_pd(_mm256_castps256_ps128(v)), v1 = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        const __m256d s0 = _mm256_cvtps_pd(_mm256_castps256_ps128(s)), s1 = _mm256_cvtps_pd(_mm256_extractf128_ps(s, 1));
        a0 = _mm256_add_pd(a0, _mm256_mul_pd(v0, s0));
        a1 = _mm256_add_pd(a1, _mm256_mul_pd(v1, s1));
        b0 = _mm256_add_pd(b0, _mm256_mul_pd(v0, v0));
        b1 = _mm256_add_pd(b1, _mm256_mul_pd(v1, v1));
    }
    _mm256_storeu_pd(a, a0);
    _mm256_storeu_pd(a + 4, a1);
    _mm256_storeu_pd(b, b0);
    _mm256_storeu_pd(b + 4, b1);
#endif
    for (; i < n; ++i) {
        a[i & 7] += (double)x[i] * (double)((float)codes[i] - zero);
        b[i & 7] += (double)x[i] * (double)x[i];
    }
    *along = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
    *norm = ((b[0] + b[4]) + (b[2] + b[6])) + ((b[1] + b[5]) + (b[3] + b[7]));
}

static inline bw_u16 unshrunk(const float *x, const uint8_t *codes, int64_t n, float zero, bw_u16 scale) {
    double along, norm;
    lane_sums(x, codes, n, zero, &along, &norm);
    const double before = (double)bw_from_half(scale);
    const double after = along != 0 ? norm / along : before;
    double gain = after / before;
    gain = gain < 0.7 ? 0.7 : gain;
    gain = gain > 1.5 ? 1.5 : gain;
    double held = gain * before;
    held = held < -65504.0 ? -65504.0 : held;
    held = held > 65504.0 ? 65504.0 : held;
    return bw_to_half((held < 0 ? -held : held) >= (double)BW_TINY ? held : before);
}

// One group; 0 ok, 1 NaN or infinity, 2 the scale does not fit float16.
static inline int rtn_group(const float *x, int64_t n, int bits, int symmetric, int correct, uint8_t *codes, bw_u16 *scale, uint8_t *zero_point) {
    float low, high;
    if (!range_of(x, n, &low, &high)) return 1;
    float zero;
    if (!bw_group_parameters(low, high, bits, symmetric, scale, &zero)) return 2;
    quantize_run<F32>(x, n, 1.0f / bw_from_half(*scale), zero, (float)((1 << bits) - 1), codes);
    if (symmetric) {
        if (correct) *scale = unshrunk(x, codes, n, zero, *scale);
        return 0;
    }
    *zero_point = (uint8_t)(int)zero;
    return 0;
}
