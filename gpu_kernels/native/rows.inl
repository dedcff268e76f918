// Row kernels, compiled twice: once plain (BW_NAMESPACE scalar), once with AVX2 and F16C (BW_AVX2 defined).
// Both must give the same bytes; tests compare each with numpy.
#include <cstdint>
#include <cstring>

#include "core.h"
#if defined(BW_AVX2)
#include <immintrin.h>
#endif

namespace BW_NAMESPACE {

// ---- 32 codes <-> B words ---------------------------------------------------------------------------------------
#if defined(BW_AVX2)
// Lane masks of the squeeze 8 -> 16 -> 32 -> 64 bits (see gpu_kernels/reference.py).
template <int LANE, int USED> static inline __m256i low_mask() {
    uint64_t m = 0;
    for (int at = 0; at < 64; at += 2 * LANE) m |= (USED >= 64 ? ~0ull : ((1ull << USED) - 1)) << at;
    return _mm256_set1_epi64x((long long)m);
}
template <int LANE, int USED> static inline __m256i squeeze(__m256i v) {
    const __m256i low = low_mask<LANE, USED>();
    return _mm256_or_si256(_mm256_and_si256(v, low), _mm256_and_si256(_mm256_srli_epi64(v, LANE - USED), _mm256_slli_epi64(low, USED)));
}
template <int LANE, int USED> static inline __m256i spread(__m256i v) {
    const __m256i low = low_mask<LANE, USED>();
    return _mm256_or_si256(_mm256_and_si256(v, low), _mm256_and_si256(_mm256_slli_epi64(v, LANE - USED), _mm256_slli_epi64(low, LANE)));
}
// Byte order that puts the B low bytes of both 64-bit lanes of a half side by side, and back.
template <int B> static inline __m256i gather_order(bool back) {
    alignas(32) int8_t order[32];
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 16; ++i) {
            int8_t from = -1;
            if (!back && i < 2 * B) from = (int8_t)(i < B ? i : 8 + i - B);
            if (back && (i & 7) < B) from = (int8_t)((i >> 3) * B + (i & 7));
            order[half * 16 + i] = from;
        }
    return _mm256_load_si256((const __m256i *)order);
}
// Writes 16 + 2B bytes or less at `out`; only the first 4B count.
template <int B> static inline void pack_wide(__m256i v, uint8_t *out, __m256i order) {
    if (B == 8) { _mm256_storeu_si256((__m256i *)out, v); return; }
    if (B == 1) {
        const uint32_t bits = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(v, 7));
        std::memcpy(out, &bits, 4);
        return;
    }
    if (B != 8) v = squeeze<8, B & 7>(v), v = squeeze<16, 2 * (B & 7)>(v), v = squeeze<32, 4 * (B & 7)>(v);
    v = _mm256_shuffle_epi8(v, order);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)(out + 2 * B), _mm256_extracti128_si256(v, 1));
}
// Reads 16 + 2B bytes or less at `in`.
template <int B> static inline __m256i unpack_wide(const uint8_t *in, __m256i order) {
    if (B == 8) return _mm256_loadu_si256((const __m256i *)in);
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)in)),
                                        _mm_loadu_si128((const __m128i *)(in + 2 * B)), 1);
    v = _mm256_shuffle_epi8(v, order);
    return spread<8, B & 7>(spread<16, 2 * (B & 7)>(spread<32, 4 * (B & 7)>(v)));
}
#endif

// `codes` bytes -> row stream of `nbytes` bytes. Never writes beyond out + nbytes.
template <int B> static void pack_row(const uint8_t *codes, int64_t columns, uint8_t *out, int64_t nbytes) {
    const int64_t blocks = columns / 32;
    int64_t i = 0;
#if defined(BW_AVX2)
    const __m256i order = gather_order<B>(false);
    for (; i < blocks && i * 4 * B + 2 * B + 16 <= nbytes; ++i)
        pack_wide<B>(_mm256_loadu_si256((const __m256i *)(codes + 32 * i)), out + i * 4 * B, order);
#endif
    for (; i * 32 < columns; ++i) {
        alignas(32) uint8_t c[32] = {0};
        alignas(32) uint8_t w[64];
        std::memcpy(c, codes + 32 * i, columns - 32 * i < 32 ? columns - 32 * i : 32);
#if defined(BW_AVX2)
        pack_wide<B>(_mm256_load_si256((const __m256i *)c), w, order);
#else
        bw_pack32<B>(c, (bw_u32 *)w);
#endif
        const int64_t left = nbytes - i * 4 * B;
        std::memcpy(out + i * 4 * B, w, left < 4 * B ? left : 4 * B);
    }
}

