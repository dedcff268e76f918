// The single-precision pass for 2 to 16 formats: eight rows at a time (AVX2).
//
// For each row it guesses the best format x at one multiplier and then checks that x is the best one in the whole
// bracket [low, high]: for every other format j, with d = rate_x - rate_j,
//
//     loss_j - loss_x >= high * size * d   (d > 0)        loss_j - loss_x >= low * size * d   (d < 0)
//
// A difference of two floats is rounded once, so each check is wrong only for slopes within 2^-22 of the bracket's end;
// the ends are moved outward by 2^-21 (`kMargin`), hence a row that passes is certain, and everything else (near-ties,
// NaN, rows that are all inf) is listed and looked at in double precision. Sums run over the certain rows only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define BW_FAST 1

namespace bitwright {

constexpr double kMargin = 0x1p-21;

constexpr int kFastest = 16;   // the most formats of a single-precision pass

// Tables by format stand again and again in a register: after 4, 8 or 16 entries, the last ones filled up.
constexpr int period(int k) { return k <= 4 ? 4 : k <= 8 ? 8 : 16; }
constexpr int entry_of(int x, int k) { return std::min(x % period(k), k - 1); }

struct FastPrices {
    float price[kFastest];                        // middle * (rate_j - rate_0), times the common size where there is one
    alignas(64) float need[kFastest][kFastest];   // need[j][x]: least certain loss_j - loss_x per unit of size
    alignas(64) float of[kFastest][kFastest];     // of[x][j]: the same
    alignas(64) int32_t rate[kFastest];
};

// Prices for k rates; `scale` is the common size, or 1. False when single precision would leave its normal range.
inline bool fast_prices(const int64_t* rate, int k, double scale, double top_size, double low, double high, FastPrices& p) {
    double least = INFINITY, most = 0.0;
    for (int a = 0; a < k; ++a)
        for (int b = 0; b < k; ++b) {
            const double d = std::fabs(static_cast<double>(rate[a] - rate[b])) * scale;
            if (d > 0) least = std::min(least, d);
            most = std::max(most, d);
        }
    if (most > 0 && (high * most * top_size > 0x1p120 || high * least < 0x1p-115 || (low > 0 && low * least < 0x1p-115)))
        return false;
    const double middle = low > 0 ? std::sqrt(low * high) : high / 2;
    for (int j = 0; j < kFastest; ++j) {
        p.rate[j] = static_cast<int32_t>(rate[entry_of(j, k)]);
        p.price[j] = j < k ? static_cast<float>(middle * scale * static_cast<double>(rate[j] - rate[0])) : 0.0f;
        for (int x = 0; x < kFastest; ++x) {
            const double d = j < k ? static_cast<double>(rate[entry_of(x, k)] - rate[j]) * scale : 0.0;
            p.need[j][x] = p.of[x][j] = static_cast<float>(d > 0 ? high * d * (1 + kMargin) : low * d * (1 - kMargin));
        }
    }
    return true;
}

constexpr int64_t kHuge = int64_t{1} << 32;   // sizes from here on are multiplied by AVX-512 alone

// Whether subnormal numbers are flushed to zero in this thread: then differences are not what they seem.
inline bool flushes() { return (_mm_getcsr() & 0x8040) != 0; }

// Where the g-th four formats of a row of K begin: the last four may have some again.
template <int K>
constexpr int four_at(int g) {
    return std::max(0, std::min(4 * g, K - 4));
}

// K formats of eight rows of kStride floats from `p` on. Of fewer than 4 formats floats of the next row are read as well.
template <int K, int kStride = K>
__attribute__((target("avx2"), always_inline)) inline void columns(const float* p, __m256* l) {
    if constexpr (K == 4 && kStride == 4) {
        const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8), c = _mm256_loadu_ps(p + 16), d = _mm256_loadu_ps(p + 24);
        // Rows 0 1 | 2 3 | 4 5 | 6 7 -> lanes hold rows (0 2 4 6 | 1 3 5 7): the caller undoes that order once.
        const __m256 ab0 = _mm256_unpacklo_ps(a, b), ab1 = _mm256_unpackhi_ps(a, b);
        const __m256 cd0 = _mm256_unpacklo_ps(c, d), cd1 = _mm256_unpackhi_ps(c, d);
        l[0] = _mm256_shuffle_ps(ab0, cd0, 0x44);
        l[1] = _mm256_shuffle_ps(ab0, cd0, 0xEE);
        l[2] = _mm256_shuffle_ps(ab1, cd1, 0x44);
        l[3] = _mm256_shuffle_ps(ab1, cd1, 0xEE);
    } else {
        // Four formats of two rows meet in the load, in the same lane order as above, so that both share one fix of the order.
        __m256 c[4];
#pragma GCC unroll 4
        for (int h = 0; h < (K + 3) / 4; ++h) {
            const float* from = p + four_at<K>(h);
            __m256 r[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i)
                r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 2 * i * kStride)), _mm_loadu_ps(from + (2 * i + 1) * kStride), 1);
            const __m256 t0 = _mm256_unpacklo_ps(r[0], r[1]), t1 = _mm256_unpackhi_ps(r[0], r[1]);
            const __m256 t2 = _mm256_unpacklo_ps(r[2], r[3]), t3 = _mm256_unpackhi_ps(r[2], r[3]);
            __m256* to = K < 4 ? c : l + four_at<K>(h);
            to[0] = _mm256_shuffle_ps(t0, t2, 0x44);
            to[1] = _mm256_shuffle_ps(t0, t2, 0xEE);
            to[2] = _mm256_shuffle_ps(t1, t3, 0x44);
            to[3] = _mm256_shuffle_ps(t1, t3, 0xEE);
        }
        if constexpr (K < 4) std::copy(c, c + K, l);
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

