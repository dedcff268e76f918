// ---- one bit: levels {0, s} (quantizers/one_bit.py is the truth) ---------------------------------------------------------
// Some groups at a time, in steps: each step adds up whole numbers of all of them, so that the divisions between two steps
// are those of eight groups at once and wait for no one group.
typedef int16_t H16 __attribute__((vector_size(32)));
typedef int8_t B32 __attribute__((vector_size(32)));
static const int SOME = 32;      // groups at a time, at most
static const int64_t PART = 4;   // vectors of 32 whose sums fit the fields below
static BW_INLINE H16 h_set(int a) { return H16{} + (int16_t)a; }
static BW_INLINE B32 b_set(int a) { return B32{} + (int8_t)a; }
// Adds a[2k] b[2k] + a[2k + 1] b[2k + 1] to lane k; of bytes (a >= 0) a[4k] b[4k] + ... + a[4k + 3] b[4k + 3].
static BW_INLINE I8 add_dot(I8 sum, H16 a, H16 b) {
#if defined(BW_AVX2)
    return (I8)add_products((Words)sum, (Words)a, (Words)b);
#else
    const I8 x = (I8)a, y = (I8)b;
    return sum + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}
static BW_INLINE I8 add_dot(I8 sum, B32 a, B32 b) {
#if defined(BW_AVX512)
    return (I8)_mm256_dpbusd_epi32((Words)sum, (Words)a, (Words)b);
#elif defined(BW_AVX2)
    return (I8)add_products((Words)sum, _mm256_maddubs_epi16((Words)a, (Words)b), _mm256_set1_epi16(1));
#else
    const I8 x = (I8)a, y = (I8)b;
    for (int at = 24; at >= 0; at -= 8) sum = sum + (x << at >> 24) * (y << at >> 24);
    return sum;
#endif
}
// Bytes of 32 positions (bw_byte), in any order.
static BW_INLINE B32 bytes_of(H16 a, H16 b, H16 factor) {
#if defined(BW_AVX2)
    const Words q = _mm256_packs_epi16(_mm256_mulhrs_epi16((Words)a, (Words)factor), _mm256_mulhrs_epi16((Words)b, (Words)factor));
    return (B32)_mm256_max_epi8(q, _mm256_set1_epi8(-127));
#else
    B32 q;
    for (int k = 0; k < 16; ++k) q[k] = (int8_t)bw_byte(a[k], factor[0]), q[16 + k] = (int8_t)bw_byte(b[k], factor[0]);
    return q;
#endif
}
// Keeps the compiler from making a vector out of a mask register twice.
static BW_INLINE B32 kept_vector(B32 a) {
#if defined(BW_AVX512)
    __asm__("" : "+x"(a));
#endif
    return a;
}
static BW_INLINE H16 turned(H16 a, H16 side) { // side: 1 or -1
#if defined(BW_AVX2)
    return (H16)_mm256_sign_epi16((Words)a, (Words)side);
#else
    return a * side;
#endif
}
static BW_INLINE B32 magnitudes(B32 a) {
#if defined(BW_AVX2)
    return (B32)_mm256_abs_epi8((Words)a);
#else
    const B32 sign = (B32)(a < 0);
    return (a ^ sign) - sign;
#endif
}
// A bit for each of 32 numbers that are 0 or -1.
static BW_INLINE uint32_t bits_of(H16 a, H16 b) {
#if defined(BW_AVX2)
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16((Words)a, (Words)b), 0xd8));
#else
    uint32_t bits = 0;
    for (int k = 0; k < 16; ++k) bits |= (uint32_t)(a[k] & 1) << k | (uint32_t)(b[k] & 1) << (16 + k);
    return bits;
