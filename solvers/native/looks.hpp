// The first plan of a solve (the LP vertex), and which rows its searches look at from then on: a level of a streamed table (levels.hpp), or
// the rows of use of one that is not (used.hpp).
#pragma once

#include <algorithm>
#include <iterator>
#include <memory>

#include "amounts.hpp"
#include "between.hpp"
#include "classes.hpp"
#include "levels.hpp"
#include "used.hpp"

namespace bitwright {

class Looks : protected Amounts {
  protected:
    Looks(const Table& table, const Options& options, uint8_t* choice) : t_(measured(table)), o_(options), choice_(choice), crew_(options.threads) {}

    void start_time() {
        begin_ = now();
        worked_ = worked();
        keep_time();
        // What the cheapest plan and its certificate take is kept back from the search of a first plan, but no more than half of the time.
        found_by_ = std::max(end_ - kUnplanned * static_cast<double>(t_.n * t_.k), begin_ + o_.seconds / 2);
    }

    // False when even the cheapest formats do not fit. Throws Late when there is no time for it.
    bool first_plan() { return (t_.n > o_.full_rows && streams() && by_levels()) || all_rows(); }

    // The same, its time begun, of the rows that a solve under another limit has listed, whose choice this one takes over; as `find_within` (levels.hpp).
    int begin_within(const Levels& listed, int64_t cost, double loss) {
        start_time();
        levels_ = leveled();
        const int side = levels_->find_within(listed, cost, loss);
        if (side == 0) take_vertex();
        return side;
    }

    // When to end, so that what comes after has its time too: longer on the clock where other programs want the processor.
    void keep_time() {
        const double clock = now() - begin_, work = o_.after > kBrief ? worked() - worked_ : clock;
        const double load = work > kBrief ? std::max(1.0, clock / work) : 1.0;
        end_ = begin_ + o_.seconds - std::min(load * o_.after, o_.seconds / 2);
    }

    Sample sampled(int64_t every) const { return base_.sampled(every, answer_.slope, answer_.gap, end_); }

    void look_at(size_t level) { base_ = {levels_->table(level), levels_->ids(level), choice_}; }

    // Cells of the rows looked at, and of some of all, in stretches: near the critical slope few rows are of the rarer costs.
    std::vector<Cell> with_strays() const {
        std::vector<Cell> cells = strays(kStrays);
        const int64_t apart = stray_apart(kStrays);
        Watch watch(end_);
        for (int64_t i = 0; i < base_.table.n; ++i) {
            watch.step(t_.k);
            if (base_.number(i) % apart >= kStretch) base_.cells_of(i, answer_.slope, answer_.gap, cells);
        }
        return cells;
    }

    // Of about so many rows of all, in stretches.
    std::vector<Cell> strays(int64_t rows) const {
        const int64_t apart = stray_apart(rows);
        const Deviations all{t_, nullptr, choice_};
        std::vector<Cell> cells;
        Watch watch(end_);
        for (int64_t begin = 0; begin < t_.n; begin += apart)
            for (int64_t i = begin; i < std::min(t_.n, begin + kStretch); ++i) {
                watch.step(t_.k);
                all.cells_of(i, answer_.slope, answer_.gap, cells);
            }
        return cells;
    }
    int64_t stray_apart(int64_t rows) const { return std::max(kStretch, t_.n / (rows / kStretch)); }

    // Look at all rows of use, found by a pass, or once found, when the gap was no less. False where there are more than `most`, or would be
    // many times that by those of the first level.
    bool look_wide(int64_t most) {
        if (wide_.rows.n > 0 && !wide_.over) {
            base_ = {wide_.rows.view(t_), wide_.rows.id.data(), choice_};
            return true;
        }
        const Bracket use = of_use(t_, answer_.slope, answer_.gap);
        if (levels_ != nullptr && levels_->expected(use) > kHopeless * static_cast<double>(most)) return false;
        wide_ = fused_pass(t_, nullptr, nullptr, use, false, most, crew_, nullptr, end_);
        ++answer_.passes;
        if (wide_.over) return false;
        base_ = {wide_.rows.view(t_), wide_.rows.id.data(), choice_};
        return true;
    }

    // Look at a level that has all rows of use. Of the first one a pass leaves most rows out sooner than a look at each.
    void look_far(size_t& level) {
        while (level > 0 && reach(level) < answer_.gap)
            if (--level > 0 || !(answer_.slope > 0) || !look_wide(t_.n / (t_.n < kLong ? 4 : 32))) look_at(level);
        if (levels_ == nullptr && copies()) base_ = used_.of_use(answer_.slope, answer_.gap, end_);
        if (middling() || o_.depth > 0) look_at_nearest();   // not where the rest of a table is of use to a certificate by cases
    }

    // Too many rows for all of the searches, but not for one after the other where much is open.
    bool middling() const { return o_.depth == 0 && t_.n >= kWalk && t_.n < kWide; }

