// The core of a knapsack whose costs are few: a table of every total, complete by construction.
//
// States in order of cost (core.hpp) are cut only by bounds; where slopes are nearly equal no bound cuts anything, and what
// keeps them few is that totals repeat. Then a table over totals costs a fraction of merging lists of states.
#pragma once

#include <numeric>

#include "core.hpp"

namespace bitwright {

class DenseCore {
  public:
    DenseCore(const CoreTable& table, double slope, int64_t slack, double gap)
        : table_(table), slope_(slope), slack_(slack), gap_(gap) {
        for (int64_t q = 0; q < table_.start[table_.rows]; ++q) step_ = std::gcd(step_, table_.dcost[q]);
        measure();
    }

    // Additions that `run` makes, and bytes that it holds.
    double additions() const { return additions_; }
    double bytes() const { return bytes_; }

    // The best choice of cells (empty: none) and its gap. False when time ran out.
    bool run(double end, CoreResult& out) const {
        out = {gap_, true, 0, 0, {}};
        if (spans_.size() != static_cast<size_t>(table_.rows) + 1) return true;   // no choice comes near the limit
        std::vector<double> at_row(1, 0.0), next;
        std::vector<std::vector<uint8_t>> taken(static_cast<size_t>(table_.rows));
        for (int64_t t = 0; t < table_.rows; ++t) {
            if (past(end) || !add(t, at_row, next, taken[t], end)) return false;
            at_row.swap(next);
        }
        const Span last = spans_.back();
        double best = gap_;
        int64_t at = 0;
        bool better = false;
        for (int64_t c = last.low; c <= last.high; ++c) {
            const double gap = at_row[c - last.low] + slope_ * static_cast<double>(slack_ - c * step_);
            if (c * step_ <= slack_ && gap < best) {
                best = gap;
                at = c;
                better = true;
            }
        }
        out.gap = best;
        for (int64_t t = table_.rows; better && t > 0; --t) {
            const uint8_t cell = taken[t - 1][static_cast<size_t>(at - spans_[t].low)];
            if (cell == 0) continue;
            out.cells.push_back(table_.start[t - 1] + cell - 1);
            at -= table_.dcost[out.cells.back()] / step_;
        }
        return true;
    }

  private:
    struct Span {
        int64_t low, high;   // in steps; empty where high < low
    };
    static constexpr int64_t kStretch = 2048, kLook = 1 << 20;
    static constexpr int64_t kTakes = 8;   // of the purse, what an addition takes

    // Totals after each row from which a better plan can still be reached.
    void measure() {
        const int64_t n = table_.rows;
        std::vector<Span> rest(n + 1, Span{0, 0});
        std::vector<Span> range(n, Span{0, 0});
        for (int64_t t = n - 1; t >= 0; --t) {
            for (int64_t q = table_.start[t]; q < table_.start[t + 1]; ++q) {
                range[t].low = std::min(range[t].low, table_.dcost[q] / step_);
                range[t].high = std::max(range[t].high, table_.dcost[q] / step_);
            }
            rest[t] = {rest[t + 1].low + range[t].low, rest[t + 1].high + range[t].high};
        }
        const double useful = slope_ > 0 ? gap_ / slope_ / static_cast<double>(step_) : kInfinity;
        const int64_t top = step_ > 0 ? slack_ / step_ : 0;
        const int64_t bottom = useful < 0x1p60 ? top - static_cast<int64_t>(useful) - 1 : std::numeric_limits<int64_t>::min() / 4;
        spans_.push_back({0, 0});
        for (int64_t t = 0; t < n; ++t) {
            Span s{spans_[t].low + range[t].low, spans_[t].high + range[t].high};
            s.high = std::min(s.high, top - rest[t + 1].low);
            s.low = std::max(s.low, bottom - rest[t + 1].high);
            if (s.high < s.low) return;
            spans_.push_back(s);
            const double width = static_cast<double>(s.high - s.low + 1);
            additions_ += width * static_cast<double>(table_.start[t + 1] - table_.start[t] + 1);
            bytes_ += width;
        }
    }

    // One more row. False when time ran out.
    bool add(int64_t t, const std::vector<double>& from, std::vector<double>& to, std::vector<uint8_t>& taken, double end_at) const {
        int64_t ahead = kLook;   // additions before the next look at the clock
        const Span a = spans_[t], b = spans_[t + 1];
        to.resize(static_cast<size_t>(b.high - b.low + 1));
        taken.resize(to.size());
        for (int64_t begin = b.low; begin <= b.high; begin += kStretch) {
            const int64_t end = std::min(b.high + 1, begin + kStretch);
            ahead -= (end - begin) * (table_.start[t + 1] - table_.start[t] + 1);
            spend((end - begin) * (table_.start[t + 1] - table_.start[t] + 1), kTakes);
            if (ahead < 0) {
                if (past(end_at)) return false;
                ahead = kLook;
            }
            double* value = to.data() + (begin - b.low);
            int64_t cell[kStretch];
            std::fill(value, value + (end - begin), kInfinity);
            std::fill(cell, cell + (end - begin), 0);
            for (int64_t q = table_.start[t] - 1; q < table_.start[t + 1]; ++q) {
                const bool none = q < table_.start[t];
                const int64_t shift = none ? 0 : table_.dcost[q] / step_;
                const int64_t first = std::max(begin, a.low + shift), last = std::min(end, a.high + shift + 1);
                if (last <= first) continue;
                lower(from.data() + (first - shift - a.low), none ? 0.0 : table_.penalty[q], none ? 0 : q - table_.start[t] + 1,
                      last - first, value + (first - begin), cell + (first - begin));
            }
            for (int64_t c = 0; c < end - begin; ++c) taken[static_cast<size_t>(begin - b.low + c)] = static_cast<uint8_t>(cell[c]);
        }
        return true;
    }

#if defined(__x86_64__) && defined(__GNUC__)
    __attribute__((target_clones("avx2", "default")))
#endif
    static void lower(const double* from, double penalty, int64_t cell, int64_t count, double* value, int64_t* cells) {
        for (int64_t c = 0; c < count; ++c) {
            const double v = from[c] + penalty;
            const bool less = v < value[c];
            value[c] = less ? v : value[c];
            cells[c] = less ? cell : cells[c];
        }
    }

    CoreTable table_;
    double slope_;
    int64_t slack_;
    double gap_;
    int64_t step_ = 0;
    double additions_ = 0.0, bytes_ = 0.0;
    std::vector<Span> spans_;
};

// By such a table instead of a search of so many states, where it takes few additions (in all, and for each state) and bytes. False where it does not.
inline bool tabled(const CoreTable& core, double slope, int64_t slack, double gap, int64_t states, double end, CoreResult& found) {
    constexpr double most = 0x1p29, per_state = 0x1p11, bytes = 0x1p27;
    const DenseCore dense(core, slope, slack, gap);
    return dense.additions() <= std::min(most, per_state * static_cast<double>(states)) && dense.bytes() <= bytes && dense.run(end, found);
}

}  // namespace bitwright
