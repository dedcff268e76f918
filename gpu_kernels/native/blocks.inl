// ---- ggml blocks (gpu_kernels/block_search.py and block_reference.py are the truth) -----------------------------------
// A run of a plane: `count` values from `first` on lie at bytes from `at` on, all with one shift.
struct Run {
    int32_t first, at, shift, count;
};
struct Plane {
    int field, low, bits, nruns;
    const Run *runs;
};
// What gpu_kernels/blocks.py flattens a BlockLayout to.
struct Layout {
    int block, nbytes, groups, bits, zero, affine, scale_top, bias, sign, spread, d, m, tries, refinements, nplanes;
    const float *table; // 16 levels, or null
    Plane planes[8];
};
enum { CODES, SCALES, MINS };
static const int MAX_BLOCK = 256, MAX_BATCHES = 2;

static Layout layout_of(const int32_t *s, const float *table) {
    Layout l = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12], s[13], s[14], table, {}};
    const int32_t *p = s + 15;
    for (int i = 0; i < l.nplanes; ++i) {
        l.planes[i] = {p[0], p[1], p[2], p[3], (const Run *)(p + 4)};
        p += 4 + 4 * p[3];
    }
    return l;
}

struct Block {
    uint8_t fields[3][MAX_BLOCK]; // codes, scales, mins
    bw_u16 d, m;
};

static void put(const Layout &l, const Block &b, uint8_t *__restrict out) {
    std::memset(out, 0, l.nbytes);
    for (int p = 0; p < l.nplanes; ++p) {
        const Plane &plane = l.planes[p];
        const int mask = (1 << plane.bits) - 1, low = plane.low;
        for (int r = 0; r < plane.nruns; ++r) {
            const Run run = plane.runs[r];
            const uint8_t *__restrict from = b.fields[plane.field] + run.first;
            uint8_t *__restrict to = out + run.at;
            for (int i = 0; i < run.count; ++i) to[i] |= (uint8_t)(((from[i] >> low) & mask) << run.shift);
        }
    }
    std::memcpy(out + l.d, &b.d, 2);
    if (l.affine) std::memcpy(out + l.m, &b.m, 2);
}

static void take(const Layout &l, const uint8_t *__restrict in, Block *b) {
    std::memset(b->fields[CODES], 0, l.block);
    if (l.scale_top) std::memset(b->fields[SCALES], 0, l.groups), std::memset(b->fields[MINS], 0, l.groups);
    for (int p = 0; p < l.nplanes; ++p) {
        const Plane &plane = l.planes[p];
        const int mask = (1 << plane.bits) - 1, low = plane.low;
        for (int r = 0; r < plane.nruns; ++r) {
            const Run run = plane.runs[r];
            const uint8_t *__restrict from = in + run.at;
            uint8_t *__restrict to = b->fields[plane.field] + run.first;
            for (int i = 0; i < run.count; ++i) to[i] |= (uint8_t)(((from[i] >> run.shift) & mask) << low);
        }
    }
    std::memcpy(&b->d, in + l.d, 2);
    b->m = 0;
    if (l.affine) std::memcpy(&b->m, in + l.m, 2);
}

static inline float half_number(const uint8_t *at) {
    bw_u16 half;
    std::memcpy(&half, at, 2);
#if defined(BW_AVX2)
    return _cvtsh_ss(half);
#else
    return bw_from_half(half);
#endif
}
// Numbers of 32 codes at the end of a block: a byte each, or nibbles, behind a word of the fifth bits (see plain_block).
enum { BYTES, NIBBLES, FIFTHS, LEVELS };
template <int KIND> static void plain_floats(const Layout &l, const uint8_t *in, int64_t count, float *out) {
    for (int64_t n = 0; n < count; ++n, in += l.nbytes, out += 32) {
        const V8 scale = v_set(half_number(in + l.d)), offset = v_set(l.affine ? half_number(in + l.m) : 0);
        uint32_t fifths = 0;
        if (KIND == FIFTHS) std::memcpy(&fifths, in + l.nbytes - 20, 4);
        for (int k = 0; k < 4; ++k) {
            I8 code = take_bytes(in + l.nbytes - (KIND == BYTES ? 32 - 8 * k : 16 - 8 * (k & 1)));
            if (KIND == BYTES) code = code << 24 >> 24;
            else code = k < 2 ? code & 15 : code >> 4;
            if (KIND == FIFTHS) code = code | ((I8{} + (int32_t)(fifths >> (8 * k) & 255)) >> I8{0, 1, 2, 3, 4, 5, 6, 7} & 1) << 4;
            V8 value = (KIND == LEVELS ? look_up(l.table, code) : __builtin_convertvector(code, V8) - (float)l.zero) * scale;
            if (l.affine) value = value + offset;
            std::memcpy(out + 8 * k, &value, sizeof value);
        }
    }
}

