// The certified knapsack solver for one limit: bracket, fused pass, critical step, core (research/05 section 4).
#pragma once

#include "core.hpp"
#include "table.hpp"

namespace bitwright {

struct Options {
    int64_t limit;
    int threads;
    int64_t full_rows;   // at most this many rows: no bracket, every hull is walked
    int64_t work;        // states expanded in all
    double seconds;
    uint64_t seed;
};

enum class Status : int32_t { kOptimal = 0, kBounded = 1, kInfeasible = 2, kGaveUp = 3 };

struct Answer {
    Status status = Status::kGaveUp;
    double slope = 0.0, gap = 0.0, bound = 0.0;
    int64_t passes = 0, listed = 0, core = 0, states = 0;
};

class Solve {
  public:
    Solve(const Table& table, const Options& options, uint8_t* choice) : t_(measured(table)), o_(options), choice_(choice) {}

    Answer run() {
        end_ = now() + o_.seconds;
        if (!(t_.n <= o_.full_rows || !streams() ? all_rows() : bracketed())) return answer_;
        select();
        if (!complete()) {
            // The gap is too large for the sieve: the same bracket once more, in double precision.
            precise_ = true;
            work_ = 0;
            if (!bracketed()) return answer_;
            select();
            complete();
        }
        return answer_;
    }

  private:
    static constexpr double kTiny = 1e-13;   // a tenth of the checker's own rounding (certificate.ROUNDING)
    static constexpr int64_t kNear = 1024;
    static constexpr int64_t kFastRows = 1 << 22;

    // The vector pass serves compact costs whose totals over a block stay exact in a double.
    bool streams() const {
        if (t_.matrix != nullptr || choose_for<double>(t_.k) == nullptr) return false;
        const int64_t top = *std::max_element(t_.rate, t_.rate + t_.k);
        return static_cast<double>(top) * static_cast<double>(t_.top_size) * kBlock < 9e15;
    }

    // Every row from its cheapest format on. False when even that does not fit.
    bool all_rows() {
        double l[kMaxFormats];
        int64_t c[kMaxFormats], cost = 0;
        for (int64_t i = 0; i < t_.n; ++i) {
            t_.row(i, l, c);
            const int x = cheapest(l, c, t_.k);
            choice_[i] = static_cast<uint8_t>(x);
            cost += c[x];
            loss_ += l[x];
            magnitude_ += std::fabs(l[x]);
            walk(l, c, t_.k, i, x, 0.0, steps_);
        }
        low_ = 0.0;
        high_ = kInfinity;
        cost_ = cost;
        room_ = o_.limit - cost;
        answer_.passes = 1;
        answer_.listed = t_.n;
        if (room_ < 0) answer_.status = Status::kInfeasible;
        return room_ >= 0;
    }

    // Bracket of the critical slope from a sample, then one pass; the bracket is widened when it missed.
    bool bracketed() {
        if (answer_.passes == 0) sample();
        for (int attempt = 0; attempt < 8; ++attempt) {
            // Single precision from a few million rows on, where gaps are far below its own effect on the bound.
            const bool fast = !precise_ && t_.n >= kFastRows && fast_takes(t_);
            const double widen = fast ? 1e-5 : 0.0;
            high_ *= 1 + widen;
            low_ *= 1 - widen;
            Tally tally = fused_pass(t_, high_, low_, fast, o_.threads, choice_);
            sieve_ = fast;
            ++answer_.passes;
            room_ = o_.limit - tally.cost;
            const double wider = std::ldexp(1.0, 2 << attempt);
            if (room_ < 0) {
                low_ = high_;
                high_ *= wider;
                continue;
            }
            loss_ = tally.loss;
            magnitude_ = tally.magnitude;
            cost_ = tally.cost;
            int64_t spent = 0;
            steps_.swap(tally.steps);
            for (const Step& s : steps_) spent += s.dcost;
            if (spent <= room_ && low_ > 0) {
                high_ = low_;
                low_ = attempt >= 3 ? 0.0 : low_ / wider;
                continue;
            }
            answer_.listed = tally.listed;
            return true;
        }
        steps_.clear();
        sieve_ = false;
        loss_ = magnitude_ = 0.0;
        return all_rows();
    }

    uint64_t random() {   // splitmix64 (Steele, Lea, Flood 2014)
        uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }

