// Row kernels, compiled twice: once plain (BW_NAMESPACE scalar), once with AVX2 and F16C (BW_AVX2 defined).
// Both must give the same bytes; tests compare each with numpy.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core.h"
#if defined(BW_AVX2)
#include <immintrin.h>
#endif
// Left to itself the compiler keeps some of these as calls, with their sums in memory: twice the time.
#define BW_INLINE inline __attribute__((always_inline))

namespace BW_NAMESPACE {

#include "stream.inl"
#include "floats.inl"
#include "rtn.inl"
#include "lanes.inl"
#include "panel.inl"
#include "blocks.inl"
#include "small.inl"
#include "one_bit.inl"

// ---- rows: the entry points of one build ---------------------------------------------------------------------------
static const int64_t CHUNK = 8192; // codes held between two steps: 8 KB, in the first-level cache

template <int B> static int pack_rows(const uint8_t *codes, int64_t rows, int64_t columns, uint8_t *out, int64_t nbytes) {
    uint32_t seen = 0;
    for (int64_t r = 0; r < rows; ++r) seen |= pack_row<B>(codes + r * columns, columns, out + r * nbytes, nbytes);
    return seen >> B ? 1 : 0;
}
template <int B> static void unpack_rows(const uint8_t *in, int64_t rows, int64_t columns, uint8_t *codes, int64_t nbytes) {
    for (int64_t r = 0; r < rows; ++r) unpack_row<B>(in + r * nbytes, nbytes, codes + r * columns, columns);
}

template <class T, int B>
static void quantize_rows(const void *data, int64_t rows, int64_t columns, int64_t group, const float *inverse, const float *zero, uint8_t *out, int64_t nbytes) {
    alignas(32) uint8_t codes[CHUNK + 32];
    const int64_t groups = (columns + group - 1) / group;
    for (int64_t r = 0; r < rows; ++r) {
        const typename T::type *x = (const typename T::type *)data + r * columns;
        for (int64_t start = 0; start < columns; start += CHUNK) {
            const int64_t stop = start + CHUNK < columns ? start + CHUNK : columns;
            for (int64_t at = start; at < stop;) {
                const int64_t g = at / group, end = (g + 1) * group < stop ? (g + 1) * group : stop;
                quantize_run<T>(x + at, end - at, inverse[r * groups + g], zero[r * groups + g], (float)((1 << B) - 1), codes + (at - start));
                at = end;
            }
            const int64_t offset = start / 32 * 4 * B, last = stop == columns ? nbytes : stop / 32 * 4 * B;
            pack_row<B>(codes, stop - start, out + r * nbytes + offset, last - offset);
        }
    }
}

template <int B>
static void dequantize_rows(const uint8_t *in, int64_t rows, int64_t columns, int64_t group, const bw_u16 *scales, const uint8_t *zeros, float *out, int64_t nbytes) {
    alignas(32) uint8_t codes[CHUNK + 32];
    const int64_t groups = (columns + group - 1) / group;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t start = 0; start < columns; start += CHUNK) {
            const int64_t stop = start + CHUNK < columns ? start + CHUNK : columns;
            const int64_t offset = start / 32 * 4 * B;
            unpack_row<B>(in + r * nbytes + offset, nbytes - offset, codes, stop - start);
            for (int64_t at = start; at < stop;) {
                const int64_t g = at / group, end = (g + 1) * group < stop ? (g + 1) * group : stop;
                const float zero = zeros ? (float)zeros[r * groups + g] : (float)(1 << (B - 1));
                dequantize_run(codes + (at - start), end - at, zero, bw_from_half(scales[r * groups + g]), out + r * columns + at);
                at = end;
            }
        }
}

#define BW_BITS(CALL) \
    switch (bits) { \
    case 1: CALL(1); break; \
    case 2: CALL(2); break; \
    case 3: CALL(3); break; \
    case 4: CALL(4); break; \
    case 5: CALL(5); break; \
    case 6: CALL(6); break; \
    case 7: CALL(7); break; \
    case 8: CALL(8); break; \
    }

