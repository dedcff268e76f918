// The LP vertex of a long table whose costs are a matrix, found as by `walked`, but by few hulls: a sample brackets the critical
// slope, one pass over the table settles every row that has one best format in the bracket, and only the hulls of the others are walked.
#pragma once

#include <optional>

#include "answer.hpp"
#include "sample.hpp"

namespace bitwright {

class Between {
  public:
    // end: throws Late after it.
    Between(const Table& t, int64_t limit, uint8_t* choice, double end) : t_(t), limit_(limit), choice_(choice), watch_(end) {}

    // As `walked`; nothing where every bracket missed.
    std::optional<bool> find(Answer& answer, int64_t& slack) {
        Bracket b = sampled();
        for (int missed = 0; missed < kAttempts; ++missed) {
            widen(b, true, {0.0, INFINITY});
            if (b.high >= 0x1p800) b.high = INFINITY;
            const int64_t cost = settle(b);
            ++answer.passes;
            answer.listed = std::max(answer.listed, static_cast<int64_t>(listed_.size()));
            slack = limit_ - cost;
            const double wider = std::ldexp(1.0, 4 << missed);
            if (slack < 0) {   // the critical slope is above
                if (std::isinf(b.high)) {
                    answer.status = Status::kInfeasible;
                    return false;
                }
                b = {b.high, missed > 1 ? INFINITY : b.high * wider};
                continue;
            }
            if (fill(b, answer, slack)) {
                bracket_ = b;
                return true;
            }
            b = {missed > 1 ? 0.0 : b.low / wider, b.low};
        }
        return std::nullopt;
    }

    // Rows without one best format in the bracket of the critical slope.
    const std::vector<int64_t>& listed() const { return listed_; }

    // That bracket.
    const Bracket& bracket() const { return bracket_; }

    // Of all rows' dearest costs the sum, and the largest one.
    double dearest() const { return dearest_; }
    double largest() const { return largest_; }

  private:
    static constexpr int kAttempts = 6;
    static constexpr double kSigmas = 2.5, kOne = 0x1p30;   // kOne: what a drawn row's dearest format counts as

    // Slopes at the target +- kSigmas standard deviations of a sample: rows at equal stretches of the sum of all rows' dearest costs
    // (Madow 1949), as in sample.hpp; each row drawn counts the same.
    Bracket sampled() {
        const double root = std::cbrt(static_cast<double>(t_.n)), most = std::floor(2 * root * root) + 64;
        std::vector<double> weight(static_cast<size_t>(t_.n));
        double total = 0.0;
        for (int64_t i = 0; i < t_.n; ++i) {
            watch_.step();
            total += weight[i] = static_cast<double>(t_.dearest(i));
        }
        if (!(total > 0)) return {0.0, INFINITY};
        dearest_ = total;
        largest_ = *std::max_element(weight.begin(), weight.end());
        const double stretch = total / most, part = static_cast<double>(limit_) / total;
        double next = stretch / 2, sum = 0.0, base = 0.0, steepest = 0.0;
        std::vector<std::pair<int64_t, double>> drawn;   // and how often
        std::vector<Step> steps;
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        for (int64_t i = 0; i < t_.n; ++i) {
            sum += weight[i];
            if (!(sum > next)) continue;
            const double times = std::ceil((sum - next) / stretch);
            next += times * stretch;
            drawn.emplace_back(i, times);
            watch_.step(t_.k);
            t_.row(i, l, c);
            const int x = cheapest(l, c, t_.k);
            const double scale = times * (kOne / weight[i]);
            base += static_cast<double>(c[x]) * scale;
            const size_t first = steps.size();
            walk(l, c, t_.k, i, x, 0.0, steps);
            for (size_t q = first; q < steps.size(); ++q) {
                steepest = std::max(steepest, steps[q].slope);
                steps[q].dcost = static_cast<int64_t>(static_cast<double>(steps[q].dcost) * scale);
            }
        }
        const double target = part * most * kOne - base, middle = slopes_around(steps, target, 0.0, steepest, 0.0, watch_).low;
        double square = 0.0;
        for (const auto& [i, times] : drawn) {
            t_.row(i, l, c);
            const double off = static_cast<double>(c[start(l, c, t_.k, middle)]) / weight[i] - part;
            square += times * off * off;
        }
        Bracket b = slopes_around(steps, target, kOne * (2 + kSigmas * std::sqrt(square)), INFINITY, 0.0, watch_);
        if (std::isinf(b.low)) b.low = steepest;
        return b;
    }

    // Each row's best format at the upper end of a bracket, and a list of the rows that have another one at its lower end. What they cost.
    int64_t settle(Bracket b) {
        listed_.clear();
        double l[kMaxFormats];
        int64_t c[kMaxFormats], cost = 0;
        const bool any = std::isinf(b.high);
        for (int64_t i = 0; i < t_.n; ++i) {
            watch_.step(t_.k);
            t_.row(i, l, c);
            double high = INFINITY, low = INFINITY;
            int at_high = 0, at_low = 0;
            for (int j = 0; j < t_.k; ++j) {
                const double price = static_cast<double>(c[j]), h = l[j] + b.high * price, g = l[j] + b.low * price;
                const bool above = h < high, below = g < low;
                high = above ? h : high;
                at_high = above ? j : at_high;
                low = below ? g : low;
                at_low = below ? j : at_low;
            }
            if (any) at_high = cheapest(l, c, t_.k);
            choice_[i] = static_cast<uint8_t>(at_high);
            cost += c[at_high];
            if (at_high != at_low) listed_.push_back(i);
        }
        return cost;
    }

    // The steepest steps of the rows listed that fit. False where all of them do and something is left: the critical slope is below.
    bool fill(Bracket b, Answer& answer, int64_t& slack) {
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        steps_.clear();
        for (const int64_t i : listed_) {
            watch_.step(t_.k);
            t_.row(i, l, c);
            walk(l, c, t_.k, i, choice_[i], b.low, steps_);
        }
        const size_t taken = weighted_select(steps_, slack, watch_);
        const bool all = taken == steps_.size();
        if (all && b.low > 0 && slack > 0) return false;
        for (size_t q = 0; q < taken; ++q) {
            const Step& s = steps_[q];
            uint8_t& x = choice_[s.row];   // of several steps of one row the dearest counts
            if (t_.cost_at(s.row, s.after) > t_.cost_at(s.row, x)) x = static_cast<uint8_t>(s.after);
        }
        long double loss = 0.0L;
        for (int64_t i = 0; i < t_.n; ++i) loss += t_.loss_at(i, choice_[i]);
        answer.slope = all ? b.low : steps_[taken].slope;
        answer.loss = static_cast<double>(loss);
        answer.gap = answer.slope * static_cast<double>(slack);
        answer.bound = answer.loss - answer.gap;
        return true;
    }

    Table t_;
    int64_t limit_;
    uint8_t* choice_;
    Watch watch_;
    std::vector<int64_t> listed_;
    Bracket bracket_{0.0, INFINITY};
    double dearest_ = 0.0, largest_ = 0.0;
    std::vector<Step> steps_;
};

}  // namespace bitwright