void blocks_dequantize(const uint8_t *in, int64_t count, const int32_t *spec, const float *table, float *out) {
    const Layout l = layout_of(spec, table);
    const int size = l.block / l.groups;
    Block b;
    if (l.groups == 1) {
        if (l.sign == 1) plain_floats<BYTES>(l, in, count, out);
        else if (table) plain_floats<LEVELS>(l, in, count, out);
        else if (l.bits == 5) plain_floats<FIFTHS>(l, in, count, out);
        else plain_floats<NIBBLES>(l, in, count, out);
        return;
    }
    for (int64_t n = 0; n < count; ++n) {
        take(l, in + n * l.nbytes, &b);
        const float d = bw_from_half(b.d), m = bw_from_half(b.m);
        for (int g = 0; g < l.groups; ++g) {
            float scale = d, offset = m;
            if (l.scale_top) {
                const uint8_t stored = b.fields[SCALES][g];
                scale = d * (l.sign == 2 ? (float)(int8_t)stored : (float)stored - (float)l.bias);
                offset = -(m * (float)b.fields[MINS][g]);
            }
            float *to = out + n * l.block + g * size;
            const uint8_t *codes = b.fields[CODES] + g * size;
            for (int i = 0; i < size; i += 8) {
                I8 code = take_bytes(codes + i);
                if (l.sign == 1) code = (code << 24) >> 24;
                V8 value = (table ? look_up(table, code) : __builtin_convertvector(code, V8) - (float)l.zero) * scale;
                if (l.affine) value = value + offset;
                std::memcpy(to + i, &value, sizeof value);
            }
        }
    }
}

static inline float reciprocal(float x) {
    const float r = 1.0f / x;
    return (r < 0 ? -r : r) <= 3.402823466e38f ? r : 0.0f;
}
static inline bw_u16 to_half(float x) { // never -0
    x = x + 0.0f;
    return bw_to_half((double)(x < -65504.0f ? -65504.0f : x > 65504.0f ? 65504.0f : x));
}

// Eight groups of S weights, a lane each. w: weights of errors, wx = w * x, and their sums.
template <int S> struct Batch {
    V8 x[S], w[S], wx[S], sw, swx, low, high;
    void load(const float *from) { // group g at from + g * S
        for (int i = 0; i < S; ++i)
            for (int g = 0; g < 8; ++g) x[i][g] = from[g * S + i];
        low = high = x[0];
        for (int i = 1; i < S; ++i) low = v_min(low, x[i]), high = v_max(high, x[i]);
    }
    void sums() {
        for (int i = 0; i < S; ++i) wx[i] = w[i] * x[i];
        sw = w[0], swx = wx[0];
        for (int i = 1; i < S; ++i) sw = sw + w[i], swx = swx + wx[i];
    }
};

static inline V8 affine_level(V8 x, V8 inverse, V8 base, V8 top) { return v_clamp(v_rint(inverse * (x - base)), v_set(0), top); }

// One candidate: codes of a first scale, then the best scale and minimum for them.
template <int S> static inline void affine_try(const Batch<S> &b, V8 inverse, V8 base, V8 top, V8 *best, V8 *scale, V8 *offset) {
    V8 swl = v_set(0), swll = swl, swxl = swl;
    for (int i = 0; i < S; ++i) {
        const V8 level = affine_level(b.x[i], inverse, base, top), wl = b.w[i] * level;
        swl = swl + wl, swll = swll + wl * level, swxl = swxl + b.wx[i] * level;
    }
    const V8 det = b.sw * swll - swl * swl;
    const V8 free = (b.sw * swxl - b.swx * swl) / det, below = (swll * b.swx - swl * swxl) / det;
    const V8 s = v_pick(below > 0, swxl / swll, free), o = v_pick(below > 0, v_set(0), below);
    const V8 gain = s * swxl + o * b.swx;
    const I8 better = v_finite(inverse) & (det > 0) & (s > 0) & (gain > 0) & (gain > *best);
    *best = v_pick(better, gain, *best), *scale = v_pick(better, s, *scale), *offset = v_pick(better, o, *offset);
}

