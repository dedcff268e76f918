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
// Codes of eight finite numbers: nearest, halves to even, saturating. value: the magnitudes that they stand for.
template <class E> static inline I8 small_codes(V8 x, V8 *value) {
    const int drop = 23 - E::M;
    const int32_t gap = (127 - E::BIAS) << E::M, most = E::LAST + gap;
    const float steps_of_one = (float)(1 << (E::BIAS - 1 + E::M));
    const I8 magnitude = (I8)x & 0x7fffffff, small = magnitude < ((128 - E::BIAS) << 23);
    I8 whole = (magnitude + ((magnitude >> drop) & 1) + ((1 << (drop - 1)) - 1)) >> drop;
    whole = i_pick(whole > most, I8{most, most, most, most, most, most, most, most}, whole);
    const V8 steps = v_rint((V8)(magnitude & small) * v_set(steps_of_one)); // of the numbers without a leading one
    *value = v_pick(small, steps * v_set(1.0f / steps_of_one), (V8)(whole << drop));
    return i_pick(small, __builtin_convertvector(steps, I8), whole - gap) | (((I8)x >> (32 - E::WIDTH)) & (1 << (E::WIDTH - 1)));
}
// The number of nf4's middles below each of eight numbers: four steps down a tree of the middles.
static inline I8 nf4_codes(V8 x, const float *middles) {
#if defined(BW_AVX2)
    const float *m = middles;
    const __m256 second = _mm256_setr_ps(m[3], m[11], 0, 0, 0, 0, 0, 0), third = _mm256_setr_ps(m[1], m[5], m[9], m[13], 0, 0, 0, 0);
    const __m256 fourth = _mm256_setr_ps(m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]);
    I8 at = -(x > v_set(m[7]));
    for (const __m256 &level : {second, third, fourth}) at = at + at - (x > (V8)_mm256_permutevar8x32_ps(level, (__m256i)at));
    return at;
#else
    I8 at = {0};
    for (int t = 0; t < 15; ++t) at -= x > v_set(middles[t]);
    return at;
#endif
}
// Largest magnitude, read as integers: NaN is above infinity and infinity above all.
float absmax(const float *x, int64_t n) {
    I8 most[4] = {};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; ++k) most[k] = i_max(most[k], (I8)v_load(x + i + 8 * k) & 0x7fffffff);
    for (; i + 8 <= n; i += 8) most[0] = i_max(most[0], (I8)v_load(x + i) & 0x7fffffff);
    float rest[8] = {0};
    std::memcpy(rest, x + i, (n - i) * sizeof(float));
    most[1] = i_max(most[1], (I8)v_load(rest) & 0x7fffffff);
    return largest(i_max(i_max(most[0], most[1]), i_max(most[2], most[3])));
}

