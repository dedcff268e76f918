// ---- round to nearest, eight groups at a time (AVX2) --------------------------------------------------------------------
// For groups of whole 32s that follow each other without a gap, codes and words included. Same numbers as rtn.inl.
#if defined(BW_AVX2)
typedef __m256i Words;
#define BW_FLATTEN inline __attribute__((always_inline))

template <bool SIGNED> static inline Words larger32(Words a, Words b) { return SIGNED ? _mm256_max_epi32(a, b) : _mm256_max_epu32(a, b); }
template <bool SIGNED> static inline Words larger16(Words a, Words b) { return SIGNED ? _mm256_max_epi16(a, b) : _mm256_max_epu16(a, b); }
template <bool SIGNED> static inline Words larger_of_pairs(Words a, Words b) { return larger16<SIGNED>(_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)); }
// Lane g of the result: the largest lane of v[g].
template <bool SIGNED> static inline Words largest_of_each(const Words *v) {
    Words pair[4], four[2];
    for (int k = 0; k < 4; ++k) pair[k] = larger32<SIGNED>(_mm256_unpacklo_epi32(v[2 * k], v[2 * k + 1]), _mm256_unpackhi_epi32(v[2 * k], v[2 * k + 1]));
    for (int k = 0; k < 2; ++k) four[k] = larger32<SIGNED>(_mm256_unpacklo_epi64(pair[2 * k], pair[2 * k + 1]), _mm256_unpackhi_epi64(pair[2 * k], pair[2 * k + 1]));
    return larger32<SIGNED>(_mm256_permute2x128_si256(four[0], four[1], 0x20), _mm256_permute2x128_si256(four[0], four[1], 0x31));
}
// The same of 16-bit lanes, in eight of them.
template <bool SIGNED> static inline __m128i largest_of_each_16(const Words *v) {
    Words pair[4], four[2];
    for (int k = 0; k < 4; ++k) pair[k] = larger_of_pairs<SIGNED>(v[2 * k], v[2 * k + 1]);
    for (int k = 0; k < 2; ++k) four[k] = larger16<SIGNED>(_mm256_unpacklo_epi32(pair[2 * k], pair[2 * k + 1]), _mm256_unpackhi_epi32(pair[2 * k], pair[2 * k + 1]));
    const Words all = larger16<SIGNED>(_mm256_unpacklo_epi64(four[0], four[1]), _mm256_unpackhi_epi64(four[0], four[1]));
    const __m128i low = _mm256_castsi256_si128(all), high = _mm256_extracti128_si256(all, 1);
    return SIGNED ? _mm_max_epi16(low, high) : _mm_max_epu16(low, high);
}