// The upper halves of eight int64, in the same order: not zero from kHuge on.
__attribute__((target("avx2"), always_inline)) inline __m256i upper_halves(const int64_t* size) {
    const __m256 a = _mm256_loadu_ps(reinterpret_cast<const float*>(size)), b = _mm256_loadu_ps(reinterpret_cast<const float*>(size + 4));
    const __m256i high = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));   // rows 0 1 4 5 | 2 3 6 7
    return _mm256_permutevar8x32_epi32(high, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
}

// Entry x of a table of K floats, in every lane.
template <int K>
__attribute__((target("avx2"), always_inline)) inline __m256 entry(const float* table, __m256i x) {
    const __m256 t = _mm256_load_ps(table);
    if constexpr (K <= 4) return _mm256_permutevar_ps(t, x);
    else if constexpr (K <= 8) return _mm256_permutevar8x32_ps(t, x);
    else {
        const __m256 from_8 = _mm256_castsi256_ps(_mm256_slli_epi32(x, 28));   // the sign of each lane
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t, x), _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), x), from_8);
    }
}

template <int K>
__attribute__((target("avx2"), always_inline)) inline __m256i entry(const int32_t* table, __m256i x) {
    return _mm256_castps_si256(entry<K>(reinterpret_cast<const float*>(table), x));
}