#endif
}
// Positions of sixteen numbers (bw_position).
template <class T> static BW_INLINE H16 sixteen_positions(const typename T::type *x, float inverse) {
#if defined(BW_AVX2)
    const __m256 by = _mm256_set1_ps(inverse);
    return (H16)_mm256_permute4x64_epi64(_mm256_packs_epi32(rint32(T::eight(x), by), rint32(T::eight(x + 8), by)), 0xd8);
#else
    H16 p;
    for (int k = 0; k < 16; ++k) p[k] = (int16_t)bw_position(T::one(x + k), inverse);
    return p;
#endif
}
#if defined(BW_AVX2)
template <> BW_INLINE H16 sixteen_positions<BF16>(const bw_u16 *x, float inverse) {
    const __m256 by = _mm256_set1_ps(inverse);
    const Words v = _mm256_loadu_si256((const Words *)x);
    const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)), odd = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u)));
    return (H16)lower_halves(rint32(even, by), rint32(odd, by));
}
#endif
// The largest magnitude of n numbers, and of each of `count` <= 8 groups of n; as absmax.
template <class T> static float top_of(const typename T::type *x, int64_t n) {
    bw_u16 most = 0;
    for (int64_t i = 0; i < n; ++i) {
        const bw_u16 magnitude = (bw_u16)((bw_u16)x[i] & 0x7fff);
        most = magnitude > most ? magnitude : most;
    }
    return T::one((const typename T::type *)&most);
}
template <> float top_of<F32>(const float *x, int64_t n) { return absmax(x, n); }
template <class T, int SIZE> static BW_INLINE V8 group_tops(const typename T::type *x, int count, int64_t group, int64_t last) {
    alignas(32) float tops[8] = {0};
#if defined(BW_AVX2)
    if (SIZE && sizeof *x == 2) {
        Words most[8];
        for (int g = 0; g < 8; ++g) {
            most[g] = _mm256_setzero_si256();
            for (int64_t i = 0; g < count && i < SIZE; i += 16) most[g] = _mm256_max_epi16(most[g], _mm256_and_si256(_mm256_loadu_si256((const Words *)(x + g * SIZE + i)), _mm256_set1_epi16(0x7fff)));
        }
        alignas(16) bw_u16 found[8];
        _mm_store_si128((__m128i *)found, largest_of_each_16<true>(most));
        return (V8)T::eight((const typename T::type *)found);
    }
    if (SIZE) {
        tops_of((const float *)x, count, SIZE, tops);
        return v_load(tops);
    }
#endif
    for (int g = 0; g < count; ++g) tops[g] = top_of<T>(x + g * group, g + 1 < count ? group : last);
    return v_load(tops);
}
// Lane g: the sum of the lanes of v[g].
static BW_INLINE I8 group_totals(const I8 *v) {
#if defined(BW_AVX2)
    Words two[4];
    for (int k = 0; k < 4; ++k) two[k] = add_pairs((Words)v[2 * k], (Words)v[2 * k + 1]);
    const Words a = add_fours(two[0], two[1]), b = add_fours(two[2], two[3]);
    return (I8)_mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
#else
    I8 total = {0};
    for (int g = 0; g < 8; ++g)
        for (int k = 0; k < 8; ++k) total[g] += v[g][k];
    return total;
#endif
}
static BW_INLINE void v_store(V8 v, float *x) { std::memcpy(x, &v, sizeof v); }
static BW_INLINE void i_store(I8 v, int32_t *x) { std::memcpy(x, &v, sizeof v); }
static BW_INLINE I8 i_load(const int32_t *x) {
    I8 v;
    std::memcpy(&v, x, sizeof v);
    return v;
}
static BW_INLINE I8 whole(V8 v) { return __builtin_convertvector(v, I8); }
// FIELDS numbers of each of `count` groups as floats. part(g, from, to, sums) makes SUMS sums of at most PART vectors of 32,
// fields(totals, found) the numbers of their totals, of eight groups or of one in lane 0. SIZE: numbers of a group where
// that is 32, 64 or 128, or 0.
template <int SIZE, int SUMS, int FIELDS, class Part, class Fields>
static BW_INLINE void add_up(int count, int64_t vectors, float (*out)[SOME], const Part &part, const Fields &fields) {
    if (!SIZE)
        for (int g = 0; g < count; ++g) {
            int64_t total[FIELDS] = {0};
            for (int64_t at = 0; at < vectors; at += PART) {
                I8 sums[SUMS], found[FIELDS], totals[SUMS] = {};
                part(g, at, at + PART < vectors ? at + PART : vectors, sums);
                for (int j = 0; j < SUMS; ++j)
                    for (int k = 0; k < 8; ++k) totals[j][0] += sums[j][k];
                fields(totals, found);
                for (int j = 0; j < FIELDS; ++j) total[j] += found[j][0];
            }
            for (int j = 0; j < FIELDS; ++j) out[j][g] = (float)total[j];
        }
    for (int first = 0; SIZE && first < count; first += 8) {
        I8 lanes[SUMS][8], totals[SUMS], found[FIELDS];
        for (int g = 0; g < 8; ++g) { // of no group where there are fewer: what is there is of no use to anyone
            I8 sums[SUMS];
            part(first + g, 0, SIZE / 32, sums);
            for (int j = 0; j < SUMS; ++j) lanes[j][g] = sums[j];
        }
        for (int j = 0; j < SUMS; ++j) totals[j] = group_totals(lanes[j]);
        fields(totals, found);
        for (int j = 0; j < FIELDS; ++j) v_store(__builtin_convertvector(found[j], V8), out[j] + first);
    }
}
#define BW_PART [&](int g, int64_t from, int64_t to, I8 *sums) __attribute__((always_inline))
#define BW_FIELDS [](const I8 *totals, I8 *found) __attribute__((always_inline))

