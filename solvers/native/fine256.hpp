// The sieve of coarse.hpp in double precision, for brackets narrower than single precision tells apart (nearly equal slopes): eight rows at
// a time (AVX2 and its fused multiply-add), for 2 to 16 formats. It takes about twice as long as that of single precision.
//
// The same u_j and the same bound. The rows that it leaves are listed, or certain after all by the checks of fast.hpp in double precision.
#pragma once

#include "coarse.hpp"

#if BW_FAST
namespace bitwright {

// Of some formats of eight rows: the least u_j, the next one, and the loss and the number of the first.
struct Least {
    __m256 first, second, loss;
    __m256i number;
};

constexpr double kFinest = 0x1p-49;   // of two u_j: a price is rounded three times by 2^-53, and their sum with a loss once

struct FinePrices {
    double price[kFastest];
    double of[kFastest][kFastest];   // of[x][j]: as of FastPrices
    CoarsePrices coarse;             // what belongs to a format: gap and rate
};

inline const CoarsePrices& coarse_of(const CoarsePrices& p) { return p; }
inline const CoarsePrices& coarse_of(const FinePrices& p) { return p.coarse; }

// As `coarse_prices`, whose other fields serve here as well: of roundings the gaps need none, as no price is greater than its u_j.
inline bool fine_prices(const int64_t* rate, int k, double scale, int64_t top_size, double low, double high, int64_t centre, FinePrices& p) {
    if (!coarse_prices(rate, k, scale, top_size, low, high, centre, p.coarse)) return false;
    const auto off = [&](int j) { return std::fabs(static_cast<double>(rate[entry_of(j, k)] - centre)) * scale; };
    const auto [least, most] = std::minmax_element(rate, rate + k);
    const double wide = static_cast<double>(*most - *least) * scale, half = (high - low) / 2, middle = (low + high) / 2;
    for (int j = 0; j < kFastest; ++j) {
        p.price[j] = middle * scale * static_cast<double>(rate[entry_of(j, k)] - *least) + half * (wide - off(j));
        p.coarse.gap[j] = static_cast<float>(2 * half * off(j) * (1 + 0x1p-22));
        for (int x = 0; x < kFastest; ++x) {
            const double d = static_cast<double>(rate[entry_of(x, k)] - rate[entry_of(j, k)]) * scale;
            p.of[x][j] = d > 0 ? high * d * (1 + kFinest) : low * d * (1 - kFinest);
        }
    }
    return true;
}

// The same of four rows.
struct FineLeast {
    __m256d first, second, loss, number;
};

// Some formats more, number `from` and the next ones. w: sizes, where they differ.
template <int Count, bool kEqual, bool kOdd>
BW_AVX2_FMA_INLINE void fine_of(const __m256* l, __m256d w, const double* prices, int from, FineLeast& least) {
#pragma GCC unroll 8
    for (int j = 0; j < Count; ++j) {
        const __m256d loss = _mm256_cvtps_pd(kOdd ? _mm256_extractf128_ps(l[j], 1) : _mm256_castps256_ps128(l[j])), price = _mm256_set1_pd(prices[from + j]);
        const __m256d u = kEqual ? _mm256_add_pd(loss, price) : _mm256_fmadd_pd(price, w, loss), less = _mm256_cmp_pd(u, least.first, _CMP_LT_OQ);
        least.second = _mm256_min_pd(least.second, _mm256_max_pd(u, least.first));
        least.first = _mm256_min_pd(u, least.first);
        least.loss = _mm256_blendv_pd(least.loss, loss, less);
        least.number = _mm256_blendv_pd(least.number, _mm256_castsi256_pd(_mm256_set1_epi64x(from + j)), less);
    }
}

// Halves of four doubles or int64 each as eight: their upper (or lower) 32 bits, in the lane order of `columns`.
template <bool kUpper>
BW_AVX2_FMA_INLINE __m256 halves_of(__m256d even, __m256d odd) {
    const __m256 both = _mm256_shuffle_ps(_mm256_castpd_ps(even), _mm256_castpd_ps(odd), kUpper ? 0xDD : 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(both), 0xD8));
}

// Eight rows of K losses from `row` on. first: negative where u_j is; second: all bits set where no format is certain.
template <int K, bool kEqual>
BW_AVX2_FMA_INLINE Least fine_least(const float* row, const int64_t* size, const FinePrices& p) {
    const __m256d none = _mm256_set1_pd(INFINITY), zero = _mm256_setzero_pd();
    __m256d w[2] = {zero, zero};
    if constexpr (!kEqual) {   // below 2^52; rows 0 2 4 6 and 1 3 5 7
        const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
        const __m256d base = _mm256_set1_pd(4503599627370496.0);
        const __m256i a = _mm256_or_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(size)), magic);
        const __m256i b = _mm256_or_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + 4)), magic);
        w[0] = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xD8)), base);
        w[1] = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xD8)), base);
    }
    FineLeast even{none, none, zero, zero}, odd = even;
    __m256 l[8];
    constexpr int first = std::min(K, 8);
    columns<first, K>(row, l);
    fine_of<first, kEqual, false>(l, w[0], p.price, 0, even);
    fine_of<first, kEqual, true>(l, w[1], p.price, 0, odd);
    if constexpr (K > 8) {
        constexpr int rest = K - 8, read = std::max(4, rest);
        columns<read, K>(row + K - read, l);
        fine_of<rest, kEqual, false>(l + read - rest, w[0], p.price, 8, even);
        fine_of<rest, kEqual, true>(l + read - rest, w[1], p.price, 8, odd);
    }
    const __m256i number = _mm256_castps_si256(halves_of<false>(even.number, odd.number));
    const __m256 gap = entry<K>(p.coarse.gap, number);
    const auto unsure = [&](const FineLeast& of, __m128 gaps, __m256d weight) BW_AVX2_FMA {
        const __m256d apart = _mm256_fmsub_pd(of.second, _mm256_set1_pd(1 - kFinest), of.first), wide = _mm256_cvtps_pd(gaps);
        return _mm256_cmp_pd(apart, kEqual ? wide : _mm256_mul_pd(wide, weight), _CMP_NGE_UQ);
    };
    const __m256d a = unsure(even, _mm256_castps256_ps128(gap), w[0]), b = unsure(odd, _mm256_extractf128_ps(gap, 1), w[1]);
    return {halves_of<true>(even.first, odd.first), halves_of<true>(a, b), _mm256_set_m128(_mm256_cvtpd_ps(odd.loss), _mm256_cvtpd_ps(even.loss)), number};
}

// One row by the checks of fast.hpp. of: of its best format.
template <int K>
BW_AVX2_FMA_INLINE bool fine_best(const float* row, double best, const double* of, double size) {
    bool all = true;
    for (int j = 0; j < K; ++j) all &= static_cast<double>(row[j]) - best >= of[j] * size;
    return all;
}

}  // namespace bitwright
#endif
