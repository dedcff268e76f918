// C interface of the native solver of one limit. Plain C types only; every array belongs to the caller.
#include "products.hpp"
#include "solve.hpp"

#include <exception>
#include <optional>

using namespace bitwright;

// The searches of a table of fewer rows than kSmall share a purse: about 1.4 seconds of an idle processor.
static constexpr int64_t kSmall = 1 << 13, kPurse = 13'000'000'000;
static thread_local double spent_last = 0.0;   // of a purse, by the last such table
static thread_local std::vector<double> cases_last;   // of the last table

extern "C" {

// Search a core given in CSR form. picked: room for `rows` cells. out: gap, complete, states, work, picked count.
// Returns 0, or 1 when memory ran out.
int32_t bw_core_search(int64_t rows, const int64_t* start, const int64_t* dcost, const double* penalty, double slope,
                       int64_t slack, double gap, int64_t states, int64_t work, double tiny, double seconds,
                       int64_t* picked, double* out) {
    try {
        CoreSearch search({rows, start, dcost, penalty}, slope, slack, gap, {states, work, tiny, seconds});
        const CoreResult result = search.run();
        std::copy(result.cells.begin(), result.cells.end(), picked);
        out[0] = result.gap;
        out[1] = result.complete ? 1.0 : 0.0;
        out[2] = static_cast<double>(result.states);
        out[3] = static_cast<double>(result.work);
        out[4] = static_cast<double>(result.cells.size());
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

// Solve a whole table. loss: float (single != 0) or double, (n, k) row-major. matrix (n, k) or null; then size (n) or
// null (all one_size) and rate (k); a matrix of more than full_rows rows that is sizes times rates is solved as those (products.hpp). total_size, top_size, least_size, divisor: of `size`, or 0 when the caller does not know them. mapped:
// the arrays lie in read-only files. low, high: where the multiplier is looked for first, or 0 and inf. after: of `seconds`, what the processor needs for what comes after. choice: n bytes. reals: slope, gap, bound, loss; ints: cost, passes, listed, core,
// states. Returns 0 optimal, 1 bounded, 2 infeasible, 3 late (a uniform plan or the cheapest one), 4 when memory ran out.
int32_t bw_solve_table(const void* loss, int32_t single, int64_t n, int32_t k, const int64_t* matrix, const int64_t* size,
                       int64_t one_size, const int64_t* rate, int64_t total_size, int64_t top_size,
                       int64_t least_size, int64_t divisor, int32_t mapped, int64_t limit, double low, double high, int32_t threads,
                       int64_t full_rows, int64_t work, double seconds, double after, uint64_t seed,
                       uint8_t* choice, double* reals, int64_t* ints) {
    try {
        std::optional<Purse> held;
        if (n < kSmall) held.emplace(kPurse);
        const double begin = now();
        Table table{loss, single != 0, n, k, matrix, size, one_size, rate, total_size, top_size, divisor, mapped != 0, least_size};
        std::optional<Products> products;
        if (matrix != nullptr && n > full_rows) {
            products.emplace(table, begin + seconds);
            if (products->found()) table = products->table(table);
        }
        seconds -= now() - begin;
        Solve solve(table, {limit, threads, full_rows, work, seconds, after, seed, {low, high}}, choice);
        const Answer a = solve.run();
        cases_last = a.cases;
        spent_last = held ? 1.0 - static_cast<double>(purse) / static_cast<double>(kPurse) : 0.0;
        const double values[] = {a.slope, a.gap, a.bound, a.loss};
        const int64_t counts[] = {a.cost, a.passes, a.listed, a.core, a.states};
        std::copy(values, values + 4, reals);
        std::copy(counts, counts + 5, ints);
        return static_cast<int32_t>(a.status);
    } catch (const std::exception&) {
        return 4;
    }
}

// Of the last table of this thread, where it was left with a gap: how many numbers its cases are (counts_cases.hpp; 0: none), written to `out` where that is not null.
int64_t bw_cases(double* out) {
    if (out != nullptr) std::copy(cases_last.begin(), cases_last.end(), out);
    return static_cast<int64_t>(cases_last.size());
}

// For tests: which part of its purse the last table of this thread has spent.
double bw_purse_spent() { return spent_last; }

// For tests: after so many looks at the clock every further one finds the time over (-1: the clock tells). Returns how many were left.
int64_t bw_looks_left(int64_t looks) { return looks_left.exchange(looks); }

// One streaming read of a table: the physical limit that the solver is measured against.
double bw_read(const double* words, int64_t count, int32_t threads) {
    std::vector<double> sums(threads, 0.0);
    Crew(threads).share(threads, [&](int me) {
        const int64_t begin = count * me / threads, end = count * (me + 1) / threads;
        const int64_t* p = reinterpret_cast<const int64_t*>(words);
        int64_t a = 0, b = 0, c = 0, d = 0, i = begin;
        for (; i + 4 <= end; i += 4) { a ^= p[i]; b ^= p[i + 1]; c ^= p[i + 2]; d ^= p[i + 3]; }
        for (; i < end; ++i) a ^= p[i];
        sums[me] = static_cast<double>(a ^ b ^ c ^ d);
    });
    double sum = 0.0;
    for (double s : sums) sum += s;
    return sum;
}

}  // extern "C"