struct OneBit {
    alignas(32) float inverse[SOME], unit[SOME], numbers[SOME], norm[1][SOME], found[8][SOME];
    alignas(32) int32_t factor[SOME], threshold[SOME], below[SOME]; // below: -1 where the level is negative
};
static BW_INLINE V8 least_one(V8 a) { return v_max(a, v_set(1)); }

// Positions and their squares; 1: NaN or infinity.
template <class T, int SIZE> static BW_INLINE int one_bit_positions(const typename T::type *x, int count, int64_t group, int64_t last, int64_t vectors, H16 *p, OneBit &o) {
    I8 finite = I8{} - 1;
    for (int g = 0; g < count; g += 8) {
        const V8 top = group_tops<T, SIZE>(x + g * group, count - g < 8 ? count - g : 8, group, count - g <= 8 ? last : group);
        finite = finite & v_finite(top);
        const V8 held = v_max(top, v_set(BW_LEAST_TOP));
        v_store(BW_REACH / held, o.inverse + g), v_store(held / BW_REACH, o.unit + g);
        v_store(v_set((float)group), o.numbers + g);
    }
    o.numbers[count - 1] = (float)last;
    if (top_bits(finite) != 255) return 1;
    add_up<SIZE, 1, 1>(count, vectors, o.norm, BW_PART {
        sums[0] = I8{};
        if (SIZE && g >= count) return;
        const typename T::type *of = x + g * group;
        const int64_t n = SIZE ? SIZE : g + 1 < count ? group : last;
        for (int64_t v = 2 * from; v < 2 * to; ++v) {
            typename T::type rest[16] = {0};
            const bool full = SIZE || n >= 16 * v + 16;
            if (!full && n > 16 * v) std::memcpy(rest, of + 16 * v, (n - 16 * v) * sizeof *rest);
            const H16 at = sixteen_positions<T>(full ? of + 16 * v : rest, o.inverse[g]);
            p[2 * g * vectors + v] = at;
            sums[0] = add_dot(sums[0], at, at);
        }
    }, BW_FIELDS { found[0] = totals[0]; });
    for (int g = 0; g < count; g += 8) { // bw_factor
        const V8 spread = v_max(v_sqrt(v_load(o.norm[0] + g) / v_load(o.numbers + g)), v_set(1));
        i_store(whole(v_min((float)(BW_STEPS << 15) / spread, v_set(32767))), o.factor + g);
    }
    return 0;
}
// The better side, and the threshold in positions that its mean sets. AHEAD bytes a group are fetched meanwhile.
template <int SIZE, int AHEAD> static BW_INLINE void one_bit_sides(int count, int64_t vectors, const H16 *p, const uint8_t *ahead, OneBit &o) {
    // Sums of a side up to 127 * 128 in 16 bits, its numbers up to 128 in 8. What is beyond has mask -1: sums are negative.
    add_up<SIZE, 3, 8>(count, vectors, o.found, BW_PART {
        B32 number[4] = {};
        I8 sum[4] = {};
        const H16 factor = h_set(o.factor[g]);
        for (int64_t i = 0; SIZE && i < AHEAD; i += 64) __builtin_prefetch(ahead + g * AHEAD + i);
        for (int64_t v = from; v < to; ++v) {
            const B32 at = bytes_of(p[2 * (g * vectors + v)], p[2 * (g * vectors + v) + 1], factor), magnitude = magnitudes(at);
            for (int j = 0; j < 4; ++j) {
                const int start = j < 2 ? BW_FIRST_START : BW_SECOND_START;
                const B32 beyond = kept_vector(j % 2 ? (B32)(at > b_set(start)) : (B32)(b_set(-start) > at));
                sum[j] = add_dot(sum[j], magnitude, beyond), number[j] -= beyond;
            }
        }
        sums[0] = sum[0] + (sum[1] << 16), sums[1] = sum[2] + (sum[3] << 16), sums[2] = I8{};
        for (int j = 3; j >= 0; --j) sums[2] = add_dot(sums[2] << 8, number[j], b_set(1));
    }, BW_FIELDS {
        for (int j = 0; j < 4; ++j) {
            found[j] = -totals[j / 2] >> (16 * (j % 2)) & 0xffff;
            found[4 + j] = totals[2] >> (8 * j) & 0xff;
        }
    });
    for (int g = 0; g < count; g += 8) {
        V8 best = v_set(-1), mean = v_set(0);
        I8 below = {};
        for (int j = 0; j < 4; ++j) {
            const V8 total = v_load(o.found[j] + g), average = total / least_one(v_load(o.found[4 + j] + g)), gain = average * total;
            const I8 better = gain > best;
            best = v_pick(better, gain, best), mean = v_pick(better, average, mean);
            below = i_pick(better, I8{} - (j % 2 == 0), below);
        }
        i_store(whole(mean * ((float)(1 << 14) / __builtin_convertvector(i_load(o.factor + g), V8))), o.threshold + g);
        i_store(below, o.below + g);
    }
}
// The bits of what is beyond, and its sum, negative.
template <int SIZE> static BW_INLINE void one_bit_choice(int count, int64_t vectors, const H16 *p, uint32_t *bits, OneBit &o) {
    add_up<SIZE, 1, 1>(count, vectors, o.found, BW_PART {
        sums[0] = I8{};
        const H16 side = h_set(o.below[g] | 1), threshold = h_set(o.threshold[g]);
        for (int64_t v = from; v < to; ++v) {
            H16 at[2], beyond[2];
            for (int h = 0; h < 2; ++h) {
                at[h] = turned(p[2 * (g * vectors + v) + h], side), beyond[h] = (H16)(at[h] > threshold);
                sums[0] = add_dot(sums[0], at[h], beyond[h]);
            }
            bits[g * vectors + v] = bits_of(beyond[0], beyond[1]);
        }
    }, BW_FIELDS { found[0] = totals[0]; });
}
// Up to 32 bits, those beyond `n` zeros, from bit `at` of a row that is zeros there.
static BW_INLINE void put_bits(uint32_t bits, int64_t n, uint8_t *row, int64_t at) {
    uint64_t left = n < 32 ? bits & ((1u << n) - 1) : bits;
    row += at / 8;
    for (left <<= at % 8; left; left >>= 8) *row = (uint8_t)(*row | left), ++row;
}
// Scales, zero points and codes of groups side by side, the first of which starts at bit `start` of a row; 2: a level beyond
// half.
template <int SIZE> static BW_INLINE int one_bit_store(int count, int64_t group, int64_t last, int64_t vectors, bool symmetric, const uint32_t *bits, const OneBit &o, uint8_t *row, int64_t start, bw_u16 *scales, uint8_t *zeros) {
    alignas(32) int32_t held[SOME], flip[SOME], sign[SOME];
    alignas(16) bw_u16 halves[SOME];
    I8 large = {};
    for (int g = 0; g < count; g += 8) {
        const V8 along = v_abs(v_load(o.found[0] + g)), level = v_pick(along > v_set(0), v_load(o.norm[0] + g) / along, v_set(0)) * v_load(o.unit + g);
        const I8 kept = level >= v_set(BW_TINY), below = i_load(o.below + g) & kept;
        large = large | (level > v_set(BW_MAX_HALF));
        rounded_halves(v_clamp(level, v_set(BW_TINY), v_set(BW_MAX_HALF)), halves + g);
        i_store(kept, held + g), i_store(symmetric ? I8{} - 1 : below, flip + g), i_store(kept & ~below & 0x8000, sign + g);
    }
    if (top_bits(large)) return 2;
    for (int g = 0; g < count; ++g) {
        scales[g] = (bw_u16)(halves[g] | (symmetric ? sign[g] : 0));
        if (!symmetric) zeros[g] = (uint8_t)(flip[g] & 1);
        const int64_t n = SIZE ? SIZE : g + 1 < count ? group : last, at = start + g * n;
        for (int64_t v = 0; v < vectors && 32 * v < n; ++v) {
            const uint32_t code = (bits[g * vectors + v] & (uint32_t)held[g]) ^ (uint32_t)flip[g];
            if (SIZE) std::memcpy(row + at / 8 + 4 * v, &code, 4);
            else put_bits(code, n - 32 * v, row, start + g * group + 32 * v);
        }
    }
    return 0;
}
struct OneBitRoom {
    std::vector<H16> p;
    std::vector<uint32_t> bits;
};
// Three lots of groups are under way at a time, each a step behind the one before: nothing waits for a division.
template <class T, int SIZE>
static int one_bit_row(const typename T::type *x, int64_t columns, int64_t group, bool symmetric, OneBitRoom &room, uint8_t *row, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group, size = SIZE ? SIZE : group < columns ? group : columns, vectors = (size + 31) / 32;
    const int64_t most = SIZE ? SOME : size >= 8192 ? 1 : 8192 / size < SOME ? 8192 / size : SOME, lots = (groups + most - 1) / most;
    const int64_t tail = columns - (groups - 1) * group;
    OneBit under_way[3] = {};
    room.p.resize(3 * 2 * most * vectors), room.bits.resize(most * vectors);
    for (int64_t step = 0; step < lots + 2; ++step) {
        for (int late = 0; late < 3; ++late) {
            const int64_t lot = step - late, first = lot * most, start = first * group;
            if (lot < 0 || lot >= lots) continue;
            const int count = (int)(groups - first < most ? groups - first : most);
            const int64_t last = lot + 1 < lots ? size : tail;
            H16 *p = room.p.data() + lot % 3 * (2 * most * vectors);
            OneBit &o = under_way[lot % 3];
            if (late == 0 && one_bit_positions<T, SIZE>(x + start, count, size, last, vectors, p, o)) return 1;
            if (late == 1) one_bit_sides<SIZE, SIZE * (int)sizeof *x>(count, vectors, p, (const uint8_t *)(x + start + 2 * most * size), o);
            if (late < 2) continue;
            one_bit_choice<SIZE>(count, vectors, p, room.bits.data(), o);
            if (one_bit_store<SIZE>(count, size, last, vectors, symmetric, room.bits.data(), o, row, start, scales + first, zeros ? zeros + first : zeros)) return 2;
        }
    }
    return 0;
}