// A row of floats, eight at a time, the last ones filled up with zeros.
template <class E> static void small_row(const float *x, int64_t n, float inverse, uint8_t *out) {
    V8 unused;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) put_bytes(small_codes<E>(v_load(x + i) * inverse, &unused), out + i);
    float rest[8] = {0};
    uint8_t codes[8];
    std::memcpy(rest, x + i, (n - i) * sizeof(float));
    put_bytes(small_codes<E>(v_load(rest) * inverse, &unused), codes);
    std::memcpy(out + i, codes, n - i);
}
static inline float sum32(const V8 *e) { // as reference_quantize.lane_sum
    const V8 t = (e[0] + e[2]) + (e[1] + e[3]);
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}
// 32 numbers under one power of two: the one for the largest, or the next where that loses less.
template <class E, int TOP> static void mx_block(const float *from, uint8_t *out) {
    V8 x[4], magnitude[4];
    for (int k = 0; k < 4; ++k) x[k] = v_load(from + 8 * k), magnitude[k] = v_abs(x[k]);
    bw_float_bits top;
    top.f = largest(i_max(i_max((I8)magnitude[0], (I8)magnitude[1]), i_max((I8)magnitude[2], (I8)magnitude[3])));
    const int first = top.u >> 23 ? (int)(top.u >> 23) - 127 - TOP : top.u ? 31 - __builtin_clz(top.u) - 149 - TOP : -128;
    I8 codes[2][4];
    int power[2], best = 0;
    float error[2];
    for (int more = 0; more < 2; ++more) {
        const int p = first + more;
        power[more] = p < -127 || !top.u ? -127 : p > 127 ? 127 : p;
        const float scale = pow2(power[more]), inverse = pow2(-power[more]);
        V8 off[4];
        for (int k = 0; k < 4; ++k) {
            V8 value;
            codes[more][k] = small_codes<E>(x[k] * inverse, &value);
            off[k] = value * scale - magnitude[k];
            off[k] = off[k] * off[k];
        }
        // Without a number beyond the last value, every value of the next grid is one of this: it cannot lose less.
        if (!more && top.f * inverse <= last_value<E>()) break;
        error[more] = sum32(off);
        best = more && error[1] < error[0];
    }
    *out++ = (uint8_t)(power[best] + 127);
    const I8 *c = codes[best];
    if (E::WIDTH == 8)
        for (int k = 0; k < 4; ++k) put_bytes(c[k], out + 8 * k);
    else
        for (int k = 0; k < 2; ++k) put_nibbles(c[k], c[k + 2], out + 8 * k);
}
// Blocks of 16 with an e4m3 scale: eight scales at a time.
static void nvfp4_blocks(const float *x, int64_t count, float outer, uint8_t *out) {
    const float unit = 1.0f / (6.0f * outer);
    for (int64_t first = 0; first < count; first += 8) {
        const int here = count - first < 8 ? (int)(count - first) : 8;
        V8 top = v_set(0), value;
        for (int b = 0; b < here; ++b) {
            const float *from = x + (first + b) * 16;
            top[b] = largest(i_max((I8)v_abs(v_load(from)), (I8)v_abs(v_load(from + 8))));
        }
        const I8 stored = small_codes<E4M3>(top * unit, &value);
        const V8 scale = value * outer, inverse = v_pick(scale != v_set(0), 1.0f / scale, v_set(0));
        for (int b = 0; b < here; ++b, out += 9) {
            const float *from = x + (first + b) * 16;
            *out = (uint8_t)stored[b];
            put_nibbles(small_codes<E2M1>(v_load(from) * inverse[b], &value), small_codes<E2M1>(v_load(from + 8) * inverse[b], &value), out + 1);
        }
    }
}
static inline bw_u16 half_of_largest(float x) {
#if defined(BW_AVX2)
    return (bw_u16)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
    return x >= 65520.0f ? 0x7c00 : bw_to_half((double)(x > 65504.0f ? 65504.0f : x));
#endif
}
static void nf4_block(const float *x, int64_t n, const float *middles, uint8_t *out) {
    const bw_u16 half = half_of_largest(absmax(x, n));
    std::memcpy(out, &half, 2);
    out += 2;
    const float scale = bw_from_half(half), inverse = scale != 0 ? 1.0f / scale : 0.0f;
    const int64_t upper = (n + 1) / 2;
    int64_t j = 0;
    for (; j + 8 <= n - upper; j += 8) put_nibbles(nf4_codes(v_load(x + j) * inverse, middles), nf4_codes(v_load(x + upper + j) * inverse, middles), out + j);
    for (; j < upper; j += 8) {
        float low[8] = {0}, high[8] = {0};
        uint8_t bytes[8];
        const int64_t lows = upper - j < 8 ? upper - j : 8, highs = n - upper - j < 8 ? n - upper - j : 8;
        std::memcpy(low, x + j, lows * sizeof(float));
        std::memcpy(high, x + upper + j, highs * sizeof(float));
        I8 above = nf4_codes(v_load(high) * inverse, middles);
        for (int64_t k = highs; k < 8; ++k) above[k] = 0; // no number, no code
        put_nibbles(nf4_codes(v_load(low) * inverse, middles), above, bytes);
        std::memcpy(out + j, bytes, lows);
    }
}

// outer: float32 scales beside the blocks: one a row is written (fp8), the one of the matrix read (nvfp4). table: nf4's
// middles.
void small_quantize(const float *data, int64_t rows, int64_t columns, int kind, int64_t block, int64_t block_bytes, const float *table, float *outer, uint8_t *out) {
    const int64_t whole = columns / block, rest = columns - whole * block, bytes = (whole + (rest > 0)) * block_bytes;
    std::vector<float> last(block);
    const auto blocks = [&](const float *x, int64_t count, uint8_t *to) {
        if (kind == NVFP4) return nvfp4_blocks(x, count, *outer, to);
        for (int64_t b = 0; b < count; ++b, x += block, to += block_bytes) {
            if (kind == MXFP8) mx_block<E4M3, 8>(x, to);
            else if (kind == MXFP4) mx_block<E2M1, 2>(x, to);
            else nf4_block(x, block, table, to);
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
