// ---- round to nearest, eight groups at a time (AVX2) --------------------------------------------------------------------
// For groups of whole 32s that follow each other without a gap, codes and words included. Same numbers as rtn.inl.
#if defined(BW_AVX2)
typedef __m256i Words;
static BW_INLINE Words twice(__m128i v) { return _mm256_broadcastsi128_si256(v); }

template <bool SIGNED> static BW_INLINE Words larger32(Words a, Words b) { return SIGNED ? _mm256_max_epi32(a, b) : _mm256_max_epu32(a, b); }
template <bool SIGNED> static BW_INLINE Words larger16(Words a, Words b) { return SIGNED ? _mm256_max_epi16(a, b) : _mm256_max_epu16(a, b); }
template <bool SIGNED> static BW_INLINE Words larger_of_pairs(Words a, Words b) { return larger16<SIGNED>(_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)); }
// Lane g of the result: the largest lane of v[g].
template <bool SIGNED> static BW_INLINE Words largest_of_each(const Words *v) {
    Words pair[4], four[2];
    for (int k = 0; k < 4; ++k) pair[k] = larger32<SIGNED>(_mm256_unpacklo_epi32(v[2 * k], v[2 * k + 1]), _mm256_unpackhi_epi32(v[2 * k], v[2 * k + 1]));
    for (int k = 0; k < 2; ++k) four[k] = larger32<SIGNED>(_mm256_unpacklo_epi64(pair[2 * k], pair[2 * k + 1]), _mm256_unpackhi_epi64(pair[2 * k], pair[2 * k + 1]));
    return larger32<SIGNED>(_mm256_permute2x128_si256(four[0], four[1], 0x20), _mm256_permute2x128_si256(four[0], four[1], 0x31));
}
// The same of 16-bit lanes, in eight of them.
template <bool SIGNED> static BW_INLINE __m128i largest_of_each_16(const Words *v) {
    Words pair[4], four[2];
    for (int k = 0; k < 4; ++k) pair[k] = larger_of_pairs<SIGNED>(v[2 * k], v[2 * k + 1]);
    for (int k = 0; k < 2; ++k) four[k] = larger16<SIGNED>(_mm256_unpacklo_epi32(pair[2 * k], pair[2 * k + 1]), _mm256_unpackhi_epi32(pair[2 * k], pair[2 * k + 1]));
    const Words all = larger16<SIGNED>(_mm256_unpacklo_epi64(four[0], four[1]), _mm256_unpackhi_epi64(four[0], four[1]));
    const __m128i low = _mm256_castsi256_si128(all), high = _mm256_extracti128_si256(all, 1);
    return SIGNED ? _mm_max_epi16(low, high) : _mm_max_epu16(low, high);
}

// Extremes of `count` groups (see range_of), one a lane.
template <class T> struct Extremes { // 16-bit floats: sixteen at a time
    static BW_INLINE void of(const bw_u16 *x, int count, int64_t n, V8 *low, V8 *high) {
        Words s[8], u[8];
        for (int g = 0; g < 8; ++g) {
            s[g] = u[g] = _mm256_setzero_si256();
            if (g >= count) continue;
            for (int64_t i = 0; i < n; i += 16) {
                const Words v = _mm256_loadu_si256((const Words *)(x + g * n + i));
                s[g] = _mm256_max_epi16(s[g], v);
                u[g] = _mm256_max_epu16(u[g], v);
            }
        }
        const __m128i least = largest_of_each_16<false>(u);
        *high = (V8)T::widened(largest_of_each_16<true>(s));
        *low = (V8)T::widened(_mm_and_si128(least, _mm_srai_epi16(least, 15)));
    }
};
template <> struct Extremes<F32> {
    static BW_INLINE void of(const float *x, int count, int64_t n, V8 *low, V8 *high) {
        Words s[8], u[8];
        for (int g = 0; g < 8; ++g) {
            s[g] = u[g] = _mm256_setzero_si256();
            if (g >= count) continue;
            for (int64_t i = 0; i < n; i += 8) {
                const Words v = _mm256_loadu_si256((const Words *)(x + g * n + i));
                s[g] = _mm256_max_epi32(s[g], v);
                u[g] = _mm256_max_epu32(u[g], v);
            }
        }
        const Words least = largest_of_each<false>(u);
        *high = (V8)largest_of_each<true>(s);
        *low = (V8)_mm256_and_si256(least, _mm256_srai_epi32(least, 31));
    }
};