// ---- signs: a scale that is the mean magnitude ---------------------------------------------------------------------------
#if defined(BW_AVX2)
static BW_INLINE V8 halves_of(V8 a, V8 b, int upper) { // the lower or upper halves of two vectors
    return (V8)(upper ? _mm256_permute2f128_ps((__m256)a, (__m256)b, 0x31) : _mm256_permute2f128_ps((__m256)a, (__m256)b, 0x20));
}
// In each half, lane k: (v0 + v2) + (v1 + v3) of the half of vector k.
static BW_INLINE V8 fours(V8 a, V8 b, V8 c, V8 d) {
    const __m256 x = _mm256_add_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b), _mm256_unpackhi_ps((__m256)a, (__m256)b));
    const __m256 y = _mm256_add_ps(_mm256_unpacklo_ps((__m256)c, (__m256)d), _mm256_unpackhi_ps((__m256)c, (__m256)d));
    return (V8)_mm256_add_ps(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xee));
}
#endif
// Sixteen magnitudes at a time, lane by lane as reference_quantize.lane_sum has them, and the bits of numbers >= 0.
template <class T> struct Magnitudes {
    V8 low, high;
    BW_INLINE uint32_t add(const typename T::type *x) {
#if defined(BW_AVX2)
        const V8 a = (V8)T::eight(x), b = (V8)T::eight(x + 8);
#else
        V8 a, b;
        for (int k = 0; k < 8; ++k) a[k] = T::one(x + k), b[k] = T::one(x + 8 + k);
#endif
        low = low + v_abs(a), high = high + v_abs(b);
        return top_bits(a >= v_set(0)) | top_bits(b >= v_set(0)) << 8;
    }
    BW_INLINE float total() const { return sum8(low + high); }
#if defined(BW_AVX2)
    BW_INLINE V8 folded() const { return low + high; }
    // Lane g: as total() of v[g], folded.
    static BW_INLINE V8 totals(const V8 *v) {
        V8 f[4];
        for (int k = 0; k < 4; ++k) f[k] = halves_of(v[k], v[k + 4], 0) + halves_of(v[k], v[k + 4], 1);
        return fours(f[0], f[1], f[2], f[3]);
    }
#endif
};
#if defined(BW_AVX2)
template <> struct Magnitudes<BF16> { // low: even lanes, high: odd ones
    V8 low, high;
    BW_INLINE uint32_t add(const bw_u16 *x) {
        const Words v = _mm256_loadu_si256((const Words *)x), m = _mm256_and_si256(v, _mm256_set1_epi16(0x7fff));
        low = low + (V8)_mm256_slli_epi32(m, 16), high = high + (V8)_mm256_and_si256(m, _mm256_set1_epi32((int)0xffff0000u));
        const Words positive = _mm256_cmpeq_epi16(_mm256_subs_epu16(v, _mm256_set1_epi16((short)0x8000)), _mm256_setzero_si256());
        return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(positive), _mm256_extracti128_si256(positive, 1)));
    }
    BW_INLINE float total() const {
        const __m128 e = _mm_add_ps(_mm256_castps256_ps128((__m256)low), _mm256_extractf128_ps((__m256)low, 1));
        const __m128 o = _mm_add_ps(_mm256_castps256_ps128((__m256)high), _mm256_extractf128_ps((__m256)high, 1));
        return sum8((V8)_mm256_set_m128(_mm_unpackhi_ps(e, o), _mm_unpacklo_ps(e, o)));
    }
    BW_INLINE V8 folded() const { return halves_of(low, high, 0) + halves_of(low, high, 1); } // even sums, then odd ones
    static BW_INLINE V8 totals(const V8 *v) {
        const V8 a = fours(v[0], v[1], v[2], v[3]), b = fours(v[4], v[5], v[6], v[7]);
        return halves_of(a, b, 0) + halves_of(a, b, 1);
    }
};
#endif
template <class T> static BW_INLINE float signs_of(const typename T::type *x, int64_t n, uint8_t *row, int64_t start) {
    double total = 0;
    for (int64_t base = 0; base < n; base += 1024) {
        const int64_t stop = base + 1024 < n ? base + 1024 : n;
        Magnitudes<T> sums = {};
        for (int64_t i = base; i < stop; i += 16) {
            typename T::type rest[16] = {0};
            if (stop - i < 16) std::memcpy(rest, x + i, (stop - i) * sizeof *rest); // adding zeros changes nothing
            const uint16_t bits = (uint16_t)sums.add(stop - i < 16 ? rest : x + i);
            const int64_t at = start + i;
            if (at % 8 == 0 && stop - i >= 16) std::memcpy(row + at / 8, &bits, 2);
            else put_bits(bits, stop - i < 16 ? stop - i : 16, row, at);
        }
        total += (double)sums.total();
    }
    return (float)total;
}
#if defined(BW_AVX2)
// Groups of 32 that follow each other without a gap, eight at a time; how many were done: fewer where a scale does not fit.
template <class T> static int64_t signs_of_32(const typename T::type *x, int64_t groups, uint8_t *row, bw_u16 *scales) {
    for (int64_t first = 0; first < groups; first += 8, x += 256, row += 32, scales += 8) {
        if (groups - first < 8) return first;
        V8 sums[8];
        for (int g = 0; g < 8; ++g) {
            Magnitudes<T> of = {};
            const uint32_t low = of.add(x + 32 * g), bits = low | of.add(x + 32 * g + 16) << 16;
            std::memcpy(row + 4 * g, &bits, 4);
            sums[g] = of.folded();
        }
        const V8 mean = Magnitudes<T>::totals(sums) * v_set(1.0f / 32);
        if (top_bits(mean <= v_set(BW_MAX_HALF)) != 255) return first;
        rounded_halves(v_max(mean, v_set(BW_TINY)), scales);
    }
    return groups;
}
#endif
template <class T>
static int sign_row(const typename T::type *x, int64_t columns, int64_t group, uint8_t *row, bw_u16 *scales) {
    int64_t at = 0;
#if defined(BW_AVX2)
    if (group == 32) {
        const int64_t done = signs_of_32<T>(x, columns / 32, row, scales);
        at = 32 * done, scales += done;
    }
#endif
    for (; at < columns; at += group) {
        const int64_t n = at + group < columns ? group : columns - at;
        const float mean = (n == 64 ? signs_of<T>(x + at, 64, row, at) : signs_of<T>(x + at, n, row, at)) / (float)n;
        if (!half_scale(mean, scales++)) return top_of<T>(x, columns) <= 3.402823466e38f ? 2 : 1;
        if (!(mean <= BW_MAX_HALF)) return 1; // NaN
    }
    return 0;
}

