// A small gap where a proof is out of reach: nearly equal slopes, costs without a common divisor.
//
// Meet in the middle over a few hundred cells of little penalty (Horowitz and Sahni 1974): up to two on each side, all
// combinations of the two sides in linear time. Then again on top of all moves in hand but one, until nothing is gained.
#pragma once

#include <functional>
#include <numeric>
#include <utility>

#include "by_cost.hpp"
#include "core.hpp"

namespace bitwright {

// One deviation: row takes `format`, which costs dcost more and adds penalty to the gap (dloss to the loss).
struct Cell {
    int64_t row, dcost;
    double penalty, dloss;
    int format;
};

// What the costs of all of these are multiples of (0: there are none); known: that they are of this one.
template <class T>
int64_t common_step(const std::vector<T>& all, int64_t T::*cost, int64_t known) {
    int64_t step = 0;
    for (const T& one : all) {
        if (step == 0 || one.*cost % step != 0) step = std::gcd(step, one.*cost);
        if (step == known) break;
    }
    return step;
}

// Rows of cells, those of one row together.
inline int64_t count_rows(const std::vector<Cell>& cells) {
    int64_t rows = cells.empty() ? 0 : 1;
    for (size_t q = 1; q < cells.size(); ++q) rows += cells[q].row != cells[q - 1].row;
    return rows;
}

// Whether most deviations cost next to nothing of the gap: slopes are equal, so all of it is what is left of the limit, and no
// budget of penalties cuts anything. A few cells that fill it are then found sooner than by branches.
inline bool mostly_free(const std::vector<Cell>& cells, double gap) {
    constexpr double share = 1e-6;
    const auto free = std::count_if(cells.begin(), cells.end(), [&](const Cell& c) { return c.penalty <= share * gap; });
    return 2 * free > static_cast<int64_t>(cells.size());
}

class Closer {
  public:
    // cells: those that may matter, in any order; end: when to stop, on the clock of `now`.
    Closer(const std::vector<Cell>& cells, double slope, int64_t slack, double end)
        : cells_(cells), slope_(slope), slack_(slack), end_(end) {}

    // Throws Late past the end; gap and moves stay a pair. Lower `gap` (that of `moves`) to `enough`, or as far as it goes. critical: cells of the row whose step is taken in part
    // by the relaxation: with one of them the limit is overrun by little, where without it much is left.
    void run(const std::vector<Cell>& critical, std::vector<Cell>& moves, double& gap, double enough) const {
        bool better = improve({}, false, moves, gap);
        for (const Cell& cell : critical)
            if (gap > enough && !past(end_)) better = improve({cell}, true, moves, gap) || better;
        if (better) polish(moves, gap, enough);
    }

    // The same on top of moves in hand, and of all of them but one.
    void polish(std::vector<Cell>& moves, double& gap, double enough) const {
        for (bool better = true; better && gap > enough && !past(end_);) {
            better = improve(moves, true, moves, gap);
            if (moves.size() > kSwapped) better = better || improve(moves, false, moves, gap);
            else for (size_t out = 0; out < moves.size() && !better && !past(end_); ++out) {
                std::vector<Cell> base = moves;
                base.erase(base.begin() + static_cast<std::ptrdiff_t>(out));
                better = improve(base, true, moves, gap) || improve(base, false, moves, gap);
            }
        }
    }

  private:
    static constexpr size_t kCells = 256, kSwapped = 32;
    static constexpr int64_t kTakes = 175;   // of the purse, what a sum takes

    struct Sum {
        int64_t cost;
        double value;
        int32_t first, second;
    };

