// The core of a knapsack whose costs are multiples of one number but for small rests: a format that costs a few bytes more than the next.
//
// Rounded to multiples, with what all rests together save at most added to the limit, it is a knapsack whose plans cost few different totals, so
// that searches by those (residues.hpp, totals.hpp, counts.hpp) close it, as they do not where rests make every total another. Every plan is one of it.
// So where its best plan fits the limit as it is, none is better. Where it does not, plans of fewer steps and those of as many are two such knapsacks.
#pragma once

#include <map>
#include <numeric>

#include "divisors.hpp"
#include "part.hpp"

namespace bitwright {

class Rests {
  public:
    // cells: those of one row together.
    Rests(const std::vector<Cell>& cells, double slope, int64_t slack, double gap) : cells_(cells), rows_(rows_of(cells)), slope_(slope), slack_(slack) {
        if (fits(between_formats(), gap)) return;
        for (int64_t small = kMost; small >= kLeast; small /= 2)
            if (fits(divisor(small), gap)) return;
    }

    // Whether there is such a number.
    bool any() const { return step_ > 0; }

    // Lower the gap of `best` (whose cells are numbers of `cells`); complete when no plan is better by more than `within`.
    void run(CoreResult& best, double within, const Solver& solve) const {
        const int64_t most = (slack_ - least_) / step_;
        const Found all = rounded(most, kAny, best, within, solve);
        best.complete = all == Found::kBest;
        if (all != Found::kOver) return;
        // Its rests are too large. Plans of fewer steps have a step of room for theirs; to the others formats whose rest alone is too large are of no use.
        best.complete = rounded(most - 1, kAny, best, within, solve) == Found::kBest &&
                        rounded(most, slack_ - least_ - most * step_, best, within, solve) == Found::kBest;
    }

  private:
    enum class Found { kBest, kOver, kOpen };   // kOver: a plan that does not fit

    static constexpr int64_t kLeast = 16, kMost = 1 << 18, kRests = 2;   // rests that Euclid's divisor leaves; all together are less than so many steps
    static constexpr size_t kSome = 1 << 11;                             // costs, or rows, that it is looked for in
    static constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
    static constexpr double kWorth = 1 << 12;                            // steps that the gap is worth at most

    // Plans of at most so many steps, of formats whose rest is at most so much more than the least of their row.
    Found rounded(int64_t limit, int64_t room, CoreResult& best, double within, const Solver& solve) const {
        Part part;
        part.n = static_cast<int64_t>(rows_.size());
        for (const CellRow& row : rows_) part.k = std::max(part.k, static_cast<int>(row.end - row.begin) + 1);
        const size_t k = static_cast<size_t>(part.k);
        part.loss.assign(rows_.size() * k, kInfinity);
        part.cost.assign(rows_.size() * k, 0);
        part.limit = limit;
        part.within = within;
        part.below = best.gap - slope_ * static_cast<double>(slack_);
        for (size_t g = 0; g < rows_.size(); ++g) {
            int64_t low = 0, least = 0;
            for (size_t q = rows_[g].begin; q < rows_[g].end; ++q) {
                low = std::min(low, nearest(cells_[q].dcost, step_));
                least = std::min(least, rest(q));
            }
            if (-least <= room) part.loss[g * k] = 0.0;
            part.cost[g * k] = -low;
            for (size_t q = rows_[g].begin; q < rows_[g].end; ++q) {
                const size_t at = g * k + 1 + (q - rows_[g].begin);
                if (rest(q) - least <= room) part.loss[at] = cells_[q].penalty - slope_ * static_cast<double>(cells_[q].dcost);
                part.cost[at] = nearest(cells_[q].dcost, step_) - low;
            }
            part.limit -= low;
        }
        const bool ended = solve(part);
        best.work += part.work;
        if (part.better && !taken(part, best)) return ended ? Found::kOver : Found::kOpen;
        return ended ? Found::kBest : Found::kOpen;
    }

