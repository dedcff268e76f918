// ---- 32 codes <-> B words ---------------------------------------------------------------------------------------
#if defined(BW_AVX2)
// Lane masks of the spread 64 -> 32 -> 16 -> 8 bits (see gpu_kernels/reference.py).
template <int LANE, int USED> static BW_INLINE __m256i low_mask() {
    uint64_t m = 0;
    for (int at = 0; at < 64; at += 2 * LANE) m |= (USED >= 64 ? ~0ull : ((1ull << USED) - 1)) << at;
    return _mm256_set1_epi64x((long long)m);
}
// Codes of B < 8 bits side by side until they end on a byte (two of 4 bits, four of 2 or 6) or are eight in 64 bits: a + b *
// 2^B by one multiply-add of bytes, the same of words, then of dwords by shifts.
template <int B> static BW_INLINE __m256i squeeze(__m256i v) {
    v = _mm256_maddubs_epi16(_mm256_set1_epi16((short)(1 | 1 << (8 + B))), v);
    if (B == 4) return v;
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(1 | 1 << (16 + 2 * B)));
    if (B % 2 == 0) return v;
    return _mm256_srli_epi64(_mm256_sllv_epi32(v, _mm256_set1_epi64x(32 - 4 * B)), 32 - 4 * B);
}
template <int LANE, int USED> static BW_INLINE __m256i spread(__m256i v) {
    const __m256i low = low_mask<LANE, USED>();
    return _mm256_or_si256(_mm256_and_si256(v, low), _mm256_and_si256(_mm256_slli_epi64(v, LANE - USED), _mm256_slli_epi64(low, LANE)));
}
// Byte order that puts the low bytes that `squeeze` left in each of its numbers side by side, 2B of a half; and the order
// that spreads them over 64-bit lanes.
template <int B> static BW_INLINE __m256i gather_order(bool back) {
    alignas(32) int8_t order[32];
    const int number = B == 4 ? 2 : B % 2 ? 8 : 4, used = number * B / 8; // bytes of a number, and those that count
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 16; ++i) {
            int8_t from = -1;
            if (!back && i < 2 * B) from = (int8_t)(i / used * number + i % used);
            if (back && (i & 7) < B) from = (int8_t)((i >> 3) * B + (i & 7));
            order[half * 16 + i] = from;
        }
    return _mm256_load_si256((const __m256i *)order);
}
// Writes 16 + 2B bytes or less at `out`; only the first 4B count.
template <int B> static BW_INLINE void pack_wide(__m256i v, uint8_t *out, __m256i order) {
    if (B == 8) { _mm256_storeu_si256((__m256i *)out, v); return; }
    if (B == 1) {
        const uint32_t bits = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(v, 7));
        std::memcpy(out, &bits, 4);
        return;
    }
    v = _mm256_shuffle_epi8(squeeze<B & 7>(v), order);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)(out + 2 * B), _mm256_extracti128_si256(v, 1));
}
// Reads 16 + 2B bytes or less at `in`.
template <int B> static BW_INLINE __m256i unpack_wide(const uint8_t *in, __m256i order) {
    if (B == 8) return _mm256_loadu_si256((const __m256i *)in);
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)in)),
                                        _mm_loadu_si128((const __m128i *)(in + 2 * B)), 1);
    v = _mm256_shuffle_epi8(v, order);
    return spread<8, B & 7>(spread<16, 2 * (B & 7)>(spread<32, 4 * (B & 7)>(v)));
}
#endif

// `codes` bytes -> row stream of `nbytes` bytes. Never writes beyond out + nbytes. Gives the bits that any code has set.
template <int B> static uint32_t pack_row(const uint8_t *codes, int64_t columns, uint8_t *out, int64_t nbytes) {
    int64_t i = 0;
    uint64_t seen = 0;
#if defined(BW_AVX2)
    const int64_t blocks = columns / 32;
    const __m256i order = gather_order<B>(false);
    __m256i any = _mm256_setzero_si256();
    for (; i < blocks && i * 4 * B + 2 * B + 16 <= nbytes; ++i) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(codes + 32 * i));
        any = _mm256_or_si256(any, v);
        pack_wide<B>(v, out + i * 4 * B, order);
    }
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256((__m256i *)lanes, any);
    for (int k = 0; k < 4; ++k) seen |= lanes[k];
#endif
    for (; i * 32 < columns; ++i) {
        alignas(32) uint8_t c[32] = {0};
        alignas(32) uint8_t w[64];
        std::memcpy(c, codes + 32 * i, columns - 32 * i < 32 ? columns - 32 * i : 32);
        for (int k = 0; k < 32; ++k) seen |= c[k];
#if defined(BW_AVX2)
        pack_wide<B>(_mm256_load_si256((const __m256i *)c), w, order);
#else
        bw_pack32<B>(c, (bw_u32 *)w);
#endif
        const int64_t left = nbytes - i * 4 * B;
        std::memcpy(out + i * 4 * B, w, left < 4 * B ? left : 4 * B);
    }
    seen |= seen >> 32;
    seen |= seen >> 16;
    seen |= seen >> 8;
    return (uint32_t)(seen & 255);
}

template <int B> static void unpack_row(const uint8_t *in, int64_t nbytes, uint8_t *codes, int64_t columns) {
    int64_t i = 0;
#if defined(BW_AVX2)
    const int64_t blocks = columns / 32;
    const __m256i order = gather_order<B>(true);
    for (; i < blocks && i * 4 * B + 2 * B + 16 <= nbytes; ++i)
        _mm256_storeu_si256((__m256i *)(codes + 32 * i), unpack_wide<B>(in + i * 4 * B, order));
#endif
    for (; i * 32 < columns; ++i) {
        alignas(32) uint8_t w[64] = {0};
        alignas(32) uint8_t c[32];
        const int64_t left = nbytes - i * 4 * B;
        std::memcpy(w, in + i * 4 * B, left < 4 * B ? left : 4 * B);
#if defined(BW_AVX2)
        _mm256_store_si256((__m256i *)c, unpack_wide<B>(w, order));
#else
        bw_unpack32<B>((const bw_u32 *)w, c);
#endif
        std::memcpy(codes + 32 * i, c, columns - 32 * i < 32 ? columns - 32 * i : 32);
    }
}