int pack(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint8_t *out, int64_t nbytes) {
#define CALL(B) return pack_rows<B>(codes, rows, columns, out, nbytes)
    BW_BITS(CALL)
#undef CALL
    return 2;
}
void unpack(const uint8_t *in, int64_t rows, int64_t columns, int bits, uint8_t *codes, int64_t nbytes) {
#define CALL(B) unpack_rows<B>(in, rows, columns, codes, nbytes)
    BW_BITS(CALL)
#undef CALL
}
void quantize(const void *x, int type, int64_t rows, int64_t columns, int64_t group, int bits, const float *inverse, const float *zero, uint8_t *out, int64_t nbytes) {
#define CALL(B) \
    type == 0 ? quantize_rows<F32, B>(x, rows, columns, group, inverse, zero, out, nbytes) \
              : type == 1 ? quantize_rows<F16, B>(x, rows, columns, group, inverse, zero, out, nbytes) \
                          : quantize_rows<BF16, B>(x, rows, columns, group, inverse, zero, out, nbytes)
    BW_BITS(CALL)
#undef CALL
}
void dequantize(const uint8_t *in, int64_t rows, int64_t columns, int64_t group, int bits, const bw_u16 *scales, const uint8_t *zeros, float *out, int64_t nbytes) {
#define CALL(B) dequantize_rows<B>(in, rows, columns, group, scales, zeros, out, nbytes)
    BW_BITS(CALL)
#undef CALL
}
// Codes as bytes back to floats.
void expand(const uint8_t *codes, int64_t rows, int64_t columns, int64_t group, int bits, const bw_u16 *scales, const uint8_t *zeros, float *out) {
    const int64_t groups = (columns + group - 1) / group;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = r * columns + g * group, n = (g + 1) * group < columns ? group : columns - g * group;
            const float zero = zeros ? (float)zeros[r * groups + g] : (float)(1 << (bits - 1));
            dequantize_run(codes + at, n, zero, bw_from_half(scales[r * groups + g]), out + at);
        }
}
// 16-bit floats to float32; type 1 half, 2 bfloat16.
void widen(const void *x, int type, int64_t n, float *out) {
    if (type == 1) widen_all<F16>((const bw_u16 *)x, n, out);
    else widen_all<BF16>((const bw_u16 *)x, n, out);
}
int rtn(const float *x, int64_t rows, int64_t columns, int64_t group, int bits, int symmetric, int correct, uint8_t *codes, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group;
    uint8_t unused;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = r * columns + g * group, n = (g + 1) * group < columns ? group : columns - g * group;
            const int status = rtn_group(x + at, n, bits, symmetric, correct, codes + at, scales + r * groups + g, zeros ? zeros + r * groups + g : &unused);
            if (status) return status;
        }
    return 0;
}

// Round to nearest straight to packed rows; a row of floats and its codes stay in the cache.
template <class T, int B>
static int rtn_pack_rows(const void *data, int64_t rows, int64_t columns, int64_t group, int symmetric, int correct, uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros) {
    const int64_t groups = (columns + group - 1) / group;
    if (B == 1) return one_bit_rows<T>((const typename T::type *)data, rows, columns, group, symmetric, out, nbytes, scales, zeros);
#if defined(BW_AVX2)
    // Positions in fine steps fit the 16 bits of a panel up to 4 bits: wider formats are not corrected by anyone yet.
    if (columns % group == 0 && group % 32 == 0 && !(symmetric && correct && B > 4)) {
        const typename T::type *x = (const typename T::type *)data;
        if (symmetric && correct) return panels<T, B, (B <= 4)>(x, rows * groups, group, true, out, scales, zeros);
        return panels<T, B, false>(x, rows * groups, group, symmetric, out, scales, zeros);
    }
#endif
    std::vector<float> wide(columns);
    std::vector<uint8_t> codes(columns + 32);
    uint8_t unused;
    for (int64_t r = 0; r < rows; ++r) {
        const typename T::type *x = (const typename T::type *)data + r * columns;
        const float *from = floats_of<T>(x, columns, wide.data());
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t n = (g + 1) * group < columns ? group : columns - g * group;
            const int status = rtn_group(from + g * group, n, B, symmetric, correct, codes.data() + g * group, scales + r * groups + g, zeros ? zeros + r * groups + g : &unused);
            if (status) return status;
        }
        pack_row<B>(codes.data(), columns, out + r * nbytes, nbytes);
    }
    return 0;
}
int rtn_pack(const void *x, int type, int64_t rows, int64_t columns, int64_t group, int bits, int symmetric, int correct, uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros) {
#define CALL(B) \
    return type == 0 ? rtn_pack_rows<F32, B>(x, rows, columns, group, symmetric, correct, out, nbytes, scales, zeros) \
         : type == 1 ? rtn_pack_rows<F16, B>(x, rows, columns, group, symmetric, correct, out, nbytes, scales, zeros) \
                     : rtn_pack_rows<BF16, B>(x, rows, columns, group, symmetric, correct, out, nbytes, scales, zeros)
    BW_BITS(CALL)
#undef CALL
    return 3;
}

// Sum over 32-bit words w[i] * (2 i + 1), modulo 2^64: any change of one word changes it.
uint64_t checksum(const uint8_t *data, int64_t words) {
    uint64_t sum = 0;
    int64_t i = 0;
#if defined(BW_AVX2)
    __m256i even = _mm256_setzero_si256(), odd = even;
    __m256i me = _mm256_setr_epi32(1, 0, 5, 0, 9, 0, 13, 0), mo = _mm256_setr_epi32(3, 0, 7, 0, 11, 0, 15, 0);
    const __m256i step = _mm256_setr_epi32(16, 0, 16, 0, 16, 0, 16, 0);
    for (; i + 8 <= words; i += 8) { // multipliers wrap modulo 2^32, as below
        const __m256i v = _mm256_loadu_si256((const __m256i *)(data + 4 * i));
        even = _mm256_add_epi64(even, _mm256_mul_epu32(v, me));
        odd = _mm256_add_epi64(odd, _mm256_mul_epu32(_mm256_srli_epi64(v, 32), mo));
        me = _mm256_add_epi32(me, step);
        mo = _mm256_add_epi32(mo, step);
    }
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256((__m256i *)lanes, _mm256_add_epi64(even, odd));
    for (int k = 0; k < 4; ++k) sum += lanes[k];
#endif
    for (; i < words; ++i) {
        uint32_t w;
        std::memcpy(&w, data + 4 * i, 4);
        sum += (uint64_t)w * (uint32_t)(2 * i + 1);
    }
    return sum;
}

} // namespace BW_NAMESPACE
