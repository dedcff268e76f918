// A cheaper sieve before the checks of fast.hpp, for brackets that are narrow already.
//
// Of a bracket m - h to m + h every format of a row is priced below what it costs at m, by h times the distance of its rate from a centre c:
// u_j = loss_j + size * (m * rate_j - h * |rate_j - c|), and a network of minima and maxima gives the least of them, u_a, and how far the
// second lies above it. Two formats change places within the bracket by h * size * |rate_j - rate_a| at most, and |rate_j - rate_a| <=
// |rate_j - c| + |rate_a - c|: a row where no u_j is less than u_a + 2 h * size * |rate_a - c| has one best format there, a. That bound is
// moved outward by more than all roundings, and by more than kMargin: what this sieve is sure of, fast.hpp would be sure of too. The other
// rows, few where the bracket is narrow and most rows choose rates near c, take the checks of fast.hpp one by one; blocks of a negative
// u_j are left to it. Rows of sizes from kHuge on, which are not multiplied here, are among those that take the checks.
#pragma once

#include "fast.hpp"

#if BW_FAST
#define BW_AVX2_FMA __attribute__((target("avx2,fma")))
#define BW_AVX2_FMA_INLINE BW_AVX2_FMA __attribute__((always_inline)) inline

namespace bitwright {

inline bool has_fma() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

struct CoarsePrices {
    float price[kFastest];
    alignas(64) float gap[16];          // 2 h |rate - c| and a margin, per unit of size where sizes differ; by the format, or the lowest four bits of u_j
    int64_t least;
    float beyond;                       // 2^32 where some size is from 2^31 on, else none
    bool huge;                          // whether some size is from 2^32 on: such rows are left
    int planes;                         // bytes of the greatest difference of rates
    alignas(64) int32_t rate[16];       // by the same
    alignas(16) uint8_t plane[3][16];   // byte of rate - least
};

// Each sum is rounded by half a unit in the last place of a float, and with AVX-512 its number takes up to 7 units more, of more than 8
// formats up to 15: of both values compared together 2^-23, below 2^-19 and below 2^-18.
template <int K, bool kNumbered>
constexpr float kApart = 1 - (!kNumbered ? 0x1p-22f : K > 8 ? 0x1p-17f : 0x1p-18f);

// As `fast_prices`, which must have held; top_size: of sizes that differ, else 0; centre: one of the rates. False where a gap would leave the normal range.
inline bool coarse_prices(const int64_t* rate, int k, double scale, int64_t top_size, double low, double high, int64_t centre, CoarsePrices& p) {
    const auto [least, most] = std::minmax_element(rate, rate + k);
    const auto off = [&](int j) { return std::fabs(static_cast<double>(rate[entry_of(j, k)] - centre)) * scale; };
    const double wide = static_cast<double>(*most - *least) * scale, half = (high - low) / 2, middle = (low + high) / 2;
    const double margin = 2 * kMargin * high * wide;   // prices are rounded to floats, and so is the size they are times: 2^-22 of this wide
    p.least = *least;
    p.beyond = top_size >= (int64_t{1} << 31) ? 0x1p32f : 0.0f;
    p.huge = top_size >= kHuge;
    double top = 0.0;
    for (int j = 0; j < kFastest; ++j)   // half * wide more in all, so that none is negative
        p.price[j] = static_cast<float>(middle * scale * static_cast<double>(rate[entry_of(j, k)] - *least) + half * (wide - off(j)));
    for (int j = 0; j < 16; ++j) {
        const double gap = (2 * half * off(j) + margin) * (1 + kMargin);
        top = std::max(top, gap);
        p.gap[j] = static_cast<float>(gap);
        p.rate[j] = static_cast<int32_t>(rate[entry_of(j, k)]);
        for (int b = 0; b < 3; ++b) p.plane[b][j] = static_cast<uint8_t>((rate[entry_of(j, k)] - *least) >> (8 * b));
    }
    p.planes = 0;
    while (p.planes < 3 && ((*most - *least) >> (8 * p.planes)) > 0) ++p.planes;
    return margin > 0x1p-100 && top < 0x1p120;
}

}  // namespace bitwright
#endif