    bool improve(std::vector<Cell> base, bool fine, std::vector<Cell>& moves, double& gap) const {
        int64_t room = slack_;
        double left = gap;
        for (const Cell& c : base) {
            room -= c.dcost;
            left -= c.penalty;
        }
        const std::vector<Cell> chosen = nearest(base, left, fine);
        std::vector<Cell> side[2];
        for (const Cell& c : chosen) side[(static_cast<uint64_t>(c.row) * 0x9E3779B97F4A7C15ull) >> 63].push_back(c);
        const std::vector<Sum> a = front(side[0]), b = front(side[1]);
        const Sum *first = nullptr, *second = nullptr;
        double best = left;
        size_t j = b.size();
        for (const Sum& s : a) {
            while (j > 0 && b[j - 1].cost > room - s.cost) --j;
            if (j == 0) break;
            const Sum& t = b[j - 1];   // a dearer sum of a front has less loss, so the dearest that fits is the best one
            const double value = s.value + t.value + slope_ * static_cast<double>(room - s.cost - t.cost);
            if (value < best) {
                best = value;
                first = &s;
                second = &t;
            }
        }
        if (first == nullptr || !(gap - left + best < gap)) return false;
        gap = gap - left + best;
        for (const auto& [sum, from] : {std::pair{first, &side[0]}, std::pair{second, &side[1]}})
            for (const int32_t q : {sum->first, sum->second})
                if (q >= 0) base.push_back((*from)[static_cast<size_t>(q)]);
        moves = std::move(base);
        return true;
    }

    // kCells cells of least penalty over the cost (fine: over its root), none of a row of `base`. Where nearly all of these cost more, or nearly all less
    // (equal slopes, and a multiplier that is off by its last bits), half of them are of either kind: sums of one kind alone lie far apart.
    std::vector<Cell> nearest(const std::vector<Cell>& base, double left, bool fine) const {
        std::vector<std::pair<double, size_t>> order;
        std::vector<int64_t> taken;
        Watch watch(end_);
        for (const Cell& c : base) taken.push_back(c.row);
        std::sort(taken.begin(), taken.end());
        for (size_t q = 0; q < cells_.size(); ++q) {
            const Cell& c = cells_[q];
            watch.step();
            if (!(c.penalty < left) || std::binary_search(taken.begin(), taken.end(), c.row)) continue;
            const double cost = std::fabs(static_cast<double>(c.dcost));
            order.emplace_back(c.penalty / (fine ? std::sqrt(cost) : cost), q);
        }
        using Place = std::vector<std::pair<double, size_t>>::iterator;
        const auto first = [&](Place begin, Place end, size_t count) {   // those of least key
            if (static_cast<size_t>(end - begin) <= count) return end;
            const Place cut = begin + static_cast<std::ptrdiff_t>(count);
            watched(watch, static_cast<size_t>(end - begin), std::less<>(), [&](auto less) { std::nth_element(begin, cut, end, less); });
            return cut;
        };
        const auto dearer = [&](const auto& one) { return cells_[one.second].dcost > 0; };
        std::vector<Cell> kept;
        const auto keep = [&](Place begin, Place end) {
            for (; begin != end; ++begin) kept.push_back(cells_[begin->second]);
        };
        const Place end = first(order.begin(), order.end(), kCells);
        const auto up = static_cast<size_t>(std::count_if(order.begin(), end, dearer));
        if (end != order.end() && (up < kCells / 16 || up > kCells - kCells / 16)) {
            const Place middle = std::partition(order.begin(), order.end(), dearer);
            keep(order.begin(), first(order.begin(), middle, kCells / 2));
            keep(middle, first(middle, order.end(), kCells / 2));
        } else keep(order.begin(), end);
        return kept;
    }

    double loss(const Sum& s) const { return s.value - slope_ * static_cast<double>(s.cost); }

    // No cell, one, or two of different rows, by rising cost; sums that a cheaper one of no more loss replaces left out.
    std::vector<Sum> front(const std::vector<Cell>& cells) const {
        std::vector<Sum> sums{{0, 0.0, -1, -1}};
        const int32_t n = static_cast<int32_t>(cells.size());
        for (int32_t a = 0; a < n; ++a) {
            sums.push_back({cells[a].dcost, cells[a].penalty, a, -1});
            for (int32_t b = 0; b < a; ++b)
                if (cells[a].row != cells[b].row)
                    sums.push_back({cells[a].dcost + cells[b].dcost, cells[a].penalty + cells[b].penalty, a, b});
        }
        spend(static_cast<int64_t>(sums.size()), kTakes);
        std::vector<Sum> kept;
        double least = kInfinity;
        for (const CostKey& key : by_cost(sums, end_)) {   // of equal costs the last one kept has the least loss
            const Sum& s = sums[key.at];
            if (!(loss(s) < least)) continue;
            least = loss(s);
            kept.push_back(s);
        }
        return kept;
    }

    const std::vector<Cell>& cells_;
    double slope_;
    int64_t slack_;
    double end_;
};

}  // namespace bitwright
