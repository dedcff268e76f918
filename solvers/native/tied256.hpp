// Formats that tie (tied.hpp), eight rows at a time (AVX2).
#pragma once

#include "fine256.hpp"
#include "tied.hpp"

#if BW_FAST
namespace bitwright {

// Of four rows: the chosen format, its loss and the least u_j.
struct TiedFour {
    __m256d number, loss, least;
};

// l: losses of eight rows, in the lane order of `columns`. w: sizes, where they differ.
template <int K, bool kEqual, bool kOdd>
BW_AVX2_FMA_INLINE TiedFour tied_four(const __m256* l, __m256d w, const TiedPrices& p) {
    __m256d loss[K], u[K];
#pragma GCC unroll 16
    for (int j = 0; j < K; ++j) {
        const __m256d price = _mm256_set1_pd(p.price[j]);
        loss[j] = _mm256_cvtps_pd(kOdd ? _mm256_extractf128_ps(l[j], 1) : _mm256_castps256_ps128(l[j]));
        u[j] = _mm256_add_pd(loss[j], kEqual ? price : _mm256_mul_pd(price, w));
    }
    TiedFour out{_mm256_setzero_pd(), loss[0], u[0]};
#pragma GCC unroll 16
    for (int j = 1; j < K; ++j) out.least = _mm256_min_pd(out.least, u[j]);
    const __m256d tie = _mm256_set1_pd(p.tie), size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), out.least);
    const __m256d most = _mm256_add_pd(out.least, _mm256_add_pd(_mm256_mul_pd(size, _mm256_set1_pd(kRounded)), kEqual ? tie : _mm256_mul_pd(tie, w)));
    const auto take = [&](int j) BW_AVX2_FMA {
        const __m256d tied = _mm256_cmp_pd(u[j], most, _CMP_LE_OQ);
        out.loss = _mm256_blendv_pd(out.loss, loss[j], tied);
        out.number = _mm256_blendv_pd(out.number, _mm256_castsi256_pd(_mm256_set1_epi64x(j)), tied);
    };
    if (p.last) {
#pragma GCC unroll 16
        for (int j = 0; j < K; ++j) take(j);
    } else {
#pragma GCC unroll 16
        for (int j = K - 1; j >= 0; --j) take(j);
    }
    return out;
}

// `count` rows (a multiple of 8, at most 512), with differences of rates below 2^24 and sizes below kHuge.
template <int K, bool kEqual>
BW_AVX2_FMA void tied_block256(const float* loss, const int64_t* size, const TiedPrices& p, int count, uint8_t* choice, TiedSums& out) {
    const __m256i back = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256d total = _mm256_setzero_pd(), least = _mm256_setzero_pd();
    __m256i spent = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 8) {
        const float* row = loss + static_cast<int64_t>(i) * K;
        __m256 l[K < 4 ? 4 : K];
        for (int q = 0; q < K; q += 2) _mm_prefetch(reinterpret_cast<const char*>(row + kTiedAhead * K + 8 * q), _MM_HINT_T1);
        columns<std::min(K, 8), K>(row, l);
        if constexpr (K > 8) {   // the last formats: some of them again
            constexpr int rest = K - 8, read = std::max(4, rest);
            __m256 more[8];
            columns<read, K>(row + K - read, more);
            for (int q = 0; q < rest; ++q) l[8 + q] = more[read - rest + q];
        }
        __m256d w[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
        __m256i a = _mm256_setzero_si256(), b = a;
        if constexpr (!kEqual) {   // below 2^52; rows 0 2 4 6 and 1 3 5 7
            _mm_prefetch(reinterpret_cast<const char*>(size + i + kTiedAhead), _MM_HINT_T1);
            const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
            const __m256d base = _mm256_set1_pd(4503599627370496.0);
            a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i));
            b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i + 4));
            const __m256i c = _mm256_or_si256(a, magic), d = _mm256_or_si256(b, magic);
            w[0] = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_permute4x64_epi64(_mm256_unpacklo_epi64(c, d), 0xD8)), base);
            w[1] = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_permute4x64_epi64(_mm256_unpackhi_epi64(c, d), 0xD8)), base);
        }
        const TiedFour even = tied_four<K, kEqual, false>(l, w[0], p), odd = tied_four<K, kEqual, true>(l, w[1], p);
        total = _mm256_add_pd(total, _mm256_add_pd(even.loss, odd.loss));
        least = _mm256_add_pd(least, _mm256_add_pd(even.least, odd.least));
        const __m256i x = _mm256_permutevar8x32_epi32(_mm256_castps_si256(halves_of<false>(even.number, odd.number)), back), rates = entry<K>(p.rate, x);
        if constexpr (kEqual) {
            spent = _mm256_add_epi32(spent, rates);   // at most 64 rates of 2^24 a lane
        } else {
            const __m256i r0 = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(rates)), r1 = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(rates, 1));
            spent = _mm256_add_epi64(spent, _mm256_add_epi64(_mm256_mul_epu32(a, r0), _mm256_mul_epu32(b, r1)));
        }
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(choice + i), _mm_packus_epi16(shorts, shorts));
    }
    double sums[4];
    _mm256_storeu_pd(sums, total);
    out.loss += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    _mm256_storeu_pd(sums, least);
    out.least += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if constexpr (kEqual) {
        alignas(32) int32_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        for (const int32_t lane : lanes) out.cost += lane;
    } else {
        alignas(32) int64_t lanes[4];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        for (const int64_t lane : lanes) out.cost += lane;
    }
}

}  // namespace bitwright
#endif
