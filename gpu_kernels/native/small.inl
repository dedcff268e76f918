// ---- small floats in blocks (gpu_kernels/block_floats.py is the truth) ------------------------------------------------
enum { FP8_E4M3, FP8_E5M2, MXFP8, MXFP4, NVFP4, NF4 };
static const float TINY_OUTER = 7.888609052210118e-31f; // 2^-100

// A float of a sign, an exponent and M digits; LAST: its largest finite code without the sign.
template <int M_, int BIAS_, int LAST_, int WIDTH_> struct Small {
    static const int M = M_, BIAS = BIAS_, LAST = LAST_, WIDTH = WIDTH_;
};
typedef Small<3, 7, 0x7e, 8> E4M3;
typedef Small<2, 15, 0x7b, 8> E5M2;
typedef Small<1, 1, 7, 4> E2M1;

template <class E> static inline float last_value() { // digits after a leading one, under the largest exponent
    const int digits = E::LAST & ((1 << E::M) - 1), power = (E::LAST >> E::M) - E::BIAS;
    return (float)(1 << (power > 0 ? power : 0)) * (1.0f + (float)digits / (float)(1 << E::M));
}
static inline float pow2(int power) { // -127 .. 127
    bw_float_bits v;
    v.u = power == -127 ? 0x400000u : (bw_u32)(power + 127) << 23;
    return v.f;
}
// Codes, without their signs, of eight magnitudes: nearest, halves to even, saturating. value: what they stand for.
// A number is rounded by adding the power of two whose last digit is its own last one that is kept, at least that of the
// numbers without a leading one; the digits of the sum and the exponent make the code.
template <class E> static BW_INLINE I8 magnitude_codes(V8 magnitude, V8 *value) {
    const int32_t drop = 23 - E::M, least = (128 - E::BIAS) << 23;
    magnitude = v_min(magnitude, v_set(last_value<E>()));
    const I8 exponent = i_max((I8)magnitude & 0x7f800000, I8{} + least), power = exponent + (drop << 23);
    const V8 sum = magnitude + (V8)power;
    *value = sum - (V8)power;
    return (I8)sum - power + ((exponent - least) >> drop);
}
template <class E> static BW_INLINE I8 small_codes(V8 x, V8 *value) {
    return magnitude_codes<E>(v_abs(x), value) | (((I8)x >> (32 - E::WIDTH)) & (1 << (E::WIDTH - 1)));
}
#if defined(BW_AVX2)
// Numbers below 128 of four vectors as bytes in their order; of larger ones, or below 0, only the highest bit is right.
static BW_INLINE __m256i as_bytes(I8 a, I8 b, I8 c, I8 d) { return _mm256_packs_epi16(_mm256_packs_epi32((__m256i)a, (__m256i)b), _mm256_packs_epi32((__m256i)c, (__m256i)d)); }
static BW_INLINE __m256i in_order(__m256i v) { return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); }
#endif
// Codes of 32 numbers, a byte each.
template <class E> static BW_INLINE void small_bytes(const V8 *x, uint8_t *out) {
    V8 unused;
#if defined(BW_AVX2)
    I8 c[4];
    for (int k = 0; k < 4; ++k) c[k] = magnitude_codes<E>(v_abs(x[k]), &unused);
    const __m256i signs = as_bytes((I8)x[0], (I8)x[1], (I8)x[2], (I8)x[3]), last = _mm256_set1_epi8((char)(1 << (E::WIDTH - 1)));
    const __m256i moved = E::WIDTH == 8 ? signs : _mm256_srli_epi16(signs, 8 - E::WIDTH);
    _mm256_storeu_si256((__m256i *)out, in_order(_mm256_or_si256(as_bytes(c[0], c[1], c[2], c[3]), _mm256_and_si256(moved, last))));
#else
    for (int k = 0; k < 4; ++k) put_bytes(small_codes<E>(x[k], &unused), out + 8 * k);
#endif
}
static BW_INLINE void load32(const float *x, float by, V8 *v) {
    for (int k = 0; k < 4; ++k) v[k] = v_load(x + 8 * k) * by;
}
// n codes below 16 as bytes, to nibbles: byte j holds code j below and code j + n / 2 above; n a multiple of 16.
static BW_INLINE void nibbles_of(const uint8_t *codes, int n, uint8_t *out) {
    for (int j = 0; j < n / 2; j += 8) {
        uint64_t low, high;
        std::memcpy(&low, codes + j, 8);
        std::memcpy(&high, codes + n / 2 + j, 8);
        low |= high << 4;
        std::memcpy(out + j, &low, 8);
    }
}
// The number of nf4's middles below each of eight numbers: four steps down a tree of the middles.
struct Nf4Tree {
#if defined(BW_AVX2)
    __m256 first, level[3];
    explicit Nf4Tree(const float *m) {
        first = _mm256_set1_ps(m[7]);
        level[0] = _mm256_setr_ps(m[3], m[11], 0, 0, 0, 0, 0, 0), level[1] = _mm256_setr_ps(m[1], m[5], m[9], m[13], 0, 0, 0, 0);
        level[2] = _mm256_setr_ps(m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]);
    }
    BW_INLINE I8 codes(V8 x) const {
        I8 at = -(x > (V8)first);
        for (int k = 0; k < 3; ++k) at = at + at - (x > (V8)_mm256_permutevar8x32_ps(level[k], (__m256i)at));
        return at;
    }