template <int S> static inline void put_codes(V8 level, int i, uint8_t *codes) {
    const I8 whole = __builtin_convertvector(level, I8);
    for (int g = 0; g < 8; ++g) codes[g * S + i] = (uint8_t)whole[g];
}

template <int S> static void affine_block(const Layout &l, const float *x, Block *out) {
    const V8 top = v_set((float)((1 << l.bits) - 1)), steps = v_set((float)l.scale_top), zero = v_set(0);
    Batch<S> batches[MAX_BATCHES];
    V8 scale[MAX_BATCHES], minimum[MAX_BATCHES];
    const int count = l.groups / 8;
    float most = 0, most_min = 0;
    for (int n = 0; n < count; ++n) {
        Batch<S> &b = batches[n];
        b.load(x + n * 8 * S);
        V8 square = b.x[0] * b.x[0];
        for (int i = 1; i < S; ++i) square = square + b.x[i] * b.x[i];
        const V8 spread = l.spread ? v_sqrt(square / (float)S) : zero;
        for (int i = 0; i < S; ++i) b.w[i] = spread + v_abs(b.x[i]);
        b.sums();
        const V8 low = v_min(b.low, zero), width = b.high - low;
        V8 best = v_set(-1), s = zero, o = low;
        for (int k = -l.tries; k <= l.tries; ++k) affine_try<S>(b, (top + (float)k / (float)l.tries) / width, low, top, &best, &s, &o);
        for (int k = 0; k < l.refinements; ++k) affine_try<S>(b, v_reciprocal(s), o, top, &best, &s, &o);
        scale[n] = s, minimum[n] = 0.0f - o;
        for (int g = 0; g < 8; ++g) {
            most = s[g] > most ? s[g] : most;
            most_min = minimum[n][g] > most_min ? minimum[n][g] : most_min;
        }
    }
    out->d = to_half(most / (float)l.scale_top), out->m = to_half(most_min / (float)l.scale_top);
    const V8 d = v_set(bw_from_half(out->d)), m = v_set(bw_from_half(out->m)), inverse = v_reciprocal(d), inverse_m = v_reciprocal(m);
    for (int n = 0; n < count; ++n) {
        const Batch<S> &b = batches[n];
        const V8 first = v_clamp(v_rint(scale[n] * inverse), zero, steps), first_min = v_clamp(v_rint(minimum[n] * inverse_m), zero, steps);
        V8 best = v_set(__builtin_inff()), kept = first, kept_min = first_min;
        for (int move = 0; move < 3; ++move) {
            const V8 trial = v_clamp(first + (move == 0 ? 0.0f : move == 1 ? -1.0f : 1.0f), zero, steps), s = d * trial, is = v_reciprocal(s);
            V8 trial_min = first_min;
            for (int again = 0; again < 2; ++again) {
                const V8 o = -(m * trial_min);
                V8 error = zero, swl = zero;
                for (int i = 0; i < S; ++i) {
                    const V8 level = affine_level(b.x[i], is, o, top), off = s * level + o - b.x[i];
                    error = error + b.w[i] * off * off;
                    if (!again) swl = swl + b.w[i] * level;
                }
                const I8 better = error < best;
                best = v_pick(better, error, best), kept = v_pick(better, trial, kept), kept_min = v_pick(better, trial_min, kept_min);
                const V8 moved = v_clamp(v_rint((s * swl - b.swx) / b.sw * inverse_m), zero, steps);
                if (!again) trial_min = v_pick(b.sw > 0, moved, first_min);
            }
        }
        const V8 s = d * kept, o = -(m * kept_min), is = v_reciprocal(s);
        for (int i = 0; i < S; ++i) put_codes<S>(affine_level(b.x[i], is, o, top), i, out->fields[CODES] + n * 8 * S);
        put_codes<1>(kept, 0, out->fields[SCALES] + n * 8);
        put_codes<1>(kept_min, 0, out->fields[MINS] + n * 8);
    }
}

// The level nearest to a scaled weight; in a table, halfway goes to the upper level. Levels are small integers: the sums
// of their steps are exact.
static inline V8 nearest(const Layout &l, V8 scaled) {
    if (!l.table) return v_clamp(v_rint(scaled), v_set(-(float)l.zero), v_set((float)((1 << l.bits) - 1 - l.zero)));
    V8 level = v_set(l.table[0]);
    for (int t = 1; t < 16; ++t) {
        const float limit = (l.table[t] + l.table[t - 1]) * 0.5f, step = l.table[t] - l.table[t - 1];
        level = level + (V8)((scaled >= limit) & (I8)v_set(step));
    }
    return level;
}

