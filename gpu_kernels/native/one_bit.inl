// ---- one bit: round to nearest with a least-squares scale, and signs (quantizers/rtn.py is the truth) -----------------
typedef double D4 __attribute__((vector_size(32)));
typedef int64_t L4 __attribute__((vector_size(32)));
enum { ASYMMETRIC, SYMMETRIC, SIGN };

// Eight columns of `size` numbers, a power of two, in rising order each: Batcher's bitonic network (Knuth 5.3.4).
static void sort_columns(V8 *t, int64_t size) {
    for (int64_t run = 2; run <= size; run *= 2)
        for (int64_t step = run / 2; step; step /= 2)
            for (int64_t base = 0; base < size; base += 2 * step) {
                const bool down = base & run;
                for (int64_t i = base; i < base + step; ++i) {
                    const V8 low = v_min(t[i], t[i + step]), high = v_max(t[i], t[i + step]);
                    t[i] = down ? high : low, t[i + step] = down ? low : high;
                }
            }
}
// Of the k largest magnitudes of one side, for the k that makes (sum)^2 / k largest: that and their mean.
static void best_side(const V8 *t, int64_t size, const double *inverse, bool below, double *gain, float *mean) {
    D4 total[2] = {}, best[2], best_total[2] = {};
    L4 at[2] = {};
    for (int h = 0; h < 2; ++h) best[h] = D4{-1, -1, -1, -1};
    for (int64_t k = 0; k < size; ++k) {
        const V8 v = below ? v_max(-t[k], v_set(0)) : v_max(t[size - 1 - k], v_set(0));
        bool any = false;
        for (int h = 0; h < 2; ++h) {
            const D4 wide = {v[4 * h], v[4 * h + 1], v[4 * h + 2], v[4 * h + 3]};
            total[h] = total[h] + wide;
            const D4 found = total[h] * total[h] * inverse[k];
            const L4 better = found > best[h];
            best[h] = (D4)((better & (L4)found) | (~better & (L4)best[h]));
            best_total[h] = (D4)((better & (L4)total[h]) | (~better & (L4)best_total[h]));
            at[h] = (better & k) | (~better & at[h]);
            for (int i = 0; i < 4; ++i) any |= wide[i] > 0;
        }
        if (!any) break; // the rest is of the other side
    }
    for (int g = 0; g < 8; ++g) {
        gain[g] = best[g / 4][g % 4];
        mean[g] = (float)(best_total[g / 4][g % 4] / (double)(at[g / 4][g % 4] + 1));
    }
}
// As reference_quantize.lane_sum, of magnitudes.
static float magnitude_sum(const float *x, int64_t n) {
    double total = 0;
    for (int64_t base = 0; base < n; base += 1024) {
        const int64_t stop = base + 1024 < n ? base + 1024 : n;
        V8 l[2] = {};
        int64_t i = base;
        for (; i + 16 <= stop; i += 16) l[0] = l[0] + v_abs(v_load(x + i)), l[1] = l[1] + v_abs(v_load(x + i + 8));
        for (int k = 0; i < stop; ++i, ++k) l[k / 8][k % 8] += x[i] < 0 ? -x[i] : x[i];
        const V8 t = l[0] + l[1];
        total += (double)(((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7])));
    }
    return (float)total;
}
// Signed least-squares scales of `count` <= 8 groups side by side in `x`, each of `group` numbers, the last of `n`.
static void one_bit_scales(const float *x, int count, int64_t group, int64_t n, V8 *room, int64_t size, const double *inverse, float *scale) {
    float *t = (float *)room;
    std::memset(t, 0, size * sizeof(V8));
    for (int g = 0; g < count; ++g)
        for (int64_t i = 0, last = g + 1 < count ? group : n; i < last; ++i) t[8 * i + g] = x[g * group + i];
    sort_columns(room, size);
    double gain[2][8];
    float mean[2][8];
    for (int side = 0; side < 2; ++side) best_side(room, size, inverse, side == 0, gain[side], mean[side]);
    for (int g = 0; g < count; ++g) {
        scale[g] = gain[0][g] > 0 ? -mean[0][g] : 0.0f;
        if (gain[1][g] > (gain[0][g] > 0 ? gain[0][g] : 0)) scale[g] = mean[1][g];
    }
}

// Rows of one bit; kind: ASYMMETRIC, SYMMETRIC or SIGN. 0, 1 NaN or infinity, 2 a scale that does not fit half.
template <class T>
static int one_bit_rows(const typename T::type *data, int64_t rows, int64_t columns, int64_t group, int kind, uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group, largest_group = group < columns ? group : columns;
    int64_t size = 1;
    while (size < largest_group) size *= 2;
    std::vector<V8> room(kind == SIGN ? 0 : size);
    std::vector<double> inverse(room.size());
    for (size_t k = 0; k < inverse.size(); ++k) inverse[k] = 1.0 / (double)(k + 1);
    std::vector<float> x(columns), signed_scale(groups);
    std::vector<uint8_t> codes(columns + 32);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < columns; ++i) x[i] = T::one(data + r * columns + i);
        if (!(absmax(x.data(), columns) <= 3.402823466e38f)) return 1;
        for (int64_t first = 0; first < groups && kind != SIGN; first += 8) {
            const int64_t count = groups - first < 8 ? groups - first : 8, end = (first + count) * group;
            one_bit_scales(x.data() + first * group, (int)count, group, end <= columns ? group : columns - (first + count - 1) * group, room.data(), size, inverse.data(), signed_scale.data() + first);
        }
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = g * group, n = at + group < columns ? group : columns - at, to = r * groups + g;
            const float s = kind == SIGN ? magnitude_sum(x.data() + at, n) / (float)n : signed_scale[g];
            if (!bw_half_scale(kind == SYMMETRIC ? 0.0f - s : s < 0 ? -s : s, scales + to)) return 2;
            if (kind == SIGN) {
                for (int64_t i = 0; i < n; ++i) codes[at + i] = x[at + i] >= 0;
                continue;
            }
            const float zero = kind == SYMMETRIC || s < 0 ? 1.0f : 0.0f, unit = 1.0f / bw_from_half(scales[to]);
            if (kind == ASYMMETRIC) zeros[to] = (uint8_t)zero;
            quantize_run<F32>(x.data() + at, n, unit, zero, 1.0f, codes.data() + at);
            scales[to] = unshrunk(x.data() + at, codes.data() + at, n, unit, zero, scales[to], false);
        }
        pack_row<1>(codes.data(), columns, out + r * nbytes, nbytes);
    }
    return 0;
}
