// Formats that tie (tied.hpp), sixteen rows at a time (AVX-512).
#pragma once

#include "coarse512.hpp"
#include "tied.hpp"

#if BW_FAST
namespace bitwright {

// The least of K values.
template <int K>
BW_AVX512_INLINE __m512d least_of(const __m512d* v) {
    if constexpr (K == 1) return v[0];
    else return _mm512_min_pd(least_of<K / 2>(v), least_of<K - K / 2>(v + K / 2));
}

// `count` rows (a multiple of 64, at most 512), with differences of rates below 2^24.
template <int K, bool kEqual>
BW_AVX512 void tied_block512(const float* loss, const int64_t* size, const TiedPrices& p, int count, uint8_t* choice, TiedSums& out) {
    alignas(64) int64_t row_of[16];
    for (int q = 0; q < 16; ++q) row_of[q] = turned_row<K>(q);
    const __m512i order[2] = {_mm512_load_si512(row_of), _mm512_load_si512(row_of + 8)}, rates = _mm512_load_si512(p.rate);
    const __m512d tie = _mm512_set1_pd(p.tie), rounded = _mm512_set1_pd(kRounded);
    __m512d total0 = _mm512_setzero_pd(), total1 = _mm512_setzero_pd(), least = _mm512_setzero_pd();
    __m512i spent = _mm512_setzero_si512();
    for (int i = 0; i < count; i += 64) {
        __m512i y[4];
#pragma GCC unroll 1
        for (int b = 0; b < 4; ++b) {
            const int at = i + 16 * b;
            __m512 l[K];
            __m512i weight[2];
            unsigned tied[K] = {};
            turned_columns<K>(loss + static_cast<int64_t>(at) * K, l);
            for (int q = 0; q < K; ++q) _mm_prefetch(reinterpret_cast<const char*>(loss + (at + kTiedAhead) * K + 16 * q), _MM_HINT_T1);
            if constexpr (!kEqual) {
                for (int q = 0; q < 2; ++q) _mm_prefetch(reinterpret_cast<const char*>(size + at + kTiedAhead + 8 * q), _MM_HINT_T1);
                const __m512i a = _mm512_loadu_si512(size + at), z = _mm512_loadu_si512(size + at + 8);
                for (int h = 0; h < 2; ++h) weight[h] = _mm512_permutex2var_epi64(a, order[h], z);
            }
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h) {
                __m512d u[K], w = _mm512_setzero_pd();
                if constexpr (!kEqual) w = _mm512_cvtepi64_pd(weight[h]);
                for (int j = 0; j < K; ++j) {
                    const __m512d price = _mm512_set1_pd(p.price[j]);
                    u[j] = _mm512_add_pd(_mm512_cvtps_pd(h == 0 ? _mm512_castps512_ps256(l[j]) : _mm512_extractf32x8_ps(l[j], 1)), kEqual ? price : _mm512_mul_pd(price, w));
                }
                const __m512d low = least_of<K>(u);
                const __m512d most = _mm512_add_pd(low, _mm512_add_pd(_mm512_mul_pd(_mm512_abs_pd(low), rounded), kEqual ? tie : _mm512_mul_pd(tie, w)));
                least = _mm512_add_pd(least, low);
                for (int j = 0; j < K; ++j) tied[j] |= static_cast<unsigned>(_mm512_cmp_pd_mask(u[j], most, _CMP_LE_OQ)) << (8 * h);
            }
            __m512 chosen = l[0];
            __m512i x = _mm512_setzero_si512();
            const auto take = [&](int j) BW_AVX512 {
                const auto these = static_cast<__mmask16>(tied[j]);
                x = _mm512_mask_mov_epi32(x, these, _mm512_set1_epi32(j));
                chosen = _mm512_mask_mov_ps(chosen, these, l[j]);
            };
            if (p.last) {
#pragma GCC unroll 16
                for (int j = 0; j < K; ++j) take(j);
            } else {
#pragma GCC unroll 16
                for (int j = K - 1; j >= 0; --j) take(j);
            }
            total0 = _mm512_add_pd(total0, _mm512_cvtps_pd(_mm512_castps512_ps256(chosen)));
            total1 = _mm512_add_pd(total1, _mm512_cvtps_pd(_mm512_extractf32x8_ps(chosen, 1)));
            const __m512i r = _mm512_permutexvar_epi32(x, rates);
            if constexpr (kEqual) {
                spent = _mm512_add_epi32(spent, r);   // at most 32 rates of 2^24 a lane
            } else {
                const __m512i r0 = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(r)), r1 = _mm512_cvtepu32_epi64(_mm512_extracti32x8_epi32(r, 1));
                spent = _mm512_add_epi64(spent, _mm512_add_epi64(_mm512_mullo_epi64(weight[0], r0), _mm512_mullo_epi64(weight[1], r1)));
            }
            y[b] = x;
        }
        _mm512_storeu_si512(choice + i, in_order<K>(y));
    }
    double sums[8];
    _mm512_storeu_pd(sums, _mm512_add_pd(total0, total1));
    for (const double sum : sums) out.loss += sum;
    _mm512_storeu_pd(sums, least);
    for (const double sum : sums) out.least += sum;
    if constexpr (kEqual) {
        alignas(64) int32_t lanes[16];
        _mm512_store_si512(lanes, spent);
        for (const int32_t lane : lanes) out.cost += lane;
    } else {
        alignas(64) int64_t lanes[8];
        _mm512_store_si512(lanes, spent);
        for (const int64_t lane : lanes) out.cost += lane;
    }
}

}  // namespace bitwright
#endif
