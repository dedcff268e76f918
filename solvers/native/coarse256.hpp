// The sieve of coarse.hpp with eight rows at a time (AVX2 and its fused multiply-add), for 2 to 16 formats: a fifth fewer instructions than
// fast.hpp for equal sizes, two fifths for uneven ones.
#pragma once

#include <cstring>
#include <type_traits>

#include "fine256.hpp"

#if BW_FAST
namespace bitwright {

BW_AVX2_FMA_INLINE Least lesser(const Least& a, const Least& b) {
    const __m256 less = _mm256_cmp_ps(b.first, a.first, _CMP_LT_OQ);
    return {_mm256_min_ps(b.first, a.first), _mm256_min_ps(_mm256_max_ps(a.first, b.first), _mm256_min_ps(a.second, b.second)),
            _mm256_blendv_ps(a.loss, b.loss, less), _mm256_blendv_epi8(a.number, b.number, _mm256_castps_si256(less))};
}

// Of `Count` formats from number `from` on. w: sizes, where they differ.
template <int Count, bool kEqual>
BW_AVX2_FMA_INLINE Least least_of(const __m256* l, __m256 w, const float* prices, int from) {
    const auto priced = [&](int j) BW_AVX2_FMA {
        const __m256 price = _mm256_set1_ps(prices[from + j]);
        return kEqual ? _mm256_add_ps(l[j], price) : _mm256_fmadd_ps(price, w, l[j]);
    };
    if constexpr (Count == 1) {
        return {priced(0), _mm256_set1_ps(INFINITY), l[0], _mm256_set1_epi32(from)};
    } else if constexpr (Count == 2) {
        const __m256 a = priced(0), b = priced(1), less = _mm256_cmp_ps(b, a, _CMP_LT_OQ);
        return {_mm256_min_ps(b, a), _mm256_max_ps(a, b), _mm256_blendv_ps(l[0], l[1], less), _mm256_sub_epi32(_mm256_set1_epi32(from), _mm256_castps_si256(less))};
    } else {
        constexpr int half = Count > 4 ? 4 : 2;
        return lesser(least_of<half, kEqual>(l, w, prices, from), least_of<Count - half, kEqual>(l + half, w, prices, from + half));
    }
}

// Of eight rows of K losses from `row` on.
template <int K, bool kEqual>
BW_AVX2_FMA_INLINE Least least_of_rows(const float* row, __m256 w, const float* prices) {
    __m256 l[8];
    if constexpr (K <= 8) {
        columns<K>(row, l);
        return least_of<K, kEqual>(l, w, prices, 0);
    } else {   // no more formats at a time than there are registers for; the others with some that were there before, if they are few
        constexpr int rest = K - 8, read = std::max(4, rest);
        columns<8, K>(row, l);
        const Least first = least_of<8, kEqual>(l, w, prices, 0);
        columns<read, K>(row + K - read, l);
        return lesser(first, least_of<rest, kEqual>(l + read - rest, w, prices, 8));
    }
}

// `count` rows (a multiple of 32, at most 512), as `fast_block`. ahead: how many rows further on to fetch into the second-level cache.
// False when some u_j was negative: nothing is certain then.
// The steps on 32 rows are three loops: a processor that looks 64 operations ahead meets more that do not wait for each other.
// Prices: CoarsePrices, or FinePrices for double precision.
template <int K, bool kEqual, class Prices>
BW_AVX2_FMA bool coarse_block256(const float* loss, const int64_t* size, const Prices& prices, int count, int64_t ahead, uint8_t* choice, FastBlock& out) {
    constexpr bool kFine = std::is_same_v<Prices, FinePrices>;
    const CoarsePrices& p = coarse_of(prices);
    const __m256i none = _mm256_setzero_si256();
    __m256d total = _mm256_setzero_pd();
    __m256i spent = none, weighed = none;
    __m256 signs = _mm256_setzero_ps();
    int64_t sure = count;
    for (int i = 0; i < count; i += 32) {
        __m256i weight[4], upper[4] = {none, none, none, none}, y[4];
        __m256 w[4];
        Least best[4];
        if constexpr (!kEqual) {
#pragma GCC unroll 1
            for (int b = 0; b < 4; ++b) {
                const int at = i + 8 * b;
                for (int q = 0; q < K; q += 2) _mm_prefetch(reinterpret_cast<const char*>(loss + (at + ahead) * K + 8 * q), _MM_HINT_T1);
                _mm_prefetch(reinterpret_cast<const char*>(size + at + ahead), _MM_HINT_T1);
                const __m256i s0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + at)), s1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + at + 4));
                weighed = _mm256_add_epi64(weighed, _mm256_add_epi64(s0, s1));
                const __m256i low = _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(s0), _mm256_castsi256_ps(s1), 0x88));   // rows 0 1 4 5 | 2 3 6 7
                weight[b] = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));   // as of `columns`
                w[b] = _mm256_cvtepi32_ps(weight[b]);
                if (p.beyond > 0) w[b] = _mm256_add_ps(w[b], _mm256_and_ps(_mm256_castsi256_ps(_mm256_srai_epi32(weight[b], 31)), _mm256_set1_ps(p.beyond)));
                if (p.huge) {   // for a better guess alone
                    upper[b] = upper_halves(size + at);
                    w[b] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(upper[b]), _mm256_set1_ps(0x1p32f), w[b]);
                }
            }
        }
