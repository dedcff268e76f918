// The single-precision pass for 4 or 8 formats: eight rows at a time (AVX2).
//
// It is a sieve, not a proof: near-ties may fall on the wrong side by 2^-23. Totals are still exact (costs in integers,
// losses in double), and the caller widens the bracket and lets the certificate, computed in double, have the last word.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define BW_FAST 1

namespace bitwright {

// Formats j of eight rows of K floats at `p`.
template <int K>
__attribute__((target("avx2"), always_inline)) inline void columns(const float* p, __m256* l) {
    if constexpr (K == 4) {
        const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8), c = _mm256_loadu_ps(p + 16), d = _mm256_loadu_ps(p + 24);
        // Rows 0 1 | 2 3 | 4 5 | 6 7 -> lanes hold rows (0 2 4 6 | 1 3 5 7): the caller undoes that order once.
        const __m256 ab0 = _mm256_unpacklo_ps(a, b), ab1 = _mm256_unpackhi_ps(a, b);
        const __m256 cd0 = _mm256_unpacklo_ps(c, d), cd1 = _mm256_unpackhi_ps(c, d);
        l[0] = _mm256_shuffle_ps(ab0, cd0, 0x44);
        l[1] = _mm256_shuffle_ps(ab0, cd0, 0xEE);
        l[2] = _mm256_shuffle_ps(ab1, cd1, 0x44);
        l[3] = _mm256_shuffle_ps(ab1, cd1, 0xEE);
    } else {
        __m256 r[8], t[8];
        // Rows in the same order as above, so that both share one fix of the order.
        static constexpr int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
        for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(p + 8 * order[i]);
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for (int h = 0; h < 2; ++h) {
            r[4 * h] = _mm256_shuffle_ps(t[4 * h], t[4 * h + 2], 0x44);
            r[4 * h + 1] = _mm256_shuffle_ps(t[4 * h], t[4 * h + 2], 0xEE);
            r[4 * h + 2] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0x44);
            r[4 * h + 3] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0xEE);
        }
        for (int j = 0; j < 4; ++j) {
            l[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
            l[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
        }
    }
}

// Eight int64 below 2^52 as floats, in the lane order of `columns`.
__attribute__((target("avx2"), always_inline)) inline __m256 weights(const int64_t* size) {
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    const __m256d base = _mm256_set1_pd(4503599627370496.0);
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + 4));
    const __m256d x = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(a, magic)), base);
    const __m256d y = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(b, magic)), base);
    const __m256 s = _mm256_set_m128(_mm256_cvtpd_ps(y), _mm256_cvtpd_ps(x));
    return _mm256_permutevar8x32_ps(s, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

struct FastBlock {
    int64_t cost;        // sum of size * rate of the choice at `high`
    double loss, magnitude;
    uint8_t differ[64];  // bit r of byte g: row 8 g + r differs
};

// `count` rows (a multiple of 8, at most 512). high_rate[j] = high * rate[j] (times the common size when `size` is null).
template <int K, bool kEqual>
__attribute__((target("avx2"))) FastBlock fast_block(const float* loss, const int64_t* size, const int32_t* rate,
                                                     const float* high_rate, const float* low_rate, int count,
                                                     uint8_t* choice) {
    const __m256i back = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i table = K == 8 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rate))
                                 : _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rate)));
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256d total = _mm256_setzero_pd(), size_of = _mm256_setzero_pd();
    __m256i spent = _mm256_setzero_si256();
    FastBlock out;
    out.cost = 0;
    for (int i = 0; i < count; i += 8) {
        __m256 l[K];
        columns<K>(loss + static_cast<int64_t>(i) * K, l);
        __m256 w = _mm256_setzero_ps();
        if constexpr (!kEqual) w = weights(size + i);
        __m256 vh, vl, chosen = l[0];
        __m256i xh = _mm256_setzero_si256(), xl = xh;
        for (int j = 0; j < K; ++j) {
            __m256 ph = _mm256_set1_ps(high_rate[j]), pl = _mm256_set1_ps(low_rate[j]);
            if constexpr (!kEqual) {
                ph = _mm256_mul_ps(ph, w);
                pl = _mm256_mul_ps(pl, w);
            }
            const __m256 h = _mm256_add_ps(l[j], ph), g = _mm256_add_ps(l[j], pl);
            if (j == 0) {
                vh = h;
                vl = g;
                continue;
            }
            const __m256 a = _mm256_cmp_ps(h, vh, _CMP_LT_OQ), b = _mm256_cmp_ps(g, vl, _CMP_LT_OQ);
            const __m256i index = _mm256_set1_epi32(j);
            vh = _mm256_min_ps(h, vh);
            vl = _mm256_min_ps(g, vl);
            chosen = _mm256_blendv_ps(chosen, l[j], a);
            xh = _mm256_blendv_epi8(xh, index, _mm256_castps_si256(a));
            xl = _mm256_blendv_epi8(xl, index, _mm256_castps_si256(b));
        }
        const __m256i same = _mm256_permutevar8x32_epi32(_mm256_cmpeq_epi32(xh, xl), back);
        out.differ[i / 8] = static_cast<uint8_t>(~_mm256_movemask_ps(_mm256_castsi256_ps(same)));
        total = _mm256_add_pd(total, _mm256_cvtps_pd(_mm256_castps256_ps128(chosen)));
        total = _mm256_add_pd(total, _mm256_cvtps_pd(_mm256_extractf128_ps(chosen, 1)));
        const __m256 size_f = _mm256_andnot_ps(sign, chosen);
        size_of = _mm256_add_pd(size_of, _mm256_cvtps_pd(_mm256_castps256_ps128(size_f)));
        size_of = _mm256_add_pd(size_of, _mm256_cvtps_pd(_mm256_extractf128_ps(size_f, 1)));
        xh = _mm256_permutevar8x32_epi32(xh, back);
        const __m256i rates = _mm256_permutevar8x32_epi32(table, xh);
        if constexpr (kEqual) {
            spent = _mm256_add_epi32(spent, rates);   // at most 64 rates of 2^24 a lane
        } else {
            const __m256i s0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i));
            const __m256i s1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i + 4));
            const __m256i r0 = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(rates));
            const __m256i r1 = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(rates, 1));
            spent = _mm256_add_epi64(spent, _mm256_add_epi64(_mm256_mul_epu32(s0, r0), _mm256_mul_epu32(s1, r1)));
        }
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(xh), _mm256_extracti128_si256(xh, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(choice + i), _mm_packus_epi16(shorts, shorts));
    }
    double sums[4];
    _mm256_storeu_pd(sums, total);
    out.loss = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    _mm256_storeu_pd(sums, size_of);
    out.magnitude = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if constexpr (kEqual) {
        alignas(32) int32_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        for (int32_t lane : lanes) out.cost += lane;
    } else {
        alignas(32) int64_t lanes[4];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        for (int64_t lane : lanes) out.cost += lane;
    }
    return out;
}

}  // namespace bitwright
#endif
