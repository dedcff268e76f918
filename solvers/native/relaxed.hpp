// The relaxation of a knapsack's core with some of its rows fixed (Dyer, Kayal and Walker 1984): its vertex, and a plan filled up from it.
//
// Steps are sorted once; with sums of what those before each one cost, a vertex takes a search for its place, whatever rows are fixed.
#pragma once

#include "closer.hpp"
#include "select.hpp"

namespace bitwright {

class Relaxed {
  public:
    using Fixed = std::vector<std::pair<int64_t, int64_t>>;   // row, cell (-1: none)

    // cells: those of one row together. settled: the multipliers at which what other rows there are is as it is. end: throws Late after it.
    Relaxed(const std::vector<Cell>& cells, double slope, int64_t slack, Bracket settled, double end)
        : cells_(cells), slope_(slope), slack_(slack), settled_(settled), end_(end), watch_(end) {
        for (size_t q = 0; q < cells.size(); ++q) {
            if (q == 0 || cells[q].row != cells[q - 1].row) start_.push_back(static_cast<int64_t>(q));
        }
        start_.push_back(static_cast<int64_t>(cells.size()));
    }

    // Once, before all others.
    // Hull steps of every row over its cells and none of them, steepest first. Step::after counts from the row's start (0: none).
    void prepare() {
        double l[kMaxFormats + 1];
        int64_t c[kMaxFormats + 1];
        least_.resize(static_cast<size_t>(rows()));
        steps_.reserve(std::max<size_t>(1024, cells_.size()));   // a list of millions would be copied again and again as it grows
        for (int64_t g = 0; g < rows(); ++g) {
            const int count = static_cast<int>(start_[g + 1] - start_[g]) + 1;
            for (int o = 0; o < count; ++o) {
                const int64_t q = o == 0 ? -1 : start_[g] + o - 1;
                l[o] = loss(q);
                c[o] = cost(q);
            }
            const int x = cheapest(l, c, count);
            least_[g] = x == 0 ? -1 : start_[g] + x - 1;
            cost_ += c[x];
            loss_ += l[x];
            walk(l, c, count, g, x, 0.0, steps_);
            watch_.step(count);
        }
        sort_steps();
        sum_up();
    }

    // The vertex with some rows fixed. False where these leave no room.
    bool find(const Fixed& fixed) {
        int64_t room = slack_ - cost_;
        double value = slope_ * static_cast<double>(slack_) + loss_;
        held_.clear();   // places of the steps of fixed rows
        for (const auto& [row, cell] : fixed) {
            room -= cost(cell) - cost(least_[row]);
            value += loss(cell) - loss(least_[row]);
            for (int32_t p = last_[row]; p >= 0; p = before_[static_cast<size_t>(p)]) held_.push_back(static_cast<size_t>(p));
        }
        work_ += kVertex + static_cast<int64_t>(held_.size());
        watch_.step(kTakes * kVertex);
        std::sort(held_.begin(), held_.end());
        split_ = -1;
        beyond_ = false;
        slope_at_ = 0.0;
        end_at_ = 0;
        room_ = room;
        value_at_ = value;
        if (room < 0) {   // unless others take less
            if (std::isfinite(settled_.high)) at_the_edge(settled_.high);
            return beyond_;
        }
        // Between two of them all steps are free: the stretch where the room ends, and the place in it.
        int64_t freed = 0;
        double unlost = 0.0;
        size_t from = 0;
        for (const size_t p : held_) {
            if (spent_[p] - freed > room) break;
            freed += steps_[p].dcost;
            unlost += saves(p);
            from = p + 1;
        }
        const auto end = std::upper_bound(spent_.begin() + static_cast<std::ptrdiff_t>(from), spent_.end(), room + freed);
        end_at_ = static_cast<size_t>(end - spent_.begin()) - 1;
        room_ = room - (spent_[end_at_] - freed);
        value_at_ = value + (lost_[end_at_] - unlost);
        if (end_at_ < steps_.size()) {
            split_ = steps_[end_at_].row;
            slope_at_ = steps_[end_at_].slope;
        }
        bound_ = value_at_ - slope_at_ * static_cast<double>(room_);
        if (slope_at_ < settled_.low) at_the_edge(settled_.low);
        if (slope_at_ > settled_.high) at_the_edge(settled_.high);
        return true;
    }

    // The loss of a plan: the vertex, and of the later steps those that fit, each after the one before it of its row.
    double fill(const Fixed& fixed) {
        double value = value_at_;
        int64_t room = room_;
        filled_.clear();
        ++turn_;
        for (size_t begin = end_at_; begin < steps_.size();) {
            const size_t end = std::min(steps_.size(), (begin / kBlock + 1) * kBlock);
            const bool any = least_of_[begin / kBlock] <= room;
            const int64_t looked = any ? static_cast<int64_t>(end - begin) : 1;
            work_ += looked;
            watch_.step(kTakes * looked);
            for (size_t p = begin; any && p < end; ++p) {
                const Step& s = steps_[p];
                if (s.dcost > room) continue;
                const int32_t was = before_[p];
                if (was >= 0 && static_cast<size_t>(was) >= end_at_ && taken_[static_cast<size_t>(was)] != turn_) continue;
                if (std::any_of(fixed.begin(), fixed.end(), [&](const auto& one) { return one.first == s.row; })) continue;
                taken_[p] = turn_;
                filled_.push_back(p);
                room -= s.dcost;
                value += saves(p);
            }
            begin = end;
        }
        return value;
    }

