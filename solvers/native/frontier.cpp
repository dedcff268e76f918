// C interface of what is summed up over a whole table: every budget at once, and uniform plans. As in hull.cpp.
#include "frontier.hpp"

#include <exception>

using namespace bitwright;

extern "C" {

// Every budget at once: cost and loss of the hull steps in each of bw_stretches() stretches of slopes, by rising slope: stretch
// q holds slopes times `scale` whose bits as a float begin with q (infinite ones: steps away from forbidden formats). order: formats by rising rate.
// regular: no loss is infinite and no two rates are equal. most, total, divisor: the largest size,
// sum and greatest common divisor of the sizes. last: loss of the last vertices. Returns 0, or 4.
int32_t bw_frontier(const void* loss, int32_t single, int64_t n, int32_t k, const int64_t* size, int64_t most, int64_t total, int64_t divisor,
                    const int64_t* rate, const int32_t* order, int32_t regular, double scale, int32_t mapped, int32_t threads, int64_t* cost,
                    double* saved, double* last) {
    try {
        const Table t{loss, single != 0, n, k, nullptr, size, most, rate, total, most, divisor, mapped != 0};
        const Whole whole = whole_frontier(t, order, regular != 0, scale, threads);
        for (int q = 0; q < kStretches; ++q) {
            cost[q] = whole.stretch[q].cost;
            saved[q] = whole.stretch[q].loss;
        }
        *last = whole.last;
        return 0;
    } catch (const std::exception&) {
        return 4;
    }
}

// Loss of each uniform plan of a table of 2 to 16 formats.
void bw_uniform(const void* loss, int32_t single, int64_t n, int32_t k, int32_t mapped, double* sums) {
    uniform_losses({loss, single != 0, n, k, nullptr, nullptr, 1, nullptr, 0, 0, 0, mapped != 0}, sums);
}

int32_t bw_stretches() { return kStretches; }
int32_t bw_share() { return kShare; }   // 2^bw_share() of them an octave

}  // extern "C"
