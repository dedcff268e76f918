// One block of columns of GPTQ, row by row in cache (quantizers/sweep.py says what it computes and is its reference).
// Rows are independent, so any share of them can be a call of its own; every operation is a plain double in fixed order.
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t TILE = 8;  // rows that share a row of U in the first-level cache

struct Block {
    double *work;          // (rows, stride), columns of the block start at work[0]; errors take the weights' place
    int64_t rows, stride, width;
    const double *upper;   // (width, ustride): the block's own part of U
    int64_t ustride;
    const double *scale, *zero, *top;  // (rows, groups)
    int64_t groups;
    const int64_t *of;     // (width): the group of every column
    uint8_t *codes;        // (rows, cstride)
    int64_t cstride;
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
void run(const Block &b) {
    for (int64_t base = 0; base < b.rows; base += TILE) {
        const int64_t end = std::min(base + TILE, b.rows);
        for (int64_t j = 0; j < b.width; ++j) {
            const double *u = b.upper + j * b.ustride;
            for (int64_t r = base; r < end; ++r) {
                double *w = b.work + r * b.stride;
                const int64_t at = r * b.groups + b.of[j];
                const double scale = b.scale[at], zero = b.zero[at];
                const double code = std::min(std::max(std::rint(w[j] / scale) + zero, 0.0), b.top[at]);
                const double error = (w[j] - (code - zero) * scale) / u[j];
                b.codes[r * b.cstride + j] = static_cast<uint8_t>(code);
                w[j] = error;
                for (int64_t k = j + 1; k < b.width; ++k) w[k] -= error * u[k];
            }
        }
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void bw_gptq_block(
    double *work, int64_t rows, int64_t stride, int64_t width, const double *upper, int64_t ustride,
    const double *scale, const double *zero, const double *top, int64_t groups, const int64_t *of, uint8_t *codes,
    int64_t cstride) {
    run({work, rows, stride, width, upper, ustride, scale, zero, top, groups, of, codes, cstride});
}