template <int B> static void unpack_row(const uint8_t *in, int64_t nbytes, uint8_t *codes, int64_t columns) {
    const int64_t blocks = columns / 32;
    int64_t i = 0;
#if defined(BW_AVX2)
    const __m256i order = gather_order<B>(true);
    for (; i < blocks && i * 4 * B + 2 * B + 16 <= nbytes; ++i)
        _mm256_storeu_si256((__m256i *)(codes + 32 * i), unpack_wide<B>(in + i * 4 * B, order));
#endif
    for (; i * 32 < columns; ++i) {
        alignas(32) uint8_t w[64] = {0};
        alignas(32) uint8_t c[32];
        const int64_t left = nbytes - i * 4 * B;
        std::memcpy(w, in + i * 4 * B, left < 4 * B ? left : 4 * B);
#if defined(BW_AVX2)
        _mm256_store_si256((__m256i *)c, unpack_wide<B>(w, order));
#else
        bw_unpack32<B>((const bw_u32 *)w, c);
#endif
        std::memcpy(codes + 32 * i, c, columns - 32 * i < 32 ? columns - 32 * i : 32);
    }
}

// ---- floats -> codes --------------------------------------------------------------------------------------------
// Loads of 1 and 8 values by input type.
struct F32 {
    typedef float type;
    static inline float one(const type *p) { return *p; }
#if defined(BW_AVX2)
    static inline __m256 eight(const type *p) { return _mm256_loadu_ps(p); }
#endif
};
struct F16 {
    typedef bw_u16 type;
    static inline float one(const type *p) { return bw_from_half(*p); }
#if defined(BW_AVX2)
    static inline __m256 eight(const type *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
#endif
};
struct BF16 {
    typedef bw_u16 type;
    static inline float one(const type *p) { return bw_from_bf16(*p); }
#if defined(BW_AVX2)
    static inline __m256 eight(const type *p) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
    }
#endif
};

#if defined(BW_AVX2)
template <class T> static inline __m256i eight_codes(const typename T::type *x, __m256 inverse, __m256 zero, __m256 top) {
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
        alignas(32) float ls[8], hs[8];
        alignas(32) uint32_t ws[8];
        _mm256_store_ps(ls, l);
        _mm256_store_ps(hs, h);
        _mm256_store_si256((__m256i *)ws, w);
        for (int k = 0; k < 8; ++k) {
            lo = ls[k] < lo ? ls[k] : lo;
            hi = hs[k] > hi ? hs[k] : hi;
            worst = ws[k] > worst ? ws[k] : worst;
        }
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

static const float TINY = 5.9604644775390625e-08f; // 2^-24
static const float MAX_HALF = 65504.0f;

static inline bool half_scale(float scale, bw_u16 *out) { // false: does not fit
    float magnitude = scale < 0 ? -scale : scale;
    magnitude = magnitude > TINY ? magnitude : TINY;
    if (magnitude > MAX_HALF) return false;
    *out = bw_to_half(scale < 0 ? -(double)magnitude : (double)magnitude);
    return true;
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
    return bw_to_half((held < 0 ? -held : held) >= (double)TINY ? held : before);
}

// One group; 0 ok, 1 NaN or infinity, 2 the scale does not fit float16.
static inline int rtn_group(const float *x, int64_t n, int bits, int symmetric, int correct, uint8_t *codes, bw_u16 *scale, uint8_t *zero_point) {
    float low, high;
    if (!range_of(x, n, &low, &high)) return 1;
    const float top = (float)((1 << bits) - 1), half = (float)(1 << (bits - 1));
    if (symmetric) {
        const float extreme = high > -low ? high : low;
        if (!half_scale(extreme / -half + 0.0f, scale)) return 2;
        quantize_run<F32>(x, n, 1.0f / bw_from_half(*scale), half, top, codes);
        if (correct) *scale = unshrunk(x, codes, n, half, *scale);
        return 0;
    }
    low = low < 0 ? low : 0.0f;
    high = high > 0 ? high : 0.0f;
    if (!half_scale(high / top - low / top, scale)) return 2;
    const float inverse = 1.0f / bw_from_half(*scale);
    float zero = bw_rint(-low * inverse);
    zero = zero < 0 ? 0 : (zero < top ? zero : top);
    *zero_point = (uint8_t)(int)zero;
    quantize_run<F32>(x, n, inverse, zero, top, codes);
    return 0;
}

// ---- rows: the entry points of one build ---------------------------------------------------------------------------
static const int64_t CHUNK = 8192; // codes held between two steps: 8 KB, in the first-level cache

template <int B> static void pack_rows(const uint8_t *codes, int64_t rows, int64_t columns, uint8_t *out, int64_t nbytes) {
    for (int64_t r = 0; r < rows; ++r) pack_row<B>(codes + r * columns, columns, out + r * nbytes, nbytes);
}
template <int B> static void unpack_rows(const uint8_t *in, int64_t rows, int64_t columns, uint8_t *codes, int64_t nbytes) {
    for (int64_t r = 0; r < rows; ++r) unpack_row<B>(in + r * nbytes, nbytes, codes + r * columns, columns);
}

template <class T, int B>
static void quantize_rows(const void *data, int64_t rows, int64_t columns, int64_t group, const float *inverse, const float *zero, uint8_t *out, int64_t nbytes) {
    alignas(32) uint8_t codes[CHUNK + 32];
    const int64_t groups = (columns + group - 1) / group;
    for (int64_t r = 0; r < rows; ++r) {
        const typename T::type *x = (const typename T::type *)data + r * columns;
        for (int64_t start = 0; start < columns; start += CHUNK) {
            const int64_t stop = start + CHUNK < columns ? start + CHUNK : columns;
            for (int64_t at = start; at < stop;) {
                const int64_t g = at / group, end = (g + 1) * group < stop ? (g + 1) * group : stop;
                quantize_run<T>(x + at, end - at, inverse[r * groups + g], zero[r * groups + g], (float)((1 << B) - 1), codes + (at - start));
                at = end;
            }
            const int64_t offset = start / 32 * 4 * B, last = stop == columns ? nbytes : stop / 32 * 4 * B;
            pack_row<B>(codes, stop - start, out + r * nbytes + offset, last - offset);
        }
    }
}

template <int B>
static void dequantize_rows(const uint8_t *in, int64_t rows, int64_t columns, int64_t group, const bw_u16 *scales, const uint8_t *zeros, float *out, int64_t nbytes) {
    alignas(32) uint8_t codes[CHUNK + 32];
    const int64_t groups = (columns + group - 1) / group;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t start = 0; start < columns; start += CHUNK) {
            const int64_t stop = start + CHUNK < columns ? start + CHUNK : columns;
            const int64_t offset = start / 32 * 4 * B;
            unpack_row<B>(in + r * nbytes + offset, nbytes - offset, codes, stop - start);
            for (int64_t at = start; at < stop;) {
                const int64_t g = at / group, end = (g + 1) * group < stop ? (g + 1) * group : stop;
                const float zero = zeros ? (float)zeros[r * groups + g] : (float)(1 << (B - 1));
                dequantize_run(codes + (at - start), end - at, zero, bw_from_half(scales[r * groups + g]), out + r * columns + at);
                at = end;
            }
        }
}