    int64_t rest(size_t q) const { return cells_[q].dcost - nearest(cells_[q].dcost, step_) * step_; }

    // Of what two formats of a row cost apart, where that has a divisor in all rows: of formats without rests.
    int64_t between_formats() const {
        std::map<std::pair<int, int>, int64_t> of;
        for (size_t g = 0; g < rows_.size(); g += 1 + rows_.size() / kSome)
            for (size_t q = rows_[g].begin; q < rows_[g].end; ++q)
                for (size_t o = rows_[g].begin; o < q; ++o) {
                    int64_t& apart = of[{cells_[o].format, cells_[q].format}];
                    apart = std::gcd(apart, cells_[q].dcost - cells_[o].dcost);
                }
        int64_t step = 0;
        for (const auto& [formats, apart] : of)
            if (apart >= kLeast) step = std::gcd(step, apart);
        return step;
    }

    // Euclid's divisor of some costs, to rests of `small`, and the number that fits them best.
    int64_t divisor(int64_t small) const {
        const size_t every = 1 + cells_.size() / kSome;
        int64_t step = 0;
        for (size_t q = 0; q < cells_.size(); q += every) {
            const int64_t cost = std::abs(cells_[q].dcost);
            step = near_divisor(std::max(step, cost), std::min(step, cost), small);
        }
        if (step < kLeast) return 0;
        double a = 0.0, b = 0.0;
        for (size_t q = 0; q < cells_.size(); q += every) {
            const auto many = static_cast<double>(nearest(cells_[q].dcost, step));
            a += many * static_cast<double>(cells_[q].dcost);
            b += many * many;
        }
        return static_cast<int64_t>(std::rint(a / b));
    }

    // Whether costs have little rests of such steps, but some, and steps count; it is the step then.
    bool fits(int64_t step, double gap) {
        if (step < kLeast || !(slope_ * static_cast<double>(step) * kWorth > gap)) return false;
        least_ = 0;
        double most = 0.0;
        for (const CellRow& row : rows_) {
            int64_t low = 0, high = 0;
            for (size_t q = row.begin; q < row.end; ++q) {
                const int64_t more = cells_[q].dcost - nearest(cells_[q].dcost, step) * step;
                low = std::min(low, more);
                high = std::max(high, more);
            }
            least_ += low;
            most += static_cast<double>(high - low);
            if (!(most < static_cast<double>(kRests * step))) return false;
        }
        if (most > 0) step_ = step;
        return most > 0;
    }

    // Whether the plan of a part fits the limit.
    bool taken(const Part& part, CoreResult& best) const {
        std::vector<int64_t> cells;
        int64_t room = slack_;
        double value = 0.0;
        for (size_t g = 0; g < rows_.size(); ++g) {
            if (part.choice[g] == 0) continue;
            const size_t q = rows_[g].begin + part.choice[g] - 1;
            cells.push_back(static_cast<int64_t>(q));
            room -= cells_[q].dcost;
            value += cells_[q].penalty;
        }
        if (room < 0) return false;
        value += slope_ * static_cast<double>(room);
        if (!(value < best.gap)) return true;   // but for the sums' rounding
        best.gap = value;
        best.cells = std::move(cells);
        return true;
    }

    const std::vector<Cell>& cells_;
    std::vector<CellRow> rows_;
    double slope_;
    int64_t slack_, step_ = 0, least_ = 0;   // least: of the sums of all rests
};

// By costs without their rests. Complete when no plan is better than the gap that is found by more than `enough`.
inline CoreResult by_rests(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, const Solver& solve) {
    CoreResult found{gap, false, 0, 0, {}};
    if (cells.empty() || !(slope > 0)) return found;
    const Rests rests(cells, slope, slack, gap);
    if (rests.any()) rests.run(found, enough, solve);
    return found;
}

}  // namespace bitwright