#else
    const float *middles;
    explicit Nf4Tree(const float *m) : middles(m) {}
    inline I8 codes(V8 x) const {
        I8 at = {0};
        for (int t = 0; t < 15; ++t) at -= x > v_set(middles[t]);
        return at;
    }
#endif
};
// Largest magnitude, read as integers: NaN is above infinity and infinity above all.
float absmax(const float *x, int64_t n) {
    I8 most[4] = {};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; ++k) most[k] = i_max(most[k], (I8)v_load(x + i + 8 * k) & 0x7fffffff);
    for (; i + 8 <= n; i += 8) most[0] = i_max(most[0], (I8)v_load(x + i) & 0x7fffffff);
    if (i < n) {
        float rest[8] = {0};
        std::memcpy(rest, x + i, (n - i) * sizeof(float));
        most[1] = i_max(most[1], (I8)v_load(rest) & 0x7fffffff);
    }
    return largest(i_max(i_max(most[0], most[1]), i_max(most[2], most[3])));
}

// A row of floats, eight at a time, the last ones filled up with zeros.
template <class E> static void small_row(const float *x, int64_t n, float inverse, uint8_t *out) {
    V8 unused, v[4];
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        load32(x + i, inverse, v);
        small_bytes<E>(v, out + i);
    }
    for (; i + 8 <= n; i += 8) put_bytes(small_codes<E>(v_load(x + i) * inverse, &unused), out + i);
    if (i == n) return;
    float rest[8] = {0};
    uint8_t codes[8];
    std::memcpy(rest, x + i, (n - i) * sizeof(float));
    put_bytes(small_codes<E>(v_load(rest) * inverse, &unused), codes);
    std::memcpy(out + i, codes, n - i);
}
static inline float sum32(const V8 *e) { return sum8((e[0] + e[2]) + (e[1] + e[3])); } // as reference_quantize.lane_sum
// Largest magnitudes of `count` <= 8 blocks of n numbers, a multiple of 8 or any number.
static BW_INLINE void tops_of(const float *x, int count, int64_t n, float *tops) {
#if defined(BW_AVX2)
    if (n % 8 == 0) {
        __m256i most[8];
        for (int b = 0; b < 8; ++b) {
            most[b] = _mm256_setzero_si256();
            for (int64_t i = 0; b < count && i < n; i += 8) most[b] = _mm256_max_epi32(most[b], (__m256i)((I8)v_load(x + b * n + i) & 0x7fffffff));
        }
        _mm256_storeu_si256((__m256i *)tops, largest_of_each<true>(most));
        return;
    }
#endif
    for (int b = 0; b < 8; ++b) tops[b] = b < count ? absmax(x + b * n, n) : 0;
}
// The squared error of 32 numbers under a power of two.
template <class E> static BW_INLINE float mx_error(const float *from, float scale, float inverse) {
    V8 off[4];
    for (int k = 0; k < 4; ++k) {
        V8 value;
        const V8 magnitude = v_abs(v_load(from + 8 * k));
        magnitude_codes<E>(magnitude * inverse, &value);
        off[k] = value * scale - magnitude;
        off[k] = off[k] * off[k];
    }
    return sum32(off);
}
// Blocks of 32 numbers under one power of two each: the one for the largest, or the next where that loses less.
template <class E, int TOP> static void mx_blocks(const float *x, int count, uint8_t *out) {
    alignas(32) float tops[8];
    tops_of(x, count, 32, tops);
    int power[8], next[8];
    unsigned clipped = 0;
    for (int b = 0; b < count; ++b) {
        bw_float_bits top;
        top.f = tops[b];
        const int first = top.u >> 23 ? (int)(top.u >> 23) - 127 - TOP : top.u ? 31 - __builtin_clz(top.u) - 149 - TOP : -200;
        power[b] = first < -127 ? -127 : first > 127 ? 127 : first;
        next[b] = first < -128 ? -127 : first > 126 ? 127 : first + 1;
        // Without a number beyond the last value, every value of the next grid is one of this: it cannot lose less.
        clipped |= (unsigned)(top.f * pow2(-power[b]) > last_value<E>()) << b;
    }
    for (; clipped; clipped &= clipped - 1) {
        const int b = __builtin_ctz(clipped);
        const float here = mx_error<E>(x + 32 * b, pow2(power[b]), pow2(-power[b])), there = mx_error<E>(x + 32 * b, pow2(next[b]), pow2(-next[b]));
        power[b] = there < here ? next[b] : power[b];
    }
    for (int b = 0; b < count; ++b) {
        V8 v[4];
        load32(x + 32 * b, pow2(-power[b]), v);
        *out++ = (uint8_t)(power[b] + 127);
        if (E::WIDTH == 8) small_bytes<E>(v, out);
        else {
            uint8_t codes[32];
            small_bytes<E>(v, codes);
            nibbles_of(codes, 32, out);
        }
        out += 4 * E::WIDTH;
    }
}
// Blocks of 16 with an e4m3 scale.
static void nvfp4_blocks(const float *x, int count, float unit, float outer, uint8_t *out) {
    alignas(32) float each[8];
    alignas(32) int32_t scales[8];
    tops_of(x, count, 16, each);
    V8 value;
    const I8 stored = small_codes<E4M3>(v_load(each) * unit, &value);
    const V8 scale = value * outer, inverse = v_pick(scale != v_set(0), 1.0f / scale, v_set(0));
    std::memcpy(each, &inverse, sizeof each);
    std::memcpy(scales, &stored, sizeof scales);
    for (int b = 0; b < count; b += 2, out += 18) { // two blocks at a time, of which the second may not be there
        const bool two = b + 1 < count;
        const float *from = x + b * 16;
        V8 v[4] = {v_load(from) * each[b], v_load(from + 8) * each[b], v_set(0), v_set(0)};
        if (two) v[2] = v_load(from + 16) * each[b + 1], v[3] = v_load(from + 24) * each[b + 1];
        alignas(32) uint8_t codes[32];
        small_bytes<E2M1>(v, codes);
        out[0] = (uint8_t)scales[b];
#if defined(BW_AVX2)
        const __m256i c = _mm256_load_si256((const __m256i *)codes), pairs = _mm256_or_si256(c, _mm256_slli_epi16(_mm256_srli_si256(c, 8), 4));
        _mm_storel_epi64((__m128i *)(out + 1), _mm256_castsi256_si128(pairs));
        if (!two) continue;
        _mm_storel_epi64((__m128i *)(out + 10), _mm256_extracti128_si256(pairs, 1));
#else
        nibbles_of(codes, 16, out + 1);
        if (!two) continue;
        nibbles_of(codes + 16, 16, out + 10);
#endif
        out[9] = (uint8_t)scales[b + 1];
    }
}
// Eight magnitudes rounded to halves, and those as numbers.
static BW_INLINE V8 rounded_halves(V8 x, bw_u16 *halves) {
#if defined(BW_AVX2)
    const __m128i found = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)halves, found);
    return (V8)_mm256_cvtph_ps(found);