// One row by the same checks. of: of its best format.
template <int K, bool kEqual>
__attribute__((target("avx2"), always_inline)) inline bool one_best(const float* row, float best, const float* of, float size) {
    if constexpr (K > 8) {   // the last eight may have some again
        return one_best<8, kEqual>(row, best, of, size) && one_best<8, kEqual>(row + K - 8, best, of + K - 8, size);
    } else {
        __m256 l;
        if constexpr (K == 8) l = _mm256_loadu_ps(row);
        else if constexpr (K == 4) l = _mm256_castps128_ps256(_mm_loadu_ps(row));
        else l = _mm256_maskload_ps(row, _mm256_cmpgt_epi32(_mm256_set1_epi32(K), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
        __m256 need = _mm256_loadu_ps(of);
        if constexpr (!kEqual) need = _mm256_mul_ps(need, _mm256_set1_ps(size));
        constexpr int all = (1 << K) - 1;
        return (_mm256_movemask_ps(_mm256_cmp_ps(_mm256_sub_ps(l, _mm256_set1_ps(best)), need, _CMP_GE_OQ)) & all) == all;
    }
}

struct FastBlock {
    int64_t weight;        // sum of the sizes of all rows, where they differ
    int64_t cost;          // sum of size * rate over the certain rows (of rate alone when sizes are equal)
    double loss;
    uint64_t unsure[8];    // bit r of word g: row 64 g + r is listed
};

// `count` rows (a multiple of 8, at most 512). huge: whether some size is from kHuge on; such rows are not certain here.
template <int K, bool kEqual>
__attribute__((target("avx2"))) void fast_block(const float* loss, const int64_t* size, const FastPrices& p, int count,
                                                [[maybe_unused]] bool huge, uint8_t* choice, FastBlock& out) {
    const __m256i back = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256d total = _mm256_setzero_pd();
    __m256i spent = _mm256_setzero_si256(), weighed = _mm256_setzero_si256();
    auto* bytes = reinterpret_cast<uint8_t*>(out.unsure);
    for (int i = 0; i < count; i += 8) {
        __m256 l[K];
        columns<K>(loss + static_cast<int64_t>(i) * K, l);
        __m256 w = _mm256_setzero_ps();
        if constexpr (!kEqual) w = weights(size + i);
        __m256 best = l[0], chosen = l[0];   // the price of format 0 is zero
        __m256i x = _mm256_setzero_si256();
        for (int j = 1; j < K; ++j) {
            __m256 price = _mm256_set1_ps(p.price[j]);
            if constexpr (!kEqual) price = _mm256_mul_ps(price, w);
            const __m256 v = _mm256_add_ps(l[j], price);
            const __m256 less = _mm256_cmp_ps(v, best, _CMP_LT_OQ);
            best = _mm256_min_ps(v, best);
            chosen = _mm256_blendv_ps(chosen, l[j], less);
            x = _mm256_blendv_epi8(x, _mm256_set1_epi32(j), _mm256_castps_si256(less));
        }
        __m256 sure = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
        for (int j = 0; j < K; ++j) {
            __m256 need = entry<K>(p.need[j], x);
            if constexpr (!kEqual) need = _mm256_mul_ps(need, w);
            sure = _mm256_and_ps(sure, _mm256_cmp_ps(_mm256_sub_ps(l[j], chosen), need, _CMP_GE_OQ));
        }
        if constexpr (!kEqual)
            if (huge) sure = _mm256_and_ps(sure, _mm256_castsi256_ps(_mm256_cmpeq_epi32(upper_halves(size + i), _mm256_setzero_si256())));
        chosen = _mm256_and_ps(chosen, sure);
        total = _mm256_add_pd(total, _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(chosen)),
                                                   _mm256_cvtps_pd(_mm256_extractf128_ps(chosen, 1))));
        x = _mm256_permutevar8x32_epi32(x, back);
        const __m256i kept = _mm256_permutevar8x32_epi32(_mm256_castps_si256(sure), back);
        bytes[i / 8] = static_cast<uint8_t>(~_mm256_movemask_ps(_mm256_castsi256_ps(kept)));
        const __m256i rates = _mm256_and_si256(entry<K>(p.rate, x), kept);
        if constexpr (kEqual) {
            spent = _mm256_add_epi32(spent, rates);   // at most 64 rates of 2^24 a lane
        } else {
            const __m256i s0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i));
            const __m256i s1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(size + i + 4));
            weighed = _mm256_add_epi64(weighed, _mm256_add_epi64(s0, s1));
            const __m256i r0 = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(rates));
            const __m256i r1 = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(rates, 1));
            spent = _mm256_add_epi64(spent, _mm256_add_epi64(_mm256_mul_epu32(s0, r0), _mm256_mul_epu32(s1, r1)));
        }
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(choice + i), _mm_packus_epi16(shorts, shorts));
    }
    double sums[4];
    _mm256_storeu_pd(sums, total);
    out.loss = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    out.cost = out.weight = 0;
    if constexpr (kEqual) {
        alignas(32) int32_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        for (int32_t lane : lanes) out.cost += lane;
    } else {
        alignas(32) int64_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), spent);
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 4), weighed);
        out.cost = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        out.weight = (lanes[4] + lanes[5]) + (lanes[6] + lanes[7]);
    }
}

}  // namespace bitwright
#endif
