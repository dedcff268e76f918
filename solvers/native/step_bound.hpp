// The relaxation of a core with the number of its steps fixed (steps.hpp).
#pragma once

#include "divisors.hpp"
#include "select.hpp"

namespace bitwright {

class StepBound {
  public:
    // cells: those of one row together.
    StepBound(const std::vector<Cell>& cells, double slope, int64_t slack, int64_t step, double end) : slope_(slope), slack_(slack), step_(step), watch_(end) {
        for (const CellRow& row : rows_of(cells)) {
            start_.push_back(option_.size());
            option_.push_back({0, 0, 0.0, -1});
            // Costs of a row near multiples of its own are told apart by that: of those within 1 % of a step the hundredth may be half a step off.
            const int64_t own = near_divisor(cells, row), times = nearest(own, step);
            const bool alike = times > 0 && std::abs(own - times * step) <= own / 16;
            for (size_t q = row.begin; q < row.end; ++q) {
                const int64_t many = alike ? times * nearest(cells[q].dcost, own) : nearest(cells[q].dcost, step);
                option_.push_back({many, cells[q].dcost - many * step, cells[q].penalty, static_cast<int64_t>(q)});
            }
        }
        start_.push_back(option_.size());
        for (size_t g = 0; g + 1 < start_.size(); ++g) {
            int64_t low = 0, high = 0;
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                low = std::min(low, option_[o].many);
                high = std::max(high, option_[o].many);
            }
            low_ += low;
            high_ += high;
        }
        at_.resize(start_.size() - 1);
    }

  protected:
    struct Option {
        int64_t many, rest;
        double penalty;
        int64_t cell;
    };

    // The bound of a number of steps by a price of the rests: its value, less its rounding; leaves in at_ the plan, in level_ the price of the number. over: by how much
    // the rests of the relaxation exceed what is left for them.
    double bound(int64_t number, double price, double& over) {
        const double nu = price - slope_;
        const int64_t room_for_rests = slack_ - number * step_;
        double u[kMaxFormats + 1];
        int64_t c[kMaxFormats + 1];
        steps_.clear();
        spend(static_cast<int64_t>(option_.size()), kTakes);
        int64_t room = number - low_;
        const size_t rows = at_.size();
        for (size_t g = 0; g < rows; ++g) {
            const int count = static_cast<int>(start_[g + 1] - start_[g]);
            for (int o = 0; o < count; ++o) {
                const Option& option = option_[start_[g] + static_cast<size_t>(o)];
                u[o] = option.penalty + nu * static_cast<double>(option.rest);
                c[o] = option.many;
            }
            const int x = cheapest(u, c, count);
            at_[g] = start_[g] + static_cast<size_t>(x);
            walk(u, c, count, static_cast<int64_t>(g), x, -kInfinity, steps_);
        }
        const size_t taken = weighted_select(steps_, room, watch_);
        for (size_t q = 0; q < taken; ++q) {
            const size_t after = start_[static_cast<size_t>(steps_[q].row)] + static_cast<size_t>(steps_[q].after);
            size_t& at = at_[static_cast<size_t>(steps_[q].row)];
            if (option_[after].many > option_[at].many) at = after;
        }
        double rest = 0.0;
        for (const size_t at : at_) rest += static_cast<double>(option_[at].rest);
        level_ = steps_.empty() ? 0.0 : steps_[std::min(taken, steps_.size() - 1)].slope;
        if (taken < steps_.size()) {
            const Step& s = steps_[taken];
            const size_t after = start_[static_cast<size_t>(s.row)] + static_cast<size_t>(s.after);
            const Option& from = option_[at_[static_cast<size_t>(s.row)]];
            rest += static_cast<double>(option_[after].rest - from.rest) * static_cast<double>(room) / static_cast<double>(s.dcost);
        }
        over = rest - static_cast<double>(room_for_rests);
        return value(number, nu);
    }

    // What a penalty and its two prices are.
    double priced(const Option& option, double nu) const {
        return option.penalty + nu * static_cast<double>(option.rest) + level_ * static_cast<double>(option.many);
    }

    double value(int64_t number, double nu) {
        long double sum = 0.0L;   // so that only the terms round
        double most = 0.0;
        for (size_t g = 0; g < at_.size(); ++g) {
            double least = kInfinity, size = 0.0;
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const Option& option = option_[o];
                const double priced_at = priced(option, nu);
                size = std::max(size, option.penalty + std::fabs(nu * static_cast<double>(option.rest)) + std::fabs(level_ * static_cast<double>(option.many)));
                if (!(priced_at < least)) continue;
                least = priced_at;
                at_[g] = o;
            }
            sum += least;
            most += size;
        }
        const double given = level_ * static_cast<double>(number) + nu * static_cast<double>(slack_ - number * step_);
        most += std::fabs(level_ * static_cast<double>(number)) + std::fabs(nu * static_cast<double>(slack_ - number * step_));
        return static_cast<double>(sum - static_cast<long double>(given)) - 0x1p-50 * most;
    }

    double slope_;
    int64_t slack_, step_, low_ = 0, high_ = 0;
    std::vector<size_t> start_, at_;   // of each row; its option
    std::vector<Option> option_;
    double level_ = 0.0;   // the price of a step

  private:
    static constexpr int64_t kTakes = 200;   // of the purse, what an option takes

    std::vector<Step> steps_;
    Watch watch_;
};

}  // namespace bitwright
