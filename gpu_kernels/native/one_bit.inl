// ---- one bit: round to nearest with a least-squares scale, and signs (quantizers/rtn.py is the truth) -----------------
typedef double D4 __attribute__((vector_size(32)));
typedef int64_t L4 __attribute__((vector_size(32)));
enum { ASYMMETRIC, SYMMETRIC, SIGN };

template <bool DOWN> static BW_INLINE void exchange(V8 &a, V8 &b) {
    const V8 low = v_min(a, b), high = v_max(a, b);
    a = DOWN ? high : low, b = DOWN ? low : high;
}
// The last three steps of a run, and a first run of eight.
template <bool DOWN> static BW_INLINE void merge_eight(V8 *t) {
    for (int i = 0; i < 4; ++i) exchange<DOWN>(t[i], t[i + 4]);
    for (int i : {0, 1, 4, 5}) exchange<DOWN>(t[i], t[i + 2]);
    for (int i = 0; i < 8; i += 2) exchange<DOWN>(t[i], t[i + 1]);
}
static BW_INLINE void sort_eight(V8 *t, bool down) {
    exchange<false>(t[0], t[1]), exchange<true>(t[2], t[3]), exchange<false>(t[4], t[5]), exchange<true>(t[6], t[7]);
    for (int i = 0; i < 2; ++i) exchange<false>(t[i], t[i + 2]), exchange<true>(t[i + 4], t[i + 6]);
    for (int i = 0; i < 4; i += 2) exchange<false>(t[i], t[i + 1]), exchange<true>(t[i + 4], t[i + 5]);
    if (down) merge_eight<true>(t);
    else merge_eight<false>(t);
}
template <bool DOWN> static BW_INLINE void merge_run(V8 *t, int64_t run) {
    int64_t step = run / 2;
    for (; step >= 16; step /= 4) // two steps at a time
        for (int64_t base = 0; base < run; base += 2 * step)
            for (int64_t i = base; i < base + step / 2; ++i) {
                V8 a = t[i], b = t[i + step / 2], c = t[i + step], d = t[i + step + step / 2];
                exchange<DOWN>(a, c), exchange<DOWN>(b, d), exchange<DOWN>(a, b), exchange<DOWN>(c, d);
                t[i] = a, t[i + step / 2] = b, t[i + step] = c, t[i + step + step / 2] = d;
            }
    if (step == 8)
        for (int64_t base = 0; base < run; base += 16)
            for (int64_t i = base; i < base + 8; ++i) exchange<DOWN>(t[i], t[i + 8]);
    for (int64_t base = 0; base < run; base += 8) merge_eight<DOWN>(t + base);
}
// Eight columns of `size` numbers, a power of two of at least 8, in rising order each: Batcher's bitonic network (Knuth
// 5.3.4).
static void sort_columns(V8 *t, int64_t size) {
    for (int64_t base = 0; base < size; base += 8) sort_eight(t + base, base & 8);
    for (int64_t run = 16; run <= size; run *= 2)
        for (int64_t base = 0; base < size; base += run) {
            if (base & run) merge_run<true>(t + base, run);
            else merge_run<false>(t + base, run);
        }
}
// Of the k largest magnitudes of one side, for the k that makes (sum)^2 / k largest: that and their mean.
static void best_side(const V8 *t, int64_t size, const double *inverse, bool below, double *gain, float *mean) {
    D4 total[2] = {}, best[2], best_total[2] = {};
    L4 at[2] = {};
    for (int h = 0; h < 2; ++h) best[h] = D4{-1, -1, -1, -1};
    for (int64_t k = 0; k < size; ++k) {
        const V8 v = below ? v_max(-t[k], v_set(0)) : v_max(t[size - 1 - k], v_set(0));
        if (!top_bits(v > v_set(0))) break; // the rest is of the other side
        for (int h = 0; h < 2; ++h) {
            const D4 wide = {v[4 * h], v[4 * h + 1], v[4 * h + 2], v[4 * h + 3]};
            total[h] = total[h] + wide;
            const D4 found = total[h] * total[h] * inverse[k];
            const L4 better = found > best[h];
            best[h] = (D4)((better & (L4)found) | (~better & (L4)best[h]));
            best_total[h] = (D4)((better & (L4)total[h]) | (~better & (L4)best_total[h]));
            at[h] = (better & k) | (~better & at[h]);
        }
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
        V8 even = {}, odd = {};
        int64_t i = base;
        for (; i + 16 <= stop; i += 16) even = even + v_abs(v_load(x + i)), odd = odd + v_abs(v_load(x + i + 8));
        if (i < stop) { // adding zeros changes nothing
            float rest[16] = {0};
            std::memcpy(rest, x + i, (stop - i) * sizeof(float));
            even = even + v_abs(v_load(rest)), odd = odd + v_abs(v_load(rest + 8));
        }
        total += (double)sum8(even + odd);
    }
    return (float)total;
}
// Signed least-squares scales of `count` <= 8 groups side by side in `x`, each of `group` numbers, the last of `n`.
static void one_bit_scales(const float *x, int count, int64_t group, int64_t n, V8 *room, int64_t size, const double *inverse, float *scale) {
    float *t = (float *)room;
    std::memset(t, 0, size * sizeof(V8));
    int64_t done = 0;
#if defined(BW_AVX2)
    for (; count == 8 && done + 8 <= n; done += 8) {
        __m256 a[8], b[8];
        for (int g = 0; g < 8; ++g) a[g] = _mm256_loadu_ps(x + g * group + done);
        for (int g = 0; g < 8; g += 2) b[g] = _mm256_unpacklo_ps(a[g], a[g + 1]), b[g + 1] = _mm256_unpackhi_ps(a[g], a[g + 1]);
        for (int g = 0; g < 8; g += 4)
            for (int k = 0; k < 2; ++k) {
                a[g + 2 * k] = _mm256_shuffle_ps(b[g + k], b[g + 2 + k], 0x44);
                a[g + 2 * k + 1] = _mm256_shuffle_ps(b[g + k], b[g + 2 + k], 0xee);
            }
        for (int i = 0; i < 4; ++i) {
            room[done + i] = (V8)_mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
            room[done + 4 + i] = (V8)_mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
        }
    }
#endif
    for (int g = 0; g < count; ++g)
        for (int64_t i = done, last = g + 1 < count ? group : n; i < last; ++i) t[8 * i + g] = x[g * group + i];
    sort_columns(room, size);
    double gain[2][8];
    float mean[2][8];
    for (int side = 0; side < 2; ++side) best_side(room, size, inverse, side == 0, gain[side], mean[side]);
    for (int g = 0; g < count; ++g) {
        scale[g] = gain[0][g] > 0 ? -mean[0][g] : 0.0f;
        if (gain[1][g] > (gain[0][g] > 0 ? gain[0][g] : 0)) scale[g] = mean[1][g];
    }
}