template <int S> static inline void level_try(const Layout &l, const Batch<S> &b, V8 inverse, V8 *best, V8 *scale) {
    V8 swll = v_set(0), swxl = swll;
    for (int i = 0; i < S; ++i) {
        const V8 level = nearest(l, inverse * b.x[i]);
        swll = swll + b.w[i] * level * level, swxl = swxl + b.wx[i] * level;
    }
    const V8 s = swxl / swll, gain = s * swxl;
    const I8 better = v_finite(inverse) & (swll > 0) & (gain > *best);
    *best = v_pick(better, gain, *best), *scale = v_pick(better, s, *scale);
}

// Best first scales of a batch.
template <int S> static V8 level_scales(const Layout &l, Batch<S> &b, const float *x) {
    b.load(x);
    for (int i = 0; i < S; ++i) b.w[i] = b.x[i] * b.x[i];
    b.sums();
    const V8 extreme = v_pick(b.high > -b.low, b.high, b.low);
    const float end = l.table ? l.table[0] : -(float)l.zero, step = l.table ? 8.0f : 1.0f;
    V8 best = v_set(-1), s = v_set(0);
    for (int side = 0; side < (l.table ? 2 : 1); ++side)
        for (int k = -l.tries; k <= l.tries; ++k) {
            const float first = end - (float)k / (float)l.tries * step;
            level_try<S>(l, b, (side ? -first : first) / extreme, &best, &s);
        }
    for (int k = 0; k < l.refinements; ++k) level_try<S>(l, b, v_reciprocal(s), &best, &s);
    return s;
}

template <int S> static inline void put_levels(const Layout &l, const Batch<S> &b, V8 inverse, uint8_t *codes) {
    for (int i = 0; i < S; ++i) {
        V8 level = nearest(l, inverse * b.x[i]);
        if (l.table) {
            I8 index = {0};
            for (int t = 1; t < 16; ++t) index -= (level >= l.table[t]);
            level = __builtin_convertvector(index, V8);
        } else level = level + (float)l.zero;
        put_codes<S>(level, i, codes);
    }
}

template <int S> static void level_block(const Layout &l, const float *x, Block *out) {
    Batch<S> batches[MAX_BATCHES];
    V8 scale[MAX_BATCHES];
    const int count = l.groups / 8;
    float high = 0, low = 0;
    for (int n = 0; n < count; ++n) {
        scale[n] = level_scales<S>(l, batches[n], x + n * 8 * S);
        for (int g = 0; g < 8; ++g) high = scale[n][g] > high ? scale[n][g] : high, low = scale[n][g] < low ? scale[n][g] : low;
    }
    out->d = to_half((high > -low ? high : low) / -(float)l.bias);
    const V8 bottom = v_set(-(float)l.bias), top = v_set((float)(l.bias - 1)), d = v_set(bw_from_half(out->d)), inverse = v_reciprocal(d);
    for (int n = 0; n < count; ++n) {
        const Batch<S> &b = batches[n];
        const V8 first = v_clamp(v_rint(scale[n] * inverse), bottom, top);
        V8 best = v_set(__builtin_inff()), kept = first;
        for (int move = 0; move < 3; ++move) {
            const V8 trial = v_clamp(first + (move == 0 ? 0.0f : move == 1 ? -1.0f : 1.0f), bottom, top), s = d * trial, is = v_reciprocal(s);
            V8 error = v_set(0);
            for (int i = 0; i < S; ++i) {
                const V8 off = s * nearest(l, is * b.x[i]) - b.x[i];
                error = error + b.w[i] * off * off;
            }
            const I8 better = error < best;
            best = v_pick(better, error, best), kept = v_pick(better, trial, kept);
        }
        put_levels<S>(l, b, v_reciprocal(d * kept), out->fields[CODES] + n * 8 * S);
        put_codes<1>(l.sign == 2 ? kept : kept - bottom, 0, out->fields[SCALES] + n * 8);
    }
}