#else
    V8 back;
    for (int k = 0; k < 8; ++k) {
        halves[k] = x[k] >= 65520.0f ? 0x7c00 : bw_to_half((double)(x[k] > 65504.0f ? 65504.0f : x[k]));
        back[k] = bw_from_half(halves[k]);
    }
    return back;
#endif
}
static BW_INLINE void nf4_codes(const float *x, int64_t n, float inverse, const Nf4Tree &tree, uint8_t *out) {
    const int64_t upper = (n + 1) / 2;
    int64_t j = 0;
#if defined(BW_AVX2)
    for (; j + 32 <= n - upper; j += 32) {
        __m256i c[2];
        for (int side = 0; side < 2; ++side) {
            I8 at[4];
            for (int k = 0; k < 4; ++k) at[k] = tree.codes(v_load(x + side * upper + j + 8 * k) * inverse);
            c[side] = as_bytes(at[0], at[1], at[2], at[3]);
        }
        _mm256_storeu_si256((__m256i *)(out + j), in_order(_mm256_or_si256(c[0], _mm256_slli_epi16(c[1], 4))));
    }
#endif
    for (; j + 8 <= n - upper; j += 8) put_nibbles(tree.codes(v_load(x + j) * inverse), tree.codes(v_load(x + upper + j) * inverse), out + j);
    for (; j < upper; j += 8) {
        float low[8] = {0}, high[8] = {0};
        uint8_t bytes[8];
        const int64_t lows = upper - j < 8 ? upper - j : 8, highs = n - upper - j < 8 ? n - upper - j : 8;
        std::memcpy(low, x + j, lows * sizeof(float));
        std::memcpy(high, x + upper + j, highs * sizeof(float));
        I8 above = tree.codes(v_load(high) * inverse);
        for (int64_t k = highs; k < 8; ++k) above[k] = 0; // no number, no code
        put_nibbles(tree.codes(v_load(low) * inverse), above, bytes);
        std::memcpy(out + j, bytes, lows);
    }
}
template <int SIZE> static void nf4_blocks(const float *x, int count, int64_t size, const Nf4Tree &tree, uint8_t *out) {
    const int64_t n = SIZE ? SIZE : size, bytes = 2 + (n + 1) / 2;
    alignas(32) float tops[8], inverse[8];
    tops_of(x, count, n, tops);
    bw_u16 halves[8];
    const V8 scale = rounded_halves(v_load(tops), halves), found = v_pick(scale != v_set(0), 1.0f / scale, v_set(0));
    std::memcpy(inverse, &found, sizeof inverse);
    const Nf4Tree here = tree;
    for (int b = 0; b < count; ++b, out += bytes) {
        std::memcpy(out, halves + b, 2);
        nf4_codes(x + b * n, n, inverse[b], here, out + 2);
    }
}

