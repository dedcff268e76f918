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

struct Panel {
    alignas(32) float inverse[8], along[8], norm[8];
    alignas(32) int32_t zero[8];
    alignas(16) bw_u16 scale[8];
    __m256 lanes[8][4]; // of along and norm, two registers each
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
    const V8 gain = v_clamp(v_pick(along != v_set(0), norm / along, v_set(1)), v_set(0.7f), v_set(1.5f));
    const V8 held = v_clamp(gain * (V8)_mm256_cvtph_ps(before), v_set(-BW_MAX_HALF), v_set(BW_MAX_HALF));
    const __m128i after = _mm256_cvtps_ph((__m256)held, _MM_FROUND_TO_NEAREST_INT);
    const Words kept = (Words)(v_abs(held) >= v_set(BW_TINY));
    const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_store_si128((__m128i *)p->scale, _mm_blendv_epi8(before, after, mask));
}

// What one group is rounded with, and the sums of its correction: lanes as in lanes_total, for bfloat16 even then odd ones.
struct Rounding {
    __m256 inverse;
    Words zero, floor, ceiling, top; // zero: 16 bits; floor, ceiling: least and largest step, 32 bits; top: bytes
    __m256 along[2], norm[2];
};
// rint(x * inverse) of eight numbers. Its magnitude is below 2^9: no scale is rounded down by more than a third.
template <bool FIX> static inline Words rounded(__m256 x, Rounding &r, int lanes) {
    const __m256 p = _mm256_mul_ps(x, r.inverse);
    const Words q = _mm256_cvtps_epi32(p);
    if (FIX) {
        const __m256 step = _mm256_cvtepi32_ps(_mm256_min_epi32(_mm256_max_epi32(q, r.floor), r.ceiling));
        r.along[lanes] = _mm256_add_ps(r.along[lanes], _mm256_mul_ps(p, step));
        r.norm[lanes] = _mm256_add_ps(r.norm[lanes], _mm256_mul_ps(p, p));
    }
    return q;
}
// Codes of 32 numbers as bytes.
template <class T, bool FIX> struct Codes {
    static inline Words of(const typename T::type *x, Rounding &r) {
        Words q[4];
        for (int k = 0; k < 4; ++k) q[k] = rounded<FIX>(T::eight(x + 8 * k), r, k & 1);
        const Words a = _mm256_add_epi16(_mm256_packs_epi32(q[0], q[1]), r.zero), b = _mm256_add_epi16(_mm256_packs_epi32(q[2], q[3]), r.zero);
        const Words c = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        return _mm256_min_epu8(c, r.top);
    }
};
template <bool FIX> struct Codes<BF16, FIX> { // even numbers are shifted into place, odd ones are there
    static inline Words sixteen(const bw_u16 *x, Rounding &r) {
        const Words v = _mm256_loadu_si256((const Words *)x);
        const Words even = rounded<FIX>(_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)), r, 0);
        const Words odd = rounded<FIX>(_mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u))), r, 1);
        return _mm256_add_epi16(_mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa), r.zero);
    }
    static inline Words of(const bw_u16 *x, Rounding &r) {
        const Words a = sixteen(x, r), b = sixteen(x + 16, r);
        return _mm256_min_epu8(_mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8), r.top);
    }
};
static inline __m128 halves_added(__m256 l) { return _mm_add_ps(_mm256_castps256_ps128(l), _mm256_extractf128_ps(l, 1)); }
static inline float four_added(__m128 t) { // (t0 + t2) + (t1 + t3)
    const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(u) + _mm_cvtss_f32(_mm_shuffle_ps(u, u, 1));
}
template <class T> static inline float panel_total(const __m256 *l) { // as lanes_total
    if (T::SPLIT) return four_added(halves_added(l[0])) + four_added(halves_added(l[1]));
    return four_added(halves_added(_mm256_add_ps(l[0], l[1])));
}
// Sums of both halves, of both pairs of a half, and of both numbers of a pair: of a, then of b.
static inline __m256 add_halves(__m256 a, __m256 b) { return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)); }
static inline __m256 add_pairs(__m256 a, __m256 b) {
    const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_shuffle_pd(x, y, 0)), _mm256_castpd_ps(_mm256_shuffle_pd(x, y, 15)));
}
static inline __m256 add_numbers(__m256 a, __m256 b) { return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd)); }
// panel_total of eight groups; at: 0 along, 2 norm.
template <class T> static inline __m256 panel_totals(const __m256 lanes[8][4], int at) {
    __m256 t[8], two[4], four[2];
    if (T::SPLIT) {
        for (int g = 0; g < 8; ++g) t[g] = add_halves(lanes[g][at], lanes[g][at + 1]);
        for (int k = 0; k < 4; ++k) two[k] = add_pairs(t[2 * k], t[2 * k + 1]);
        for (int k = 0; k < 2; ++k) four[k] = add_numbers(two[2 * k], two[2 * k + 1]);
        return add_halves(four[0], four[1]);
    }
    for (int g = 0; g < 8; ++g) t[g] = _mm256_add_ps(lanes[g][at], lanes[g][at + 1]);
    for (int k = 0; k < 4; ++k) two[k] = add_halves(t[k], t[k + 4]);
    for (int k = 0; k < 2; ++k) four[k] = add_pairs(two[2 * k], two[2 * k + 1]);
    return add_numbers(four[0], four[1]);
}
// Codes and words of one group.
template <class T, int B, bool FIX>
static inline void panel_group(const typename T::type *x, int64_t n, Panel &p, int g, uint8_t *out, const uint8_t *end, Words order) {
    const int zero = p.zero[g];
    Rounding r{_mm256_set1_ps(p.inverse[g]), _mm256_set1_epi16((short)zero), _mm256_set1_epi32(-zero), _mm256_set1_epi32((1 << B) - 1 - zero),
               _mm256_set1_epi8((char)((1 << B) - 1)), {}, {}};
    double along = 0, norm = 0;
    for (int64_t base = 0; base < n; base += LANE_BLOCK) {
        const int64_t stop = FIX && base + LANE_BLOCK < n ? base + LANE_BLOCK : n;
        for (int k = 0; FIX && k < 2; ++k) r.along[k] = r.norm[k] = _mm256_setzero_ps();
        for (int64_t i = base; i < stop; i += 32, out += 4 * B) {
            const Words v = Codes<T, FIX>::of(x + i, r);
            if (out + 2 * B + 16 <= end) {
                pack_wide<B>(v, out, order);
                continue;
            }
            alignas(32) uint8_t w[64];
            pack_wide<B>(v, w, order);
            std::memcpy(out, w, 4 * B);
        }
        if (!FIX) return;
        if (n <= LANE_BLOCK) {
            for (int k = 0; k < 2; ++k) p.lanes[g][k] = r.along[k], p.lanes[g][2 + k] = r.norm[k];
            return;
        }
        along += (double)panel_total<T>(r.along);
        norm += (double)panel_total<T>(r.norm);
    }
    p.along[g] = (float)along;
    p.norm[g] = (float)norm;
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
        for (int g = 0; g < count; ++g)
            panel_group<T, B, FIX>(x + (first + g) * group, group, p, g, out + (first + g) * bytes, end, order);
        if (FIX && group <= LANE_BLOCK) {
            _mm256_store_ps(p.along, panel_totals<T>(p.lanes, 0));
            _mm256_store_ps(p.norm, panel_totals<T>(p.lanes, 2));
        }
        if (FIX) panel_corrected(&p);
        std::memcpy(scales + first, p.scale, 2 * count);
        for (int g = 0; zeros && g < count; ++g) zeros[first + g] = (uint8_t)p.zero[g];
    }
    return status;
}
#endif