    // The vertex as a choice, a cell or -1 of each row; filled: that plan.
    const std::vector<int64_t>& plan(const Fixed& fixed, bool filled) {
        at_ = least_;
        for (size_t p = 0; p < end_at_; ++p) at_[steps_[p].row] = option(steps_[p]);
        for (const auto& [row, cell] : fixed) at_[row] = cell;
        for (size_t q = 0; filled && q < filled_.size(); ++q) at_[steps_[filled_[q]].row] = option(steps_[filled_[q]]);
        work_ += static_cast<int64_t>(end_at_);
        watch_.step(kTakes * static_cast<int64_t>(end_at_));
        return at_;
    }

    // Of the vertex found last: a bound of all plans with the same rows fixed, the row that it splits (or -1), its multiplier, and what it leaves of
    // the slack. beyond: the multiplier is none of those that settle the other rows, and the bound is that of the nearest one.
    double bound() const { return bound_; }
    int64_t split() const { return split_; }
    double slope() const { return slope_at_; }
    int64_t room() const { return room_; }
    bool beyond() const { return beyond_; }

    int64_t rows() const { return static_cast<int64_t>(start_.size()) - 1; }
    int64_t begin(int64_t row) const { return start_[static_cast<size_t>(row)]; }
    int64_t end(int64_t row) const { return start_[static_cast<size_t>(row) + 1]; }
    int64_t cost(int64_t q) const { return q < 0 ? 0 : cells_[static_cast<size_t>(q)].dcost; }
    double loss(int64_t q) const {
        return q < 0 ? 0.0 : cells_[static_cast<size_t>(q)].penalty - slope_ * static_cast<double>(cells_[static_cast<size_t>(q)].dcost);
    }

    // Steps looked at since it was asked last.
    int64_t worked() { return std::exchange(work_, 0); }

  private:
    static constexpr size_t kBlock = 64;                  // steps that are passed over together where none of them fits
    static constexpr int64_t kVertex = 32, kTakes = 2;    // what a vertex takes, in steps looked at; of the purse, what a step takes

    // The steepest first, and of equal ones as they stand: rows in order, the steps of each in theirs. Slopes above zero are in order as their bits are.
    void sort_steps() {
        struct Key { int64_t cost; };
        std::vector<Key> keys(steps_.size());
        if (keys.empty()) return;
        for (size_t p = 0; p < keys.size(); ++p) {
            std::memcpy(&keys[p].cost, &steps_[p].slope, sizeof keys[p].cost);
            keys[p].cost = -keys[p].cost;
        }
        std::vector<Step> sorted;
        sorted.reserve(std::max<size_t>(1024, keys.size()));
        for (const CostKey& key : by_cost(keys, end_)) sorted.push_back(steps_[key.at]);
        steps_ = std::move(sorted);
    }

    // What the steps before each one cost and lose together, and where the one before it of its row is.
    void sum_up() {
        const size_t count = steps_.size();
        spent_.assign(count + 1, 0);
        lost_.assign(count + 1, 0.0);
        before_.resize(count);
        least_of_.assign(count / kBlock + 1, std::numeric_limits<int64_t>::max());
        taken_.assign(count, 0);
        last_.assign(least_.size(), -1);
        long double lost = 0.0L;
        for (size_t p = 0; p < count; ++p) {
            const Step& s = steps_[p];
            watch_.step();
            before_[p] = last_[s.row];
            last_[s.row] = static_cast<int32_t>(p);
            lost += saves(p);
            spent_[p + 1] = spent_[p] + s.dcost;
            lost_[p + 1] = static_cast<double>(lost);
            least_of_[p / kBlock] = std::min(least_of_[p / kBlock], s.dcost);
        }
    }

    int64_t option(const Step& s) const { return s.after == 0 ? -1 : start_[s.row] + s.after - 1; }

    // What a step adds to the loss.
    double saves(size_t p) const {
        const Step& s = steps_[p];
        return loss(option(s)) - loss(before_[p] < 0 ? least_[s.row] : option(steps_[static_cast<size_t>(before_[p])]));
    }

    // No relaxation of the rows at hand, but that of all rows at the nearest multiplier that settles the others.
    void at_the_edge(double edge) {
        const auto end = std::partition_point(steps_.begin(), steps_.end(), [&](const Step& s) { return s.slope > edge; });
        const auto to = static_cast<size_t>(end - steps_.begin());
        double value = lost_[to] - lost_[end_at_];
        int64_t room = room_ - (spent_[to] - spent_[end_at_]);
        for (const size_t p : held_) {
            const int side = (p < to) - (p < end_at_);
            room += side * steps_[p].dcost;
            value -= side * saves(p);
        }
        bound_ = value_at_ + value - edge * static_cast<double>(room);
        beyond_ = true;
    }

    const std::vector<Cell>& cells_;
    double slope_;
    int64_t slack_;
    Bracket settled_;
    double end_;
    Watch watch_;
    std::vector<int64_t> start_, least_, at_;   // of rows; the middle one: cells of least cost
    std::vector<Step> steps_;
    std::vector<int64_t> spent_, least_of_;   // what the steps before each one cost; of each block the least cost of a step
    std::vector<double> lost_;                // what they add to the loss
    std::vector<int32_t> before_, last_, taken_;   // places of steps: the one before each of its row, each row's last one; and the turn that it was taken in
    std::vector<size_t> held_, filled_;
    int32_t turn_ = 0;
    // The vertex: the steps before end_at_ but for those of fixed rows (held_) are taken.
    size_t end_at_ = 0;
    int64_t cost_ = 0, room_ = 0, split_ = -1, work_ = 0;   // cost_, loss_: of the cells of least cost
    double loss_ = 0.0, slope_at_ = 0.0, value_at_ = 0.0, bound_ = 0.0;
    bool beyond_ = false;
};

}  // namespace bitwright