// Extremes of `count` groups (see range_of), one a lane.
template <class T> struct Extremes { // 16-bit floats: sixteen at a time
    BW_FLATTEN static void of(const bw_u16 *x, int count, int64_t n, V8 *low, V8 *high) {
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
    BW_FLATTEN static void of(const float *x, int count, int64_t n, V8 *low, V8 *high) {
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
    alignas(32) float inverse[8], along[8], norm[8];
    alignas(32) int32_t zero[8];
    alignas(16) bw_u16 scale[8];
    Words sums[8][2]; // along and norm of a group, eight parts each
    bool coarse;      // a scale is subnormal: its rounding may put the largest weight beyond the last step
};
// bw_group_parameters of eight groups; 0, or why not.
static inline int panel_parameters(V8 low, V8 high, int bits, bool symmetric, Panel *p) {
    if (_mm256_movemask_ps((__m256)(v_finite(low) & v_finite(high))) != 255) return 1;
    const V8 top = v_set((float)((1 << bits) - 1)), half = v_set((float)(1 << (bits - 1))), zero = v_set(0);
    V8 scale = high / top - low / top;
    if (symmetric) scale = v_pick(high > -low, high, low) / -half + zero;
    const V8 magnitude = v_max(v_abs(scale), v_set(BW_TINY));
    if (_mm256_movemask_ps((__m256)(magnitude > v_set(BW_MAX_HALF)))) return 2;
    const __m128i stored = _mm256_cvtps_ph((__m256)v_pick(scale < zero, -magnitude, magnitude), _MM_FROUND_TO_NEAREST_INT);
    p->coarse = _mm256_movemask_ps((__m256)(magnitude < v_set(LEAST_NORMAL_HALF)));
    const V8 inverse = 1.0f / (V8)_mm256_cvtph_ps(stored);
    _mm_store_si128((__m128i *)p->scale, stored);
    _mm256_store_ps(p->inverse, (__m256)inverse);
    const V8 point = symmetric ? half : v_clamp(v_rint(-low * inverse), zero, top);
    _mm256_store_si256((Words *)p->zero, _mm256_cvtps_epi32((__m256)point));
    return 0;
}
// bw_corrected of eight groups.
static inline void panel_corrected(Panel *p) {
    const V8 along = (V8)_mm256_load_ps(p->along), norm = (V8)_mm256_load_ps(p->norm);
    const __m128i before = _mm_load_si128((const __m128i *)p->scale);
    const V8 gain = v_clamp(v_pick(along != v_set(0), norm / along * (1.0f / BW_FINE), v_set(1)), v_set(0.7f), v_set(1.5f));
    const V8 held = v_clamp(gain * (V8)_mm256_cvtph_ps(before), v_set(-BW_MAX_HALF), v_set(BW_MAX_HALF));
    const __m128i after = _mm256_cvtps_ph((__m256)held, _MM_FROUND_TO_NEAREST_INT);
    const Words kept = (Words)(v_abs(held) >= v_set(BW_TINY));
    const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_store_si128((__m128i *)p->scale, _mm_blendv_epi8(before, after, mask));
}

// How to round: alone; with sums of a correction; the same where rounding may end below the least step.
enum { PLAIN, SUMS, SUMS_FLOOR };
// What one group is rounded with, and the sums of its correction: 32 bits a lane, in any order, as they are exact.
struct Rounding {
    __m256 inverse; // with sums in fine steps
    Words zero, floor, ceiling, top; // floor, ceiling: the least and the largest step, 16 bits; top: bytes; zero: as it is added
    Words along, norm;
};
// 1.5 * 2^23: a number added to it leaves its rint in the lowest bits, halves to even; so do fine steps their whole ones
// with BW_FINE times as much.
static const float MAGIC = 12582912.0f;
static inline Words lower_halves(Words even, Words odd) { return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa); }
// Codes of sixteen numbers in 16 bits, of both vectors in turn; with sums their steps. Steps are below 2^9, or 2^4 where there are sums: no
// scale is rounded down by more than a third.
template <int HOW> static inline Words sixteen_codes(__m256 even, __m256 odd, Rounding &r) {
    const __m256 p = _mm256_mul_ps(even, r.inverse), q = _mm256_mul_ps(odd, r.inverse), magic = _mm256_set1_ps(HOW == PLAIN ? MAGIC : MAGIC * BW_FINE);
    Words step = lower_halves(_mm256_castps_si256(_mm256_add_ps(p, magic)), _mm256_castps_si256(_mm256_add_ps(q, magic)));
    if (HOW != PLAIN) {
        const Words fine = lower_halves(_mm256_cvtps_epi32(p), _mm256_cvtps_epi32(q));
        step = _mm256_min_epi16(step, r.ceiling);
        if (HOW == SUMS_FLOOR) step = _mm256_max_epi16(step, r.floor);
        r.along = _mm256_add_epi32(r.along, _mm256_madd_epi16(fine, step));
        r.norm = _mm256_add_epi32(r.norm, _mm256_madd_epi16(fine, fine));
        return step;
    }
    return _mm256_add_epi16(step, r.zero);
}
// Steps (with sums) or codes in 16 bits to codes in bytes, each half of `a` before that of `b`.
template <int HOW> static inline Words bytes_of(Words a, Words b, const Rounding &r) {
    if (HOW == PLAIN) return _mm256_min_epu8(_mm256_packus_epi16(a, b), r.top);
    return _mm256_add_epi8(_mm256_packs_epi16(a, b), r.zero);
}
// Codes of 32 numbers as bytes.
template <class T, int HOW> struct Codes {
    static inline Words rounded(__m256 x, const Rounding &r) { return _mm256_cvtps_epi32(_mm256_mul_ps(x, r.inverse)); }
    static inline Words of(const typename T::type *x, Rounding &r) {
        const Words turn = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        if (HOW == PLAIN) {
            const Words a = _mm256_packs_epi32(rounded(T::eight(x), r), rounded(T::eight(x + 8), r)), b = _mm256_packs_epi32(rounded(T::eight(x + 16), r), rounded(T::eight(x + 24), r));
            return _mm256_permutevar8x32_epi32(bytes_of<HOW>(_mm256_add_epi16(a, r.zero), _mm256_add_epi16(b, r.zero), r), turn);
        }
        const Words a = sixteen_codes<HOW>(T::eight(x), T::eight(x + 8), r), b = sixteen_codes<HOW>(T::eight(x + 16), T::eight(x + 24), r);
        const Words order = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
        return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bytes_of<HOW>(a, b, r), order), turn);
    }
};
template <int HOW> struct Codes<BF16, HOW> { // even numbers are shifted into place, odd ones are there
    static inline Words sixteen(const bw_u16 *x, Rounding &r) {
        const Words v = _mm256_loadu_si256((const Words *)x);
        return sixteen_codes<HOW>(_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)), _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u))), r);
    }
    static inline Words of(const bw_u16 *x, Rounding &r) {
        return _mm256_permute4x64_epi64(bytes_of<HOW>(sixteen(x, r), sixteen(x + 16, r), r), 0xd8);
    }
};
// Groups up to this size have sums of 32 bits; parts of larger ones are added up in 64.
static const int64_t SMALL_GROUP = 128, LARGE_PART = 1024;
static inline Words add_pairs(Words a, Words b) { return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)); }
static inline Words add_fours(Words a, Words b) { return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)); }
// Sums of eight small groups; at: 0 along, 1 norm.
static inline __m256 panel_totals(const Words sums[8][2], int at) {
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
// Codes and words of one group; SIZE: of n where the compiler may know it, or 0.
template <class T, int B, int HOW, int SIZE>
static inline void panel_group(const typename T::type *x, int64_t size, Panel &p, int g, uint8_t *out, const uint8_t *end, Words order) {
    const int64_t n = SIZE ? SIZE : size;
    const int zero = p.zero[g];
    Rounding r{_mm256_set1_ps(HOW == PLAIN ? p.inverse[g] : p.inverse[g] * BW_FINE),
               HOW == PLAIN ? _mm256_set1_epi16((short)zero) : _mm256_set1_epi8((char)zero),
               _mm256_set1_epi16((short)-zero), _mm256_set1_epi16((short)((1 << B) - 1 - zero)),
               _mm256_set1_epi8((char)((1 << B) - 1)), {}, {}};
    bw_i64 along = 0, norm = 0;
    for (int64_t base = 0; base < n; base += LARGE_PART) {
        const int64_t stop = HOW != PLAIN && base + LARGE_PART < n ? base + LARGE_PART : n;
        for (int64_t i = base; i < stop; i += 32, out += 4 * B) {
            const Words v = Codes<T, HOW>::of(x + i, r);
            if (out + 2 * B + 16 <= end) {
                pack_wide<B>(v, out, order);
                continue;
            }
            alignas(32) uint8_t w[64];
            pack_wide<B>(v, w, order);
            std::memcpy(out, w, 4 * B);
        }
        if (HOW == PLAIN) return;
        if (n <= SMALL_GROUP) break;
        along += total64(r.along), norm += total64(r.norm);
        r.along = r.norm = _mm256_setzero_si256();
    }
    p.sums[g][0] = r.along, p.sums[g][1] = r.norm;
    if (n > SMALL_GROUP) p.along[g] = (float)along, p.norm[g] = (float)norm;
}
// Range and parameters of `count` groups; 0, or why not. The usual sizes are constants to the compiler.
template <class T>
static int panel_begin(const typename T::type *x, int count, int64_t group, int bits, bool symmetric, Panel *p) {
    V8 low, high;
    if (count == 8 && group == 64) Extremes<T>::of(x, 8, 64, &low, &high);
    else if (count == 8 && group == 128) Extremes<T>::of(x, 8, 128, &low, &high);
    else if (count == 8 && group == 32) Extremes<T>::of(x, 8, 32, &low, &high);
    else Extremes<T>::of(x, count, group, &low, &high);
    return panel_parameters(low, high, bits, symmetric, p);
}
// All groups of a matrix; 0, or why not. The next panel's divisions run while this one is rounded.
template <class T, int B, bool FIX>
static int panels(const typename T::type *x, int64_t groups, int64_t group, bool symmetric, uint8_t *out, bw_u16 *scales, uint8_t *zeros) {
    const int64_t bytes = group / 8 * B;
    const uint8_t *end = out + groups * bytes;
    const Words order = gather_order<B>(false);
    Panel both[2] = {};
    int status = groups ? panel_begin<T>(x, groups < 8 ? (int)groups : 8, group, B, symmetric, both) : 0;
    for (int64_t first = 0; first < groups && !status; first += 8) {
        Panel &p = both[first / 8 & 1];
        const int64_t next = first + 8, left = groups - next;
        const int count = left >= 0 ? 8 : (int)(groups - first);
        if (left > 0) status = panel_begin<T>(x + next * group, left < 8 ? (int)left : 8, group, B, symmetric, both + (next / 8 & 1));
        for (int g = 0; g < count; ++g) {
            const typename T::type *from = x + (first + g) * group;
            uint8_t *to = out + (first + g) * bytes;
            if (!FIX) panel_group<T, B, PLAIN, 0>(from, group, p, g, to, end, order);
            else if (p.coarse) panel_group<T, B, FIX ? SUMS_FLOOR : PLAIN, 0>(from, group, p, g, to, end, order);
            else if (group == 64) panel_group<T, B, FIX ? SUMS : PLAIN, 64>(from, group, p, g, to, end, order);
            else if (group == 128) panel_group<T, B, FIX ? SUMS : PLAIN, 128>(from, group, p, g, to, end, order);
            else panel_group<T, B, FIX ? SUMS : PLAIN, 0>(from, group, p, g, to, end, order);
        }
        if (FIX && group <= SMALL_GROUP) {
            _mm256_store_ps(p.along, panel_totals(p.sums, 0));
            _mm256_store_ps(p.norm, panel_totals(p.sums, 1));
        }
        if (FIX) panel_corrected(&p);
        std::memcpy(scales + first, p.scale, 2 * count);
        for (int g = 0; zeros && g < count; ++g) zeros[first + g] = (uint8_t)p.zero[g];
    }
    return status;
}
#endif