#pragma GCC unroll 1
        for (int b = 0; b < 4; ++b) {
            if constexpr (kEqual)
                for (int q = 0; q < K; q += 2) _mm_prefetch(reinterpret_cast<const char*>(loss + (i + 8 * b + ahead) * K + 8 * q), _MM_HINT_T1);
            const float* rows = loss + static_cast<int64_t>(i + 8 * b) * K;
            if constexpr (kFine) best[b] = fine_least<K, kEqual>(rows, kEqual ? nullptr : size + i + 8 * b, prices);
            else best[b] = least_of_rows<K, kEqual>(rows, w[b], p.price);
        }
#pragma GCC unroll 1
        for (int b = 0; b < 4; ++b) {
            signs = _mm256_or_ps(signs, best[b].first);
            __m256 unsure = best[b].second;
            if constexpr (!kFine) {
                const __m256 apart = _mm256_fmsub_ps(best[b].second, _mm256_set1_ps(kApart<K, false>), best[b].first), gap = entry<K>(p.gap, best[b].number);
                unsure = _mm256_cmp_ps(apart, kEqual ? gap : _mm256_mul_ps(gap, w[b]), _CMP_NGE_UQ);
            }
            if constexpr (!kEqual)
                if (p.huge) unsure = _mm256_or_ps(unsure, _mm256_castsi256_ps(_mm256_cmpgt_epi32(upper[b], none)));
            const __m256 chosen = _mm256_andnot_ps(unsure, best[b].loss);
            total = _mm256_add_pd(total, _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(chosen)), _mm256_cvtps_pd(_mm256_extractf128_ps(chosen, 1))));
            y[b] = _mm256_or_si256(best[b].number, _mm256_and_si256(_mm256_castps_si256(unsure), _mm256_set1_epi32(-128)));
            if constexpr (!kEqual) {
                const __m256i r = _mm256_andnot_si256(_mm256_castps_si256(unsure), entry<K>(p.rate, best[b].number));
                const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(weight[b], 32), _mm256_srli_epi64(r, 32));
                spent = _mm256_add_epi64(spent, _mm256_add_epi64(_mm256_mul_epu32(weight[b], r), odd));
            }
        }
        __m256i numbers = _mm256_packs_epi16(_mm256_packs_epi32(y[0], y[1]), _mm256_packs_epi32(y[2], y[3]));   // even rows | odd rows
        numbers = _mm256_permutevar8x32_epi32(numbers, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        numbers = _mm256_shuffle_epi8(numbers, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)));
        const auto marks = static_cast<uint32_t>(_mm256_movemask_epi8(numbers));
        std::memcpy(reinterpret_cast<char*>(out.unsure) + i / 8, &marks, sizeof marks);
        sure -= __builtin_popcount(marks);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(choice + i), _mm256_and_si256(numbers, _mm256_set1_epi8(15)));
        for (int q = 0; kEqual && q < p.planes; ++q) {   // rates by their number, none for a byte that is marked
            const __m256i plane = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(p.plane[q])));
            spent = _mm256_add_epi64(spent, _mm256_slli_epi64(_mm256_sad_epu8(_mm256_shuffle_epi8(plane, numbers), none), 8 * q));
        }
    }
    alignas(32) int64_t lane[8];
    double sums[4];
    _mm256_storeu_pd(sums, total);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane), spent);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane + 4), weighed);
    out.loss = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    out.cost = (kEqual ? sure * p.least : 0) + (lane[0] + lane[1]) + (lane[2] + lane[3]);
    out.weight = (lane[4] + lane[5]) + (lane[6] + lane[7]);
    return _mm256_movemask_ps(signs) == 0;
}

}  // namespace bitwright
#endif