// outer: float32 scales beside the blocks: one a row is written (fp8), the one of the matrix read (nvfp4). table: nf4's
// middles.
void small_quantize(const float *data, int64_t rows, int64_t columns, int kind, int64_t block, int64_t block_bytes, const float *table, float *outer, uint8_t *out) {
    const int64_t whole = columns / block, rest = columns - whole * block, bytes = (whole + (rest > 0)) * block_bytes;
    std::vector<float> last(block);
    const Nf4Tree tree(table);
    const float unit = kind == NVFP4 ? 1.0f / (6.0f * *outer) : 0;
    const auto blocks = [&](const float *x, int64_t number, uint8_t *to) {
        for (int64_t first = 0; first < number; first += 8, x += 8 * block, to += 8 * block_bytes) {
            const int count = number - first < 8 ? (int)(number - first) : 8;
            if (kind == NVFP4) nvfp4_blocks(x, count, unit, *outer, to);
            else if (kind == MXFP8) mx_blocks<E4M3, 8>(x, count, to);
            else if (kind == MXFP4) mx_blocks<E2M1, 2>(x, count, to);
            else if (block == 64) nf4_blocks<64>(x, count, 64, tree, to);
            else nf4_blocks<0>(x, count, block, tree, to);
        }
    };
    for (int64_t r = 0; r < rows; ++r) {
        const float *x = data + r * columns;
        uint8_t *to = out + r * bytes;
        if (kind == FP8_E4M3 || kind == FP8_E5M2) {
            const float scale = absmax(x, columns) / (kind == FP8_E4M3 ? 448.0f : 57344.0f);
            outer[r] = scale > TINY_OUTER ? scale : TINY_OUTER;
            if (kind == FP8_E4M3) small_row<E4M3>(x, columns, 1.0f / outer[r], to);
            else small_row<E5M2>(x, columns, 1.0f / outer[r], to);
            continue;
        }
        blocks(x, whole, to);
        if (!rest) continue;
        std::fill(last.begin(), last.end(), 0.0f);
        std::memcpy(last.data(), x + whole * block, rest * sizeof(float));
        blocks(last.data(), 1, to + whole * block_bytes);
    }
}