// unshrunk of a group whose scale s is the least-squares one. With k numbers at s, no side's j largest have a sum beyond
// s sqrt(j k), so the j-th is at most s sqrt(k / j), and all squares together at most 2 k (1 + log n) s^2: in fine steps,
// with a scale rounded down by a third, far below 2^31 for 128 numbers.
static bw_u16 unshrunk_one(const float *x, const uint8_t *codes, int64_t n, float inverse, float zero, bw_u16 scale) {
    if (n % 8 || n > 128) return unshrunk(x, codes, n, inverse, zero, scale, false);
    const float fine = inverse * BW_FINE;
    I8 along = {}, norm = {};
    for (int64_t i = 0; i < n; i += 8) {
        const I8 at = __builtin_convertvector(v_rint(v_load(x + i) * fine), I8);
        along += at * (take_bytes(codes + i) - (int)zero);
        norm += at * at;
    }
    bw_i64 a = 0, b = 0;
    for (int k = 0; k < 8; ++k) a += along[k], b += norm[k];
    return bw_corrected(a, b, scale, false);
}
// The signs of a row as bits, in bytes filled up with zeros.
static void sign_bits(const float *x, int64_t n, uint8_t *out, int64_t nbytes) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) out[i / 8] = (uint8_t)top_bits(v_load(x + i) >= v_set(0));
    if (i / 8 < nbytes) std::memset(out + i / 8, 0, nbytes - i / 8);
    for (; i < n; ++i) out[i / 8] = (uint8_t)(out[i / 8] | (x[i] >= 0) << i % 8);
}

// Rows of one bit; kind: ASYMMETRIC, SYMMETRIC or SIGN. 0, 1 NaN or infinity, 2 a scale that does not fit half.
template <class T>
static int one_bit_rows(const typename T::type *data, int64_t rows, int64_t columns, int64_t group, int kind, uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group, largest_group = group < columns ? group : columns;
    int64_t size = 8;
    while (size < largest_group) size *= 2;
    std::vector<V8> room(kind == SIGN ? 0 : size);
    std::vector<double> inverse(room.size());
    for (size_t k = 0; k < inverse.size(); ++k) inverse[k] = 1.0 / (double)(k + 1);
    std::vector<float> wide(columns), signed_scale(groups);
    std::vector<uint8_t> codes(columns + 32);
    for (int64_t r = 0; r < rows; ++r) {
        const float *x = floats_of<T>(data + r * columns, columns, wide.data());
        if (!(absmax(x, columns) <= 3.402823466e38f)) return 1;
        for (int64_t first = 0; first < groups && kind != SIGN; first += 8) {
            const int64_t count = groups - first < 8 ? groups - first : 8, end = (first + count) * group;
            one_bit_scales(x + first * group, (int)count, group, end <= columns ? group : columns - (first + count - 1) * group, room.data(), size, inverse.data(), signed_scale.data() + first);
        }
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = g * group, n = at + group < columns ? group : columns - at, to = r * groups + g;
            const float s = kind == SIGN ? magnitude_sum(x + at, n) / (float)n : signed_scale[g];
            if (!half_scale(kind == SYMMETRIC ? 0.0f - s : s < 0 ? -s : s, scales + to)) return 2;
            if (kind == SIGN) continue;
            const float zero = kind == SYMMETRIC || s < 0 ? 1.0f : 0.0f, unit = 1.0f / bw_from_half(scales[to]);
            if (kind == ASYMMETRIC) zeros[to] = (uint8_t)zero;
            quantize_run<F32>(x + at, n, unit, zero, 1.0f, codes.data() + at);
            scales[to] = unshrunk_one(x + at, codes.data() + at, n, unit, zero, scales[to]);
        }
        if (kind == SIGN) sign_bits(x, columns, out + r * nbytes, nbytes);
        else pack_row<1>(codes.data(), columns, out + r * nbytes, nbytes);
    }
    return 0;
}
