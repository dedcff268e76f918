// One block of columns of GPTQ, row by row in cache (quantizers/sweep.py says what it computes and is its reference).
// Rows are independent, so they are shared out over threads; every operation is a plain double in a fixed order.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

struct Block {
    double *work;          // (rows, stride), columns of the block start at work[0]
    int64_t rows, stride, width;
    const double *upper;   // (width, ustride): the block's own part of U
    int64_t ustride;
    const double *scale, *zero, *top;  // (rows, width)
    uint8_t *codes;        // (rows, width)
    double *errors;        // (rows, width)
};

constexpr int64_t TILE = 8;  // rows that share a row of U in the first-level cache

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
void run_rows(const Block &b, int64_t from, int64_t to) {
    for (int64_t base = from; base < to; base += TILE) {
        const int64_t end = std::min(base + TILE, to);
        for (int64_t j = 0; j < b.width; ++j) {
            const double *u = b.upper + j * b.ustride;
            for (int64_t r = base; r < end; ++r) {
                double *w = b.work + r * b.stride;
                const int64_t at = r * b.width + j;
                const double scale = b.scale[at], zero = b.zero[at];
                const double code = std::min(std::max(std::rint(w[j] / scale) + zero, 0.0), b.top[at]);
                const double error = (w[j] - (code - zero) * scale) / u[j];
                b.codes[at] = static_cast<uint8_t>(code);
                b.errors[at] = error;
                for (int64_t k = j + 1; k < b.width; ++k) w[k] -= error * u[k];
            }
        }
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void bw_gptq_block(
    double *work, int64_t rows, int64_t stride, int64_t width, const double *upper, int64_t ustride,
    const double *scale, const double *zero, const double *top, uint8_t *codes, double *errors, int threads) {
    const Block block{work, rows, stride, width, upper, ustride, scale, zero, top, codes, errors};
    const int64_t most = std::max<int64_t>(1, rows / 64);
    const int64_t count = std::min<int64_t>(std::max(threads, 1), most);
    const int64_t share = (rows + count - 1) / count;
    std::vector<std::thread> others;
    for (int64_t i = 1; i < count; ++i)
        others.emplace_back([&, i] { run_rows(block, i * share, std::min(rows, (i + 1) * share)); });
    run_rows(block, 0, std::min(rows, share));
    for (auto &other : others) other.join();
}