template <class E> static inline V8 widened(I8 code) { // the exponent is moved to float's by a power of two, exactly
    const I8 magnitude = code & 0x7f, nan = magnitude > E::LAST;
    const V8 value = (V8)(magnitude << (23 - E::M)) * v_set(pow2(127 - E::BIAS));
    return (V8)(((nan & 0x7fc00000) | (~nan & (I8)value)) | ((code & 0x80) << 24));
}
template <class E> static void widen_small(const uint8_t *in, int64_t n, float scale, float *out) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const V8 v = widened<E>(take_bytes(in + i)) * scale;
        std::memcpy(out + i, &v, sizeof v);
    }
    uint8_t rest[8] = {0};
    std::memcpy(rest, in + i, n - i);
    const V8 v = widened<E>(take_bytes(rest)) * scale;
    std::memcpy(out + i, &v, (n - i) * sizeof(float));
}
// The nibbles of a block of n codes; table: 16 values.
static void widen_nibbles(const uint8_t *in, int64_t n, const float *table, float scale, float *out) {
    const int64_t upper = (n + 1) / 2;
    int64_t j = 0;
    for (; j + 8 <= n - upper; j += 8) {
        const I8 c = take_bytes(in + j);
        const V8 low = look_up(table, c & 15) * scale, high = look_up(table, c >> 4) * scale;
        std::memcpy(out + j, &low, sizeof low);
        std::memcpy(out + upper + j, &high, sizeof high);
    }
    for (; j < upper; j += 8) {
        const int64_t lows = upper - j < 8 ? upper - j : 8, highs = n - upper - j < 8 ? n - upper - j : 8;
        uint8_t bytes[8] = {0};
        std::memcpy(bytes, in + j, lows);
        const I8 c = take_bytes(bytes);
        const V8 low = look_up(table, c & 15) * scale, high = look_up(table, c >> 4) * scale;
        std::memcpy(out + j, &low, lows * sizeof(float));
        std::memcpy(out + upper + j, &high, highs * sizeof(float));
    }
}
// outer: float32 scales beside the blocks, one a row or one of the matrix, or null. table: values of 4-bit codes.
void small_dequantize(const uint8_t *in, int64_t rows, int64_t columns, int kind, int64_t block, int64_t block_bytes, const float *table, const float *outer, float *out) {
    const int64_t blocks = (columns + block - 1) / block;
    std::vector<float> whole(block);
    for (int64_t r = 0; r < rows; ++r) {
        float *to = out + r * columns;
        if (kind == FP8_E4M3 || kind == FP8_E5M2) {
            if (kind == FP8_E4M3) widen_small<E4M3>(in + r * columns, columns, outer[r], to);
            else widen_small<E5M2>(in + r * columns, columns, outer[r], to);
            continue;
        }
        for (int64_t b = 0; b < blocks; ++b, to += block) {
            const uint8_t *from = in + (r * blocks + b) * block_bytes;
            const bool full = (b + 1) * block <= columns;
            float *dense = full ? to : whole.data(), scale;
            bw_u16 half;
            std::memcpy(&half, from, kind == NF4 ? 2 : 1);
            if (kind == NF4) scale = bw_from_half(half);
            else if (kind == NVFP4) scale = widened<E4M3>(I8{} + *from)[0] * *outer;
            else scale = *from == 255 ? __builtin_inff() : pow2((int)*from - 127);
            if (kind == MXFP8) widen_small<E4M3>(from + 1, block, scale, dense);
            else widen_nibbles(from + (kind == NF4 ? 2 : 1), block, table, scale, dense);
            if (!full) std::memcpy(to, dense, (columns - b * block) * sizeof(float));
        }
    }
}
