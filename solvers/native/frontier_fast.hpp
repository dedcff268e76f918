// The hull slopes of frontier.hpp for up to 8 formats in single precision: how they are found, and how they are added up.
// As in frontier_plain.hpp; here a row with a negative value is done in full too, and additions are written in turns with what finds slopes.
#pragma once

#include <vector>

#include "fast.hpp"
#include "frontier_plain.hpp"

#if BW_FAST
namespace bitwright {

template <int K>
constexpr int kWindow = K > 5 ? kReach : K - 1;

// What a row adds to a stretch: a code of its slope; of sizes that are small multiples of a power of two, their unit, the size times a wide code;
// of any others a Pair.
enum class Sizes { equal, small, any };

struct alignas(16) Pair {
    double size, slope;
};

// The part: 16 bits of the mantissa, those below the bits that are the stretch q. The code: the part, inverted, above the odd number
// 2 q + 1, 16 bits too. The sum of up to 65,535 codes of a stretch tells how many they are: it is their number times 2 q + 1, modulo 2^16.
constexpr int kParts = 16;
constexpr uint32_t kPartBits = 0xFFFF0001;   // bits of a code that come from the inverted part
constexpr int64_t kCounted = 65472;          // rows between two emptyings of the table: a multiple of 64

// The wide code of small sizes: 2^40 + 2^16 q + the part. Of sizes whose sum in a stretch is S, below 2^24, the parts add up to less than S 2^16. So
// their sum without its lowest 16 bits is S (2^24 + q) and less than S more: divided by 2^24 + q it is S and a fraction.
constexpr int kAbove = 40;
constexpr int64_t kMostWeighed = (int64_t{1} << 24) - (1 << 17);   // S at most: S * (2^40 + 2^28) stays below 2^64
constexpr int64_t kFewWeighed = 1 << 12;   // the mean size at most: a table is emptied every few thousand rows
constexpr int64_t kWeighed = 2048;         // rows whose sizes are summed before they are added

constexpr uint32_t kNarrow = 4;

// Sums of one worker. inverse: 1 / (rate_b - rate_a), scaled so that t_j stay near 1; mean: brings t_j / size near 1
// (small sizes by their unit).
template <int K>
struct Sums {
    float inverse[K][K];
    float mean;
    int unit = 0;                       // small sizes are times 2^unit
    const int* order;
    std::vector<uint64_t> cell;         // equal and small sizes; K tables and their twins
    std::vector<Pair> pair;             // the same of any sizes
    std::vector<int64_t> size, part;    // taken out of `cell`: sums of the sizes (or numbers), and of their products with the parts
    uint32_t least = ~0u, most = 0;     // bits of the slopes since
    bool narrow = false;                // of the rows before: fewer than kNarrow stretches, so that additions would wait for each other
    bool twins = false;                 // whether some went to twins since
    bool rising = false;                // most blocks had rows that are not convex
    double last = 0.0;
};

// The inverse of an odd number modulo 2^16, by Newton's iteration (an odd number is its own inverse modulo 8).
inline uint16_t inverse_of(uint32_t odd) {
    uint32_t x = odd;
    for (int q = 0; q < 3; ++q) x *= 2 - odd * x;
    return static_cast<uint16_t>(x);
}

struct Inverses {
    uint16_t of[kStretches];   // of 2 q + 1
    Inverses() {
        for (int q = 0; q < kStretches; ++q) of[q] = inverse_of(2 * static_cast<uint32_t>(q) + 1);
    }
};

inline const Inverses& inverses() {
    static const Inverses made;
    return made;
}

// Sum of slopes times sizes of stretch q. The three bits of the mantissa that are not kept: 3.5 on average.
inline double slopes_of(int64_t sizes, int64_t parts, int q) {
    const auto size = static_cast<double>(sizes);
    const double part = size * ((q & ((1 << kShare) - 1)) << kShift) + 8.0 * static_cast<double>(parts) + 3.5 * size;
    return std::ldexp(size + part * 0x1p-23, (q >> kShare) - 127);
}

BW_AVX2 BW_INLINE __m256i load4(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
BW_AVX2 BW_INLINE void store4(void* to, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }

// Four integers of 0 to 2^52 - 1 as doubles.
BW_AVX2 BW_INLINE __m256d doubles_of(__m256i x) {
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, _mm256_set1_epi64x(0x4330000000000000))), _mm256_set1_pd(4503599627370496.0));
}
BW_AVX2 BW_INLINE __m256d doubles4(const int64_t* from) { return doubles_of(load4(from)); }

// Sums of the sizes (or numbers) and of their products with the parts, out of four stretches from q on.
template <bool kEqual>
BW_AVX2 BW_INLINE void apart(__m256i sum, int q, __m256i& size, __m256i& part) {
    const __m256i stretch = _mm256_add_epi64(_mm256_set1_epi64x(q), _mm256_setr_epi64x(0, 1, 2, 3));
    if constexpr (kEqual) {
        const __m256i low16 = _mm256_set1_epi64x(0xFFFF), odd = _mm256_add_epi64(_mm256_slli_epi64(stretch, 1), _mm256_set1_epi64x(1));
        const __m256i by = _mm256_cvtepu16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(inverses().of + q)));
        size = _mm256_and_si256(_mm256_mullo_epi16(sum, by), low16);
        const __m256i rest = _mm256_srli_epi64(_mm256_sub_epi64(sum, _mm256_mul_epu32(size, odd)), kParts);
        part = _mm256_sub_epi64(_mm256_sub_epi64(_mm256_slli_epi64(size, kParts), size), rest);
    } else {   // half of one more, for the rounding: that leaves the fraction below 1
        const __m256d whole = _mm256_add_pd(doubles_of(_mm256_srli_epi64(sum, kParts)), _mm256_set1_pd(0.5));
        const __m256i one = _mm256_add_epi64(stretch, _mm256_set1_epi64x(int64_t{1} << (kAbove - kParts)));
        size = _mm256_cvtepi32_epi64(_mm256_cvttpd_epi32(_mm256_div_pd(whole, doubles_of(one))));
        const __m256i above = _mm256_add_epi64(_mm256_slli_epi64(size, kAbove), _mm256_slli_epi64(_mm256_mul_epu32(size, stretch), kParts));
        part = _mm256_sub_epi64(sum, above);
    }
}

// Takes what was added up out of the table, eight stretches at a time.
template <int K, bool kEqual>
BW_AVX2 void empty(Sums<K>& s) {
    const int first = static_cast<int>(s.least >> kShift) & ~7, end = static_cast<int>(s.most >> kShift) + 1;
    for (int j = 1; j < (s.twins ? 2 * K : K); ++j) {
        for (int at = first; j != K && at < end; at += 8) {
            uint64_t* cell = s.cell.data() + j * kTable + at;
            const __m256i any = _mm256_or_si256(load4(cell), load4(cell + 4));
            if (_mm256_testz_si256(any, any)) continue;
            for (int q = at; q < at + 8; q += 4, cell += 4) {
                __m256i size, part;
                apart<kEqual>(load4(cell), q, size, part);
                int64_t *sizes = s.size.data() + j % K * kStretches + q, *parts = s.part.data() + j % K * kStretches + q;
                store4(sizes, _mm256_add_epi64(load4(sizes), size));
                store4(parts, _mm256_add_epi64(load4(parts), part));
                store4(cell, _mm256_setzero_si256());
            }
        }
    }
    s.least = ~0u;
    s.most = 0;
    s.twins = false;
}

}  // namespace bitwright
#endif