enum { ASYMMETRIC, SYMMETRIC, SIGN };
// Rows of one bit; kind: ASYMMETRIC, SYMMETRIC or SIGN. 0, 1 NaN or infinity, 2 a scale that does not fit half.
template <class T>
static int one_bit_rows(const typename T::type *data, int64_t rows, int64_t columns, int64_t group, int kind, uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros) {
    if (columns % group == 0 && group % 32 == 0) nbytes *= rows, columns *= rows, rows = 1; // no gaps: one long row
    const int64_t groups = (columns + group - 1) / group;
    OneBitRoom room;
    const bool words = columns % group == 0 && group % 32 == 0;
    for (int64_t r = 0; r < rows; ++r, data += columns, out += nbytes, scales += groups, zeros += zeros ? groups : 0) {
        std::memset(out, 0, nbytes);
        int status;
        if (kind == SIGN) status = sign_row<T>(data, columns, group, out, scales);
        else if (words && group == 32) status = one_bit_row<T, 32>(data, columns, group, kind == SYMMETRIC, room, out, scales, zeros);
        else if (words && group == 64) status = one_bit_row<T, 64>(data, columns, group, kind == SYMMETRIC, room, out, scales, zeros);
        else if (words && group == 128) status = one_bit_row<T, 128>(data, columns, group, kind == SYMMETRIC, room, out, scales, zeros);
        else status = one_bit_row<T, 0>(data, columns, group, kind == SYMMETRIC, room, out, scales, zeros);
        if (status) return status;
    }
    return 0;
}