    // Slopes at the target +- 3.5 standard deviations of a sample of n^(2/3) rows (Floyd-Rivest, on slopes).
    void sample() {
        state_ = o_.seed;
        const int64_t m = static_cast<int64_t>(std::cbrt(static_cast<double>(t_.n) * static_cast<double>(t_.n))) + 64;
        std::vector<int64_t> rows(m);
        for (int64_t& i : rows) i = static_cast<int64_t>(random() % static_cast<uint64_t>(t_.n));
        std::sort(rows.begin(), rows.end());   // ascending: the hardware prefetcher and the page table like it
        std::vector<Step> steps;
        std::vector<double> base(m), weight(m);
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        double sizes = 0.0, floor_cost = 0.0;
        for (int64_t q = 0; q < m; ++q) {
            const int64_t i = rows[q];
            if (q + 16 < m) t_.prefetch(rows[q + 16]);
            t_.row(i, l, c);
            const int x = cheapest(l, c, t_.k);
            weight[q] = static_cast<double>(t_.weight(i));
            base[q] = static_cast<double>(c[x]);
            sizes += weight[q];
            floor_cost += base[q];
            walk(l, c, t_.k, q, x, 0.0, steps);
        }
        // Ratio estimator: average cost per unit of size, so it does not matter which sizes were drawn.
        const double total = static_cast<double>(std::max<int64_t>(t_.total_size, 1));
        const double ratio = static_cast<double>(o_.limit) / total, target = ratio * sizes - floor_cost;
        std::vector<double> spent(base);
        const double middle = slope_at(steps, target, 0.0);
        double widest = 0.0, square = 0.0, steepest = 0.0;
        for (const Step& s : steps) {
            if (s.slope > middle) spent[s.row] += static_cast<double>(s.dcost);
            widest = std::max(widest, static_cast<double>(s.dcost));
            steepest = std::max(steepest, s.slope);
        }
        for (int64_t q = 0; q < m; ++q) square += (spent[q] - ratio * weight[q]) * (spent[q] - ratio * weight[q]);
        const double margin = 3.5 * std::sqrt(square) + 2 * widest;
        // Beyond the sample's steepest slope: far, but not so far that the losses vanish beside the costs.
        const double beyond = steepest > 0 ? std::ldexp(steepest, 20) : 1.0;
        high_ = std::min(beyond, slope_at(steps, target - margin, beyond));
        low_ = slope_at(steps, target + margin, 0.0);
    }

    // Slope of the step at which the cumulative cost, by falling slope, passes `target`; `none` when target is negative,
    // 0 when all steps fit.
    static double slope_at(std::vector<Step>& steps, double target, double none) {
        if (target < 0) return none;
        const size_t at = weighted_select(steps, target);
        return at < steps.size() ? steps[at].slope : 0.0;
    }

    static bool steeper(const Step& a, const Step& b) {
        if (a.slope != b.slope) return a.slope > b.slope;
        return a.row != b.row ? a.row < b.row : a.order < b.order;
    }

    // Reorder so that the steps before the returned place are the steepest ones whose total cost fits into `room` (which
    // becomes what is left), in linear time: selection instead of sorting.
    template <class Room>
    static size_t weighted_select(std::vector<Step>& steps, Room& room) {
        size_t from = 0, to = steps.size();
        while (to - from > 64) {
            const size_t middle = from + (to - from) / 2;
            std::nth_element(steps.begin() + from, steps.begin() + middle, steps.begin() + to, steeper);
            Room sum = 0;
            for (size_t q = from; q < middle; ++q) sum += static_cast<Room>(steps[q].dcost);
            if (sum <= room) {
                room -= sum;
                from = middle;
            } else {
                to = middle;
            }
        }
        std::sort(steps.begin() + from, steps.begin() + to, steeper);
        while (from < to && static_cast<Room>(steps[from].dcost) <= room) room -= static_cast<Room>(steps[from++].dcost);
        return from;
    }

    // The critical step; the steps before it are taken.
    void select() {
        slack_ = room_;
        const size_t count = steps_.size(), taken = weighted_select(steps_, slack_);
        answer_.slope = taken < count ? steps_[taken].slope : 0.0;
        double saved = 0.0;
        for (size_t q = 0; q < taken; ++q) {
            const Step& s = steps_[q];
            saved += s.slope * static_cast<double>(s.dcost);
            uint8_t& x = choice_[s.row];   // of several steps of one row the dearest counts
            if (t_.matrix != nullptr ? t_.cost_at(s.row, s.after) > t_.cost_at(s.row, x) : t_.rate[s.after] > t_.rate[x]) x = s.after;
        }
        answer_.gap = answer_.slope * static_cast<double>(slack_);
        answer_.bound = loss_ - saved - answer_.gap;
    }

    struct Cell {
        int64_t row, dcost;
        double penalty;
        int format;
    };

    // Deviations of one row with penalty below `gap`; returns their least penalty per unit of cost.
    double cells_of(int64_t i, double gap, std::vector<Cell>& out) const {
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        t_.row(i, l, c);
        const int x = choice_[i];
        double least = kInfinity;
        for (int j = 0; j < t_.k; ++j) {
            if (j == x || c[j] == c[x] || std::isinf(l[j])) continue;
            const int64_t dcost = c[j] - c[x];
            const double penalty = std::max(0.0, (l[j] - l[x]) + answer_.slope * static_cast<double>(dcost));
            if (!(penalty < gap)) continue;
            out.push_back({i, dcost, penalty, j});
            least = std::min(least, penalty / std::fabs(static_cast<double>(dcost)));
        }
        return least;
    }