    // Every deviation of use of a row outside the table of this level costs at least this much. Where the bracket begins at zero, a dearer
    // format of such a row loses no less: a plan is no worse without it.
    double reach(size_t level) const {
        if (level == 0) return used_.partial() ? 0.0 : kInfinity;
        const Bracket b = levels_->bracket(level);
        const double down = b.low > 0 ? answer_.slope - b.low : kInfinity;
        return std::max(0.0, std::min(b.high - answer_.slope, down)) * least_step(t_);
    }

    // Whether most of some cells cost as much as others.
    static bool few_costs(const std::vector<Cell>& cells) {
        const size_t some = std::min<size_t>(1 << 10, cells.size());
        std::vector<int64_t> costs;
        for (size_t q = 0; q < some; ++q) costs.push_back(cells[cells.size() * q / some].dcost);
        std::sort(costs.begin(), costs.end());
        return 2 * static_cast<size_t>(std::unique(costs.begin(), costs.end()) - costs.begin()) < some;
    }

  private:
    static constexpr int64_t kNumbered = int64_t{1} << 32;   // rows copied out have numbers of 32 bits

    // Of many rows whose cells cost the same, those nearest to the critical slope (classes.hpp).
    void look_at_nearest() {
        if (answer_.gap < nearest_of_) {
            nearest_of_ = answer_.gap;
            nearest_ = Copied();
            const Sample sample = sampled(1);
            if (sample.cut || count_rows(sample.cells) <= (o_.depth > 0 ? kNear >> 4 : kNear) || !few_costs(sample.cells)) return;
            Watch watch(end_);
            std::vector<int64_t> rows;
            for (const uint32_t q : of_each_cost(sample.cells, answer_.slope, slack_, answer_.gap, watch))
                if (rows.empty() || rows.back() != sample.cells[q].row) rows.push_back(sample.cells[q].row);
            if (2 * static_cast<int64_t>(rows.size()) < count_rows(sample.cells)) nearest_ = Copied({t_, nullptr, choice_}, rows);
        }
        if (!nearest_.id.empty()) base_ = nearest_.view({t_, nullptr, choice_});
    }

    // Whether rows are copied out of a table without levels (used.hpp).
    bool copies() const { return t_.n >= kWalk && t_.n < kNumbered; }

    // The passes serve compact costs.
    bool streams() const { return t_.matrix == nullptr && choose_for<double>(t_.k) != nullptr && t_.n < kNumbered; }

    std::unique_ptr<Levels> leveled() {
        return std::make_unique<Levels>(t_, Plan{o_.limit, crew_, std::max<int64_t>(64, std::min(kWalk, o_.full_rows)), o_.seed, choice_, o_.first, found_by_});
    }

    bool by_levels() {
        levels_ = leveled();
        const bool found = levels_->find();
        answer_.passes = levels_->passes();
        answer_.listed = levels_->listed();
        if (!found) {
            levels_.reset();
            return false;
        }
        take_vertex();
        return true;
    }

    void take_vertex() {
        const Vertex& v = levels_->vertex();
        look_at(levels_->depth());
        slack_ = v.slack;
        answer_.slope = v.slope;
        answer_.bound = v.bound;
        answer_.loss = v.loss;
        answer_.gap = std::max(v.slope * static_cast<double>(v.slack), v.loss - v.bound);
    }

    bool all_rows() {
        base_ = {t_, nullptr, choice_};
        if (!copies()) return walked(t_, o_.limit, choice_, found_by_, answer_, slack_);
        Between between(t_, o_.limit, choice_, found_by_);
        used_ = Used(base_);
        const auto found = between.find(answer_, slack_);
        if (!found) return walked(t_, o_.limit, choice_, found_by_, answer_, slack_);
        dearest_ = between.dearest();
        uneven_ = between.largest() >= dearest_ / kMuch;
        if (static_cast<int64_t>(between.listed().size()) > (uneven_ ? t_.n / 2 : kWalk)) return *found;
        // The rows next to the critical slope, and some of all: a few rows of other costs may fill what those cannot.
        std::vector<int64_t> some, rows;
        for (int64_t i = 0; i < t_.n; i += t_.n / kNear) some.push_back(i);
        std::set_union(some.begin(), some.end(), between.listed().begin(), between.listed().end(), std::back_inserter(rows));
        base_ = used_.nearest(rows);
        settled_ = between.bracket();
        return *found;
    }

  protected:
    Table t_;
    Deviations base_;   // of the table whose rows are looked at
    Used used_;
    Bracket settled_{0.0, INFINITY};   // what rows outside the nearest ones were settled for all multipliers of
    double dearest_ = 0.0;             // what all rows cost in their dearest formats
    bool uneven_ = false;              // a row is much of that
    Copied nearest_;
    double nearest_of_ = INFINITY;   // the gap that they were looked for
    Options o_;
    uint8_t* choice_;
    Crew crew_;
    Answer answer_;
    std::unique_ptr<Levels> levels_;
    Tally wide_;        // of the rows of use
    double begin_ = 0.0, worked_ = 0.0, end_ = 0.0, found_by_ = 0.0;   // the others on the clock of `now`: for all, and for a first plan
    int64_t slack_ = 0;
};

}  // namespace bitwright