#define BW_BITS(CALL) \
    switch (bits) { \
    case 1: CALL(1); break; \
    case 2: CALL(2); break; \
    case 3: CALL(3); break; \
    case 4: CALL(4); break; \
    case 5: CALL(5); break; \
    case 6: CALL(6); break; \
    case 7: CALL(7); break; \
    case 8: CALL(8); break; \
    }

void pack(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint8_t *out, int64_t nbytes) {
#define CALL(B) pack_rows<B>(codes, rows, columns, out, nbytes)
    BW_BITS(CALL)
#undef CALL
}
void unpack(const uint8_t *in, int64_t rows, int64_t columns, int bits, uint8_t *codes, int64_t nbytes) {
#define CALL(B) unpack_rows<B>(in, rows, columns, codes, nbytes)
    BW_BITS(CALL)
#undef CALL
}
void quantize(const void *x, int type, int64_t rows, int64_t columns, int64_t group, int bits, const float *inverse, const float *zero, uint8_t *out, int64_t nbytes) {
#define CALL(B) \
    type == 0 ? quantize_rows<F32, B>(x, rows, columns, group, inverse, zero, out, nbytes) \
              : type == 1 ? quantize_rows<F16, B>(x, rows, columns, group, inverse, zero, out, nbytes) \
                          : quantize_rows<BF16, B>(x, rows, columns, group, inverse, zero, out, nbytes)
    BW_BITS(CALL)
#undef CALL
}
void dequantize(const uint8_t *in, int64_t rows, int64_t columns, int64_t group, int bits, const bw_u16 *scales, const uint8_t *zeros, float *out, int64_t nbytes) {
#define CALL(B) dequantize_rows<B>(in, rows, columns, group, scales, zeros, out, nbytes)
    BW_BITS(CALL)
#undef CALL
}
int rtn(const float *x, int64_t rows, int64_t columns, int64_t group, int bits, int symmetric, int correct, uint8_t *codes, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group;
    uint8_t unused;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = r * columns + g * group, n = (g + 1) * group < columns ? group : columns - g * group;
            const int status = rtn_group(x + at, n, bits, symmetric, correct, codes + at, scales + r * groups + g, zeros ? zeros + r * groups + g : &unused);
            if (status) return status;
        }
    return 0;
}

} // namespace BW_NAMESPACE