static const float LEAST_NORMAL_HALF = 6.103515625e-05f; // 2^-14
struct Panel {
    alignas(32) float inverse[8], fine[8], along[8], norm[8];
    alignas(16) short zero[8];
    alignas(16) bw_u16 scale[8];
    Words sums[8][2]; // along and norm of a group, eight parts each
    bool coarse;      // a scale is subnormal: its rounding may put the largest weight beyond the last step
};
// bw_group_parameters of eight groups; 0, or why not.
static BW_INLINE int panel_parameters(V8 low, V8 high, int bits, bool symmetric, Panel *p) {
    if (_mm256_movemask_ps((__m256)(v_finite(low) & v_finite(high))) != 255) return 1;
    const V8 top = v_set((float)((1 << bits) - 1)), half = v_set((float)(1 << (bits - 1))), zero = v_set(0);
    // Division by a power of two is multiplication by its inverse.
    const V8 scale = symmetric ? v_pick(high > -low, high, low) * v_set(-2.0f / (float)(1 << bits)) + zero : high / top - low / top;
    const V8 magnitude = v_max(v_abs(scale), v_set(BW_TINY));
    if (_mm256_movemask_ps((__m256)(magnitude > v_set(BW_MAX_HALF)))) return 2;
    const __m128i stored = _mm256_cvtps_ph((__m256)v_pick(scale < zero, -magnitude, magnitude), _MM_FROUND_TO_NEAREST_INT);
    p->coarse = _mm256_movemask_ps((__m256)(magnitude < v_set(LEAST_NORMAL_HALF)));
    const V8 inverse = 1.0f / (V8)_mm256_cvtph_ps(stored);
    _mm_store_si128((__m128i *)p->scale, stored);
    _mm256_store_ps(p->inverse, (__m256)inverse);
    _mm256_store_ps(p->fine, (__m256)(inverse * BW_FINE));
    const V8 point = symmetric ? half : v_clamp(v_rint(-low * inverse), zero, top);
    const Words whole = _mm256_cvtps_epi32((__m256)point);
    _mm_store_si128((__m128i *)p->zero, _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
    return 0;
}
// bw_corrected of eight groups.
static BW_INLINE void panel_corrected(Panel *p) {
    const V8 along = (V8)_mm256_load_ps(p->along), norm = (V8)_mm256_load_ps(p->norm);
    const __m128i before = _mm_load_si128((const __m128i *)p->scale);
    const V8 gain = v_clamp(v_pick(along != v_set(0), norm / along * (1.0f / BW_FINE), v_set(1)), v_set(0.7f), v_set(1.5f));
    const V8 held = v_clamp(gain * (V8)_mm256_cvtph_ps(before), v_set(-BW_MAX_HALF), v_set(BW_MAX_HALF));
    const __m128i after = _mm256_cvtps_ph((__m256)held, _MM_FROUND_TO_NEAREST_INT);
    const Words kept = (Words)(v_abs(held) >= v_set(BW_TINY));
    const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_store_si128((__m128i *)p->scale, _mm_blendv_epi8(before, after, mask));
}

// How to round: alone; with sums of a correction (symmetric formats); the same where rounding may end below the least step.
enum { PLAIN, SUMS, SUMS_FLOOR };
// What one group is rounded with, and the sums of its correction: 32 bits a lane, in any order, as they are exact.
struct Rounding {
    __m256 inverse, fine; // for steps and fine ones
    Words zero, along, norm; // zero: 16 bits, or bytes with sums
};
// 1.5 * 2^23: a number added to it leaves its rint in the lowest bits, halves to even; so do fine steps their whole ones
// with BW_FINE times as much.
static const float MAGIC = 12582912.0f;
#if defined(BW_AVX512)
static BW_INLINE Words lower_halves(Words even, Words odd) {
    return _mm256_mask_shuffle_epi8(even, 0xccccccccu, odd, twice(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13)));
}
static BW_INLINE Words add_products(Words sum, Words a, Words b) { return _mm256_dpwssd_epi32(sum, a, b); }
#else
static BW_INLINE Words lower_halves(Words even, Words odd) { return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa); }
static BW_INLINE Words add_products(Words sum, Words a, Words b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
#endif
static BW_INLINE Words rint32(__m256 x, __m256 inverse) { return _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)); }
// Steps of sixteen numbers, held to those that B bits have, added to the sums. Steps are below 2^4 before: no scale is
// rounded down by more than a third.
template <int B, int HOW> static BW_INLINE Words summed(Words step, Words fine, Rounding &r) {
    step = _mm256_min_epi16(step, _mm256_set1_epi16((1 << (B - 1)) - 1));
    if (HOW == SUMS_FLOOR) step = _mm256_max_epi16(step, _mm256_set1_epi16(-(1 << (B - 1))));
    r.along = add_products(r.along, fine, step);
    r.norm = add_products(r.norm, fine, fine);
    return step;
}
// Summed steps of sixteen numbers, of both vectors in turn.
template <int B, int HOW> static BW_INLINE Words alternating(__m256 even, __m256 odd, Rounding &r) {
    const __m256 p = _mm256_mul_ps(even, r.fine), q = _mm256_mul_ps(odd, r.fine), magic = _mm256_set1_ps(MAGIC * BW_FINE);
    const Words step = lower_halves((Words)_mm256_add_ps(p, magic), (Words)_mm256_add_ps(q, magic));
    return summed<B, HOW>(step, lower_halves(_mm256_cvtps_epi32(p), _mm256_cvtps_epi32(q)), r);
}
// Codes of sixteen numbers (steps where there are sums) in 16 bits. Steps of plain rounding are below 2^9.
// Each half holds two runs of four: 0-3, 8-11 and 4-7, 12-15.
template <class T, int B, int HOW> struct Codes {
    static BW_INLINE Words sixteen(const typename T::type *x, Rounding &r) {
        const __m256 a = T::eight(x), b = T::eight(x + 8);
#if defined(BW_AVX512)
        if (HOW != PLAIN) return alternating<B, HOW>(a, b, r);
#endif
        const Words step = _mm256_packs_epi32(rint32(a, r.inverse), rint32(b, r.inverse));
        if (HOW == PLAIN) return _mm256_add_epi16(step, r.zero);
        return summed<B, HOW>(step, _mm256_packs_epi32(rint32(a, r.fine), rint32(b, r.fine)), r);
    }
    static BW_INLINE Words ordered(Words bytes) {
#if defined(BW_AVX512)
        if (HOW != PLAIN) return _mm256_shuffle_epi8(bytes, twice(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)));
#endif
        return bytes;
    }
    static BW_INLINE Words settled(Words v) { return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); }
    static BW_INLINE Words settled_pairs(Words v) {
        return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(v, 0xd8), twice(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)));
    }
};
template <int B, int HOW> struct Codes<BF16, B, HOW> { // even numbers are shifted into place, odd ones are there; in their order
    static BW_INLINE Words sixteen(const bw_u16 *x, Rounding &r) {
        const Words v = _mm256_loadu_si256((const Words *)x);
        const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)), odd = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u)));
        if (HOW != PLAIN) return alternating<B, HOW>(even, odd, r);
        const __m256 magic = _mm256_set1_ps(MAGIC);
        const __m256 p = _mm256_add_ps(_mm256_mul_ps(even, r.inverse), magic), q = _mm256_add_ps(_mm256_mul_ps(odd, r.inverse), magic);
        return _mm256_add_epi16(lower_halves((Words)p, (Words)q), r.zero);
    }
    static BW_INLINE Words ordered(Words bytes) { return bytes; }
    static BW_INLINE Words settled(Words v) { return _mm256_permute4x64_epi64(v, 0xd8); }
    static BW_INLINE Words settled_pairs(Words v) { return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); }
};
// Codes of 32 numbers as bytes, still to be settled.
template <class T, int B, int HOW> static BW_INLINE Words thirty_two(const typename T::type *x, Rounding &r) {
    const Words a = Codes<T, B, HOW>::sixteen(x, r), b = Codes<T, B, HOW>::sixteen(x + 16, r);
    if (HOW == PLAIN) return _mm256_min_epu8(_mm256_packus_epi16(a, b), _mm256_set1_epi8((char)((1 << B) - 1)));
    return Codes<T, B, HOW>::ordered(_mm256_add_epi8(_mm256_packs_epi16(a, b), r.zero));
}
// 64 codes of at most 4 bits, two a byte, to 8 B bytes; writes 32.
template <int B> static BW_INLINE void pack_pairs(Words v, uint8_t *out) {
    if (B == 2) {
        v = _mm256_maddubs_epi16(v, _mm256_set1_epi16(1 | 16 << 8));
        v = _mm256_permute4x64_epi64(_mm256_packus_epi16(v, v), 0xd8);
    } else if (B == 3) {
        v = _mm256_madd_epi16(_mm256_maddubs_epi16(v, _mm256_set1_epi16(1 | 64 << 8)), _mm256_set1_epi32(1 | 4096 << 16));
        const Words order = twice(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
        v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, order), _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
    }
    _mm256_storeu_si256((Words *)out, v);
}
// 64 numbers, with one rounding for each half, to words; writes at most 24 bytes more than count.
template <class T, int B, int HOW> static BW_INLINE void words_of_64(const typename T::type *x, Rounding &r, Rounding &s, uint8_t *out, Words order) {
    const Words a = thirty_two<T, B, HOW>(x, r), b = thirty_two<T, B, HOW>(x + 32, s);
    if (B <= 4) {
        const Words pair = _mm256_set1_epi16((short)(1 | 1 << (8 + (B & 7))));
        const Words pairs = _mm256_packus_epi16(_mm256_maddubs_epi16(pair, a), _mm256_maddubs_epi16(pair, b));
        return pack_pairs<B>(Codes<T, B, HOW>::settled_pairs(pairs), out);
    }
    pack_wide<B>(Codes<T, B, HOW>::settled(a), out, order);
    pack_wide<B>(Codes<T, B, HOW>::settled(b), out + 4 * B, order);
}
// Groups up to this size have sums of 32 bits; parts of larger ones are added up in 64.
static const int64_t SMALL_GROUP = 128, LARGE_PART = 1024;
static BW_INLINE Words add_pairs(Words a, Words b) { return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)); }
static BW_INLINE Words add_fours(Words a, Words b) { return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)); }
// Sums of eight small groups; at: 0 along, 1 norm.
static BW_INLINE __m256 panel_totals(const Words sums[8][2], int at) {
    Words two[4];
    for (int k = 0; k < 4; ++k) two[k] = add_pairs(sums[2 * k][at], sums[2 * k + 1][at]);
    const Words a = add_fours(two[0], two[1]), b = add_fours(two[2], two[3]);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)));
}
static inline bw_i64 total64(Words v) {
    alignas(32) int32_t lane[8];
    _mm256_store_si256((Words *)lane, v);
    bw_i64 total = 0;
    for (int k = 0; k < 8; ++k) total += lane[k];
    return total;
}
// Codes and words of `n` numbers. SAFE: writes no byte beyond them.
template <class T, int B, int HOW, bool SAFE>
static BW_INLINE void panel_part(const typename T::type *x, int64_t n, Rounding &r, uint8_t *out, Words order) {
    alignas(32) uint8_t room[96];
    int64_t i = 0;
    for (; i + 64 <= n; i += 64, out += 8 * B) {
        words_of_64<T, B, HOW>(x + i, r, r, SAFE ? room : out, order);
        if (SAFE) std::memcpy(out, room, 8 * B);
    }
    if (i == n) return;
    pack_wide<B>(Codes<T, B, HOW>::settled(thirty_two<T, B, HOW>(x + i, r)), SAFE ? room : out, order);
    if (SAFE) std::memcpy(out, room, 4 * B);
}
template <int B, int HOW> static BW_INLINE Rounding rounding(const Panel &p, int g) {
    const Words zero = HOW == PLAIN ? _mm256_set1_epi16(p.zero[g]) : _mm256_set1_epi8(1 << (B - 1));
    const Words none = _mm256_setzero_si256();
    return Rounding{_mm256_broadcast_ss(p.inverse + g), _mm256_broadcast_ss(p.fine + g), zero, none, none};
}
// Codes and words of one group of a panel; SIZE: of n where the compiler may know it, or 0.
template <class T, int B, int HOW, int SIZE, bool SAFE>
static BW_INLINE void panel_group(const typename T::type *x, int64_t size, Panel &p, int g, uint8_t *out, Words order) {
    const int64_t n = SIZE ? SIZE : size;
    Rounding r = rounding<B, HOW>(p, g);
    if (HOW == PLAIN || n <= SMALL_GROUP) {
        panel_part<T, B, HOW, SAFE>(x, n, r, out, order);
        p.sums[g][0] = r.along, p.sums[g][1] = r.norm;
        return;
    }
    bw_i64 along = 0, norm = 0;
    for (int64_t at = 0; at < n; at += LARGE_PART) {
        r.along = r.norm = _mm256_setzero_si256();
        panel_part<T, B, HOW, SAFE>(x + at, at + LARGE_PART < n ? LARGE_PART : n - at, r, out + at / 8 * B, order);
        along += total64(r.along), norm += total64(r.norm);
    }
    p.along[g] = (float)along, p.norm[g] = (float)norm;
}
template <class T, int B, int HOW, int SIZE, bool SAFE>
static void panel_groups(const typename T::type *x, int count, int64_t size, Panel &p, uint8_t *out, Words order) {
    if (SIZE == 32) { // two groups at a time
        for (int g = 0; g < count; g += 2) {
            Rounding r = rounding<B, HOW>(p, g), s = rounding<B, HOW>(p, g + 1);
            words_of_64<T, B, HOW>(x + 32 * g, r, s, out + 4 * B * g, order);
            p.sums[g][0] = r.along, p.sums[g][1] = r.norm, p.sums[g + 1][0] = s.along, p.sums[g + 1][1] = s.norm;
        }
        return;
    }
    for (int g = 0; g < count; ++g) panel_group<T, B, HOW, SIZE, SAFE>(x + g * size, size, p, g, out + g * (size / 8 * B), order);
}
// Of any size, where a call every eight groups is no matter: once for all sizes, which halves what is to be compiled.
template <class T, int B, int HOW>
static __attribute__((noinline)) void any_groups(const typename T::type *x, int count, int64_t size, Panel &p, uint8_t *out, const uint8_t *end) {
    const Words order = gather_order<B>(false);
    if (end - out < count * (size / 8 * B) + 32) panel_groups<T, B, HOW, 0, true>(x, count, size, p, out, order);
    else panel_groups<T, B, HOW, 0, false>(x, count, size, p, out, order);
}
template <class T, int B, int HOW, int SIZE>
static BW_INLINE void panel_codes(const typename T::type *x, int count, int64_t size, Panel &p, uint8_t *out, const uint8_t *end, Words order) {
    if (SIZE && __builtin_expect(count == 8 && end - out >= 8 * (SIZE / 8 * B) + 32, 1)) panel_groups<T, B, HOW, SIZE, false>(x, 8, SIZE, p, out, order);
    else any_groups<T, B, HOW>(x, count, size, p, out, end);
}
// Range and parameters of `count` groups; 0, or why not.
template <class T>
static __attribute__((noinline)) int any_begin(const typename T::type *x, int64_t count, int64_t group, int bits, bool symmetric, Panel *p) {
    V8 low, high;
    Extremes<T>::of(x, count < 8 ? (int)count : 8, group, &low, &high);
    return panel_parameters(low, high, bits, symmetric, p);
}
template <class T, int SIZE>
static BW_INLINE int panel_begin(const typename T::type *x, int64_t count, int64_t group, int bits, bool symmetric, Panel *p) {
    if (!SIZE || __builtin_expect(count < 8, 0)) return any_begin<T>(x, count, group, bits, symmetric, p);
    V8 low, high;
    Extremes<T>::of(x, 8, SIZE, &low, &high);
    return panel_parameters(low, high, bits, symmetric, p);
}
// All groups of a matrix; 0, or why not. SIZE: their size, or 0. The next panel's divisions run while this one is rounded.
template <class T, int B, bool FIX, int SIZE>
static int panels_of(const typename T::type *x, int64_t groups, int64_t group, bool symmetric, uint8_t *out, bw_u16 *scales, uint8_t *zeros) {
    const int64_t bytes = group / 8 * B;
    const uint8_t *end = out + groups * bytes;
    const Words order = gather_order<B>(false);
    Panel both[2];
    int status = groups ? any_begin<T>(x, groups, group, B, FIX || symmetric, both) : 0;
    for (int64_t first = 0; first < groups && !status; first += 8) {
        Panel &p = both[first / 8 & 1];
        const int64_t next = first + 8, left = groups - next;
        const int count = left >= 0 ? 8 : (int)(groups - first);
        if (left > 0) status = panel_begin<T, SIZE>(x + next * group, left, group, B, FIX || symmetric, both + (next / 8 & 1));
        const typename T::type *from = x + first * group;
        uint8_t *to = out + first * bytes;
        if (!FIX) panel_codes<T, B, PLAIN, SIZE>(from, count, group, p, to, end, order);
        else if (__builtin_expect(p.coarse, 0)) panel_codes<T, B, FIX ? SUMS_FLOOR : PLAIN, 0>(from, count, group, p, to, end, order);
        else panel_codes<T, B, FIX ? SUMS : PLAIN, SIZE>(from, count, group, p, to, end, order);
        if (FIX && group <= SMALL_GROUP) {
            _mm256_store_ps(p.along, panel_totals(p.sums, 0));
            _mm256_store_ps(p.norm, panel_totals(p.sums, 1));
        }
        if (FIX) panel_corrected(&p);
        if (count == 8) _mm_storeu_si128((__m128i *)(scales + first), _mm_load_si128((const __m128i *)p.scale));
        else std::memcpy(scales + first, p.scale, 2 * count);
        for (int g = 0; zeros && g < count; ++g) zeros[first + g] = (uint8_t)p.zero[g];
    }
    return status;
}
// Sizes that are the faster for it are constants to the compiler.
template <class T, int B, bool FIX>
static int panels(const typename T::type *x, int64_t groups, int64_t group, bool symmetric, uint8_t *out, bw_u16 *scales, uint8_t *zeros) {
    if (group == 32) return panels_of<T, B, FIX, 32>(x, groups, 32, symmetric, out, scales, zeros);
    if (FIX && group == 64) return panels_of<T, B, FIX, FIX ? 64 : 0>(x, groups, 64, symmetric, out, scales, zeros);
    if (group == 128) return panels_of<T, B, FIX, 128>(x, groups, 128, symmetric, out, scales, zeros);
    return panels_of<T, B, FIX, 0>(x, groups, group, symmetric, out, scales, zeros);
}
#endif
