// The C interface. Buffers are checked by the caller (gpu_kernels/library.py); fast: 0 asks for the scalar build, 1 for the
// best that the processor has, 2 for AVX2 at most.
#include <cstdint>
#include <cstdlib>
#include <cstring>

typedef unsigned short bw_u16;
#define DECLARE \
    int pack(const uint8_t *, int64_t, int64_t, int, uint8_t *, int64_t); \
    void unpack(const uint8_t *, int64_t, int64_t, int, uint8_t *, int64_t); \
    void quantize(const void *, int, int64_t, int64_t, int64_t, int, const float *, const float *, uint8_t *, int64_t); \
    void dequantize(const uint8_t *, int64_t, int64_t, int64_t, int, const bw_u16 *, const uint8_t *, float *, int64_t); \
    void expand(const uint8_t *, int64_t, int64_t, int64_t, int, const bw_u16 *, const uint8_t *, float *); \
    void widen(const void *, int, int64_t, float *); \
    int rtn(const float *, int64_t, int64_t, int64_t, int, int, int, uint8_t *, bw_u16 *, uint8_t *); \
    int rtn_pack(const void *, int, int64_t, int64_t, int64_t, int, int, int, uint8_t *, int64_t, bw_u16 *, uint8_t *); \
    uint64_t checksum(const uint8_t *, int64_t); \
    void blocks_quantize(const float *, int64_t, const int32_t *, const float *, uint8_t *); \
    void blocks_dequantize(const uint8_t *, int64_t, const int32_t *, const float *, float *); \
    float absmax(const float *, int64_t); \
    void small_quantize(const float *, int64_t, int64_t, int, int64_t, int64_t, const float *, float *, uint8_t *); \
    void small_dequantize(const uint8_t *, int64_t, int64_t, int, int64_t, int64_t, const float *, const float *, float *);
namespace bw_scalar { DECLARE }
#if defined(__x86_64__)
namespace bw_avx2 { DECLARE }
namespace bw_avx512 { DECLARE }
#endif

enum { SCALAR, AVX2, AVX512 };
static int find_level() {
#if defined(__x86_64__)
    const char *named = std::getenv("BITWRIGHT_NATIVE");
    if ((named && !std::strcmp(named, "scalar")) || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("f16c")) return SCALAR;
    if (named && !std::strcmp(named, "avx2")) return AVX2;
    const bool more = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return more ? AVX512 : AVX2;
#else
    return SCALAR;
#endif
}
static int level() {
    static const int found = find_level();
    return found;
}

#if defined(__x86_64__)
#define DISPATCH(CALL) \
    (!fast || level() == SCALAR ? bw_scalar::CALL : fast == 1 && level() == AVX512 ? bw_avx512::CALL : bw_avx2::CALL)
#else
#define DISPATCH(CALL) ((void)fast, bw_scalar::CALL)
#endif

extern "C" {
int bw_abi() { return 9; }
int bw_level() { return level(); }

int bw_pack(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint8_t *out, int64_t nbytes, int fast) {
    return DISPATCH(pack(codes, rows, columns, bits, out, nbytes));
}
void bw_unpack(const uint8_t *in, int64_t rows, int64_t columns, int bits, uint8_t *codes, int64_t nbytes, int fast) {
    DISPATCH(unpack(in, rows, columns, bits, codes, nbytes));
}
void bw_quantize(const void *x, int type, int64_t rows, int64_t columns, int64_t group, int bits, const float *inverse,
                 const float *zero, uint8_t *out, int64_t nbytes, int fast) {
    DISPATCH(quantize(x, type, rows, columns, group, bits, inverse, zero, out, nbytes));
}
void bw_dequantize(const uint8_t *in, int64_t rows, int64_t columns, int64_t group, int bits, const bw_u16 *scales,
                   const uint8_t *zeros, float *out, int64_t nbytes, int fast) {
    DISPATCH(dequantize(in, rows, columns, group, bits, scales, zeros, out, nbytes));
}
void bw_expand(const uint8_t *codes, int64_t rows, int64_t columns, int64_t group, int bits, const bw_u16 *scales,
               const uint8_t *zeros, float *out, int fast) {
    DISPATCH(expand(codes, rows, columns, group, bits, scales, zeros, out));
}
void bw_widen(const void *x, int type, int64_t n, float *out, int fast) {
    DISPATCH(widen(x, type, n, out));
}
int bw_rtn(const float *x, int64_t rows, int64_t columns, int64_t group, int bits, int symmetric, int correct,
           uint8_t *codes, bw_u16 *scales, uint8_t *zeros, int fast) {
    return DISPATCH(rtn(x, rows, columns, group, bits, symmetric, correct, codes, scales, zeros));
}
void bw_blocks_quantize(const float *x, int64_t count, const int32_t *spec, const float *table, uint8_t *out, int fast) {
    DISPATCH(blocks_quantize(x, count, spec, table, out));
}
void bw_blocks_dequantize(const uint8_t *in, int64_t count, const int32_t *spec, const float *table, float *out, int fast) {
    DISPATCH(blocks_dequantize(in, count, spec, table, out));
}
float bw_absmax(const float *x, int64_t n, int fast) { return DISPATCH(absmax(x, n)); }
void bw_small_quantize(const float *x, int64_t rows, int64_t columns, int kind, int64_t block, int64_t block_bytes,
                       const float *table, float *outer, uint8_t *out, int fast) {
    DISPATCH(small_quantize(x, rows, columns, kind, block, block_bytes, table, outer, out));
}
void bw_small_dequantize(const uint8_t *in, int64_t rows, int64_t columns, int kind, int64_t block, int64_t block_bytes,
                         const float *table, const float *outer, float *out, int fast) {
    DISPATCH(small_dequantize(in, rows, columns, kind, block, block_bytes, table, outer, out));
}
int bw_rtn_pack(const void *x, int type, int64_t rows, int64_t columns, int64_t group, int bits, int symmetric, int correct,
                uint8_t *out, int64_t nbytes, bw_u16 *scales, uint8_t *zeros, int fast) {
    return DISPATCH(rtn_pack(x, type, rows, columns, group, bits, symmetric, correct, out, nbytes, scales, zeros));
}
uint64_t bw_checksum(const uint8_t *data, int64_t words, int fast) { return DISPATCH(checksum(data, words)); }
}