// Eight blocks of one group each (iq4_nl).
static void level_blocks8(const Layout &l, const float *x, int count, uint8_t *to) {
    float padded[8 * 32] = {0};
    std::memcpy(padded, x, count * 32 * sizeof(float));
    Batch<32> b;
    V8 d = level_scales<32>(l, b, padded);
    bw_u16 halves[8];
    for (int g = 0; g < 8; ++g) halves[g] = to_half(d[g]), d[g] = bw_from_half(halves[g]);
    uint8_t codes[8 * 32];
    put_levels<32>(l, b, v_reciprocal(d), codes);
    for (int g = 0; g < count; ++g) {
        Block out;
        std::memcpy(out.fields[CODES], codes + g * 32, 32);
        out.d = halves[g];
        put(l, out, to + g * l.nbytes);
    }
}

// q4_0 to q8_0: codes from the range alone, exactly as ggml's reference makes them (block_reference.quantize_plain). Their
// bytes end with the codes: a byte each, or nibbles after a word of the fifth bits.
static void plain_block(const Layout &l, const float *x, uint8_t *out) {
    V8 v[4];
    I8 code[4];
    std::memcpy(v, x, sizeof v);
    float d, lo = 0, shift = 0.5f;
    const float top = (float)((1 << l.bits) - 1);
    if (l.affine) {
        lo = least(v_min(v_min(v[0], v[1]), v_min(v[2], v[3]))) + 0.0f; // -0 becomes 0
        d = (-least(v_min(v_min(-v[0], -v[1]), v_min(-v[2], -v[3]))) - lo) / top + 0.0f;
    } else {
        I8 magnitude[4];
        for (int i = 0; i < 4; ++i) magnitude[i] = (I8)v_abs(v[i]);
        const float most = largest(i_max(i_max(magnitude[0], magnitude[1]), i_max(magnitude[2], magnitude[3])));
        if (l.sign == 1) d = most / 127.0f;
        else {
            uint32_t extremes = 0;
            for (int i = 0; i < 4; ++i) extremes |= top_bits((I8)(v_abs(v[i]) == most)) << (8 * i);
            const int at = extremes ? __builtin_ctz(extremes) : 0; // the first
            d = x[at] / -(float)l.zero, shift = (float)l.zero + 0.5f;
        }
    }
    const float inverse = reciprocal(d);
    for (int i = 0; i < 4; ++i) {
        V8 scaled = l.affine ? (v[i] - lo) * inverse : v[i] * inverse;
        if (l.sign == 1) scaled = scaled + (V8)((I8)v_set(0.5f) | ((I8)scaled & (I8)v_set(-0.0f)));
        else scaled = v_min(scaled + shift, v_set(top));
        code[i] = __builtin_convertvector(scaled, I8); // towards zero
    }
    const bw_u16 half = bw_to_half((double)d), minimum = l.affine ? bw_to_half((double)lo) : 0;
    std::memcpy(out + l.d, &half, 2);
    if (l.affine) std::memcpy(out + l.m, &minimum, 2);
    if (l.sign == 1) {
        for (int i = 0; i < 4; ++i) put_bytes(code[i] & 255, out + l.nbytes - 32 + 8 * i);
        return;
    }
    if (l.bits == 5) {
        uint32_t word = 0;
        for (int i = 0; i < 4; ++i) word |= top_bits(code[i] << 27) << (8 * i);
        std::memcpy(out + l.nbytes - 20, &word, 4);
    }
    for (int i = 0; i < 2; ++i) put_nibbles(code[i] & 15, code[i + 2] & 15, out + l.nbytes - 16 + 8 * i);
}

// Blocks of any type.
void blocks_quantize(const float *x, int64_t count, const int32_t *spec, const float *table, uint8_t *out) {
    const Layout l = layout_of(spec, table);
    const bool wide = l.block / l.groups == 32;
    Block b;
    if (l.groups == 1 && !table) {
        for (int64_t n = 0; n < count; ++n) plain_block(l, x + n * 32, out + n * l.nbytes);
        return;
    }
    if (l.groups == 1) {
        for (int64_t n = 0; n < count; n += 8) level_blocks8(l, x + n * 32, count - n < 8 ? (int)(count - n) : 8, out + n * l.nbytes);
        return;
    }
    for (int64_t n = 0; n < count; ++n) {
        const float *from = x + n * l.block;
        if (l.affine) wide ? affine_block<32>(l, from, &b) : affine_block<16>(l, from, &b);
        else wide ? level_block<32>(l, from, &b) : level_block<16>(l, from, &b);
        put(l, b, out + n * l.nbytes);
    }
}