    // Search one core; rows by rising least penalty per unit of cost. False when some row was left out.
    bool search(const std::vector<int64_t>& rows, int64_t most_rows, int64_t states, double tiny) {
        std::vector<Cell> cells;
        struct Group { double rate; size_t begin, end; };
        std::vector<Group> groups;
        for (int64_t i : rows) {
            const size_t begin = cells.size();
            const double rate = cells_of(i, answer_.gap, cells);
            if (cells.size() > begin) groups.push_back({rate, begin, cells.size()});
        }
        std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.rate < b.rate; });
        const bool whole = static_cast<int64_t>(groups.size()) <= most_rows;
        answer_.core = static_cast<int64_t>(groups.size());
        if (!whole) groups.resize(most_rows);
        std::vector<int64_t> start{0}, dcost;
        std::vector<double> penalty;
        std::vector<const Cell*> flat;
        for (const Group& g : groups) {
            for (size_t q = g.begin; q < g.end; ++q) {
                dcost.push_back(cells[q].dcost);
                penalty.push_back(cells[q].penalty);
                flat.push_back(&cells[q]);
            }
            start.push_back(static_cast<int64_t>(dcost.size()));
        }
        const CoreTable core{static_cast<int64_t>(groups.size()), start.data(), dcost.data(), penalty.data()};
        const Effort effort{states, o_.work - work_, tiny, std::max(0.0, end_ - now())};
        const CoreResult found = CoreSearch(core, answer_.slope, slack_, answer_.gap, effort).run();
        work_ += found.work;
        answer_.states = std::max(answer_.states, found.states);
        if (found.gap < answer_.gap) {
            answer_.gap = found.gap;
            moves_.clear();
            for (int64_t q : found.cells) moves_.push_back(*flat[q]);
        }
        return whole && found.complete;
    }

    // Rows whose hull steps lie nearest to the critical slope: where good completions are.
    std::vector<int64_t> near() const {
        std::vector<uint32_t> order(steps_.size());
        for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
        auto closer = [&](uint32_t a, uint32_t b) {
            const double x = std::fabs(steps_[a].slope - answer_.slope), y = std::fabs(steps_[b].slope - answer_.slope);
            return x != y ? x < y : a < b;
        };
        const size_t keep = std::min<size_t>(kNear, order.size());
        std::nth_element(order.begin(), order.begin() + (keep ? keep - 1 : 0), order.end(), closer);
        std::vector<int64_t> rows;
        for (size_t q = 0; q < keep; ++q) rows.push_back(steps_[order[q]].row);
        std::sort(rows.begin(), rows.end());
        rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
        return rows;
    }

    // False when the sieve's choice is too coarse for the search that would prove it.
    bool complete() {
        moves_.clear();
        double tiny = kTiny * (magnitude_ + answer_.slope * static_cast<double>(o_.limit));
        if (!std::isfinite(tiny)) tiny = 0.0;
        bool proved = answer_.gap <= tiny;
        std::vector<int64_t> rows;
        if (!proved) {
            rows = answer_.listed == t_.n && t_.n <= (1 << 17) ? everything() : near();
            const bool whole = static_cast<int64_t>(rows.size()) == t_.n;
            const int64_t stages[2][2] = {{256, 1 << 10}, {int64_t{1} << 60, whole ? 1 << 14 : 1 << 12}};
            for (const auto& stage : stages) {
                proved = (search(rows, stage[0], stage[1], tiny) && whole) || answer_.gap <= tiny;
                if (proved || sieve_ || work_ >= o_.work || now() > end_) break;
            }
        }
        if (!proved && sieve_ && now() < end_) return false;
        if (!proved && work_ < o_.work && now() < end_) {
            if (static_cast<int64_t>(rows.size()) < t_.n) rows = everything();
            proved = search(rows, int64_t{1} << 60, 1 << 20, tiny) || answer_.gap <= tiny;
        }
        for (const Cell& move : moves_) choice_[move.row] = static_cast<uint8_t>(move.format);
        answer_.status = proved && !sieve_ ? Status::kOptimal : Status::kBounded;
        return true;
    }

    std::vector<int64_t> everything() const {
        std::vector<int64_t> rows(t_.n);
        for (int64_t i = 0; i < t_.n; ++i) rows[i] = i;
        return rows;
    }

    Table t_;
    Options o_;
    uint8_t* choice_;
    Answer answer_;
    std::vector<Step> steps_;
    std::vector<Cell> moves_;
    double low_ = 0.0, high_ = 0.0, loss_ = 0.0, magnitude_ = 0.0, end_ = 0.0;
    int64_t cost_ = 0, room_ = 0, slack_ = 0, work_ = 0;
    uint64_t state_ = 0;
    bool precise_ = false;
    bool sieve_ = false;   // the pass was in single precision: optimality is for the certificate to find
};

}  // namespace bitwright
