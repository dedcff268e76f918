// ---- round to nearest, one group: range, parameters, codes, correction (quantizers/rtn.py is the truth) ---------------
// Smallest and largest of x and zero; false: NaN or infinity. Read as integers, the largest signed word is the largest
// number unless all are negative, and the largest unsigned word the smallest number unless none is: two comparisons a
// number, and words beyond infinity end up on top.
static inline bool range_of(const float *x, int64_t n, float *low, float *high) {
    int32_t most = 0;
    uint32_t least = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        most = (int32_t)bits > most ? (int32_t)bits : most;
        least = bits > least ? bits : least;
    }
    bw_float_bits lo, hi;
    hi.u = (uint32_t)most;
    lo.u = least >> 31 ? least : 0;
    *low = lo.f;
    *high = hi.f;
    return hi.u < 0x7f800000u && (lo.u & 0x7fffffffu) < 0x7f800000u;
}

static inline bw_u16 unshrunk(const float *x, const uint8_t *codes, int64_t n, float inverse, float zero, bw_u16 scale) {
    bw_i64 along = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        const bw_i64 fine = bw_fine(x[i], inverse), step = codes[i] - (int)zero;
        along += fine * step;
        norm += fine * fine;
    }
    return bw_corrected(along, norm, scale);
}

// One group; 0 ok, 1 NaN or infinity, 2 the scale does not fit float16.
static inline int rtn_group(const float *x, int64_t n, int bits, int symmetric, int correct, uint8_t *codes, bw_u16 *scale, uint8_t *zero_point) {
    float low, high;
    if (!range_of(x, n, &low, &high)) return 1;
    float zero;
    if (!bw_group_parameters(low, high, bits, symmetric, scale, &zero)) return 2;
    const float inverse = 1.0f / bw_from_half(*scale);
    quantize_run<F32>(x, n, inverse, zero, (float)((1 << bits) - 1), codes);
    if (symmetric) {
        if (correct) *scale = unshrunk(x, codes, n, inverse, zero, *scale);
        return 0;
    }
    *zero_point = (uint8_t)(int)zero;
    return 0;
}
