// The relaxation of a core with bounds on how many rows take a format of about one cost (counts.hpp).
//
// Its multipliers are a price of the limit and one of each bound. Where they are tried, the best plan of all rows tells a line that the value
// lies below; the mixture of such plans that meets all bounds in the mean and has the least value (Dantzig and Wolfe 1960) tells which are tried next.
// A plan serves whatever the bounds are.
#pragma once

#include "closer.hpp"
#include "rated.hpp"

namespace bitwright {

class CountsBound {
  public:
    // Bounds on the number of rows at one level of cost.
    struct Bounds {
        int32_t level;
        int64_t low, high;
    };

    // cells: those of one row together; levels: of each cell; of no cell, for each row.
    CountsBound(const std::vector<Cell>& cells, const std::vector<int32_t>& level, const std::vector<int32_t>& none, int32_t levels, double slope, int64_t slack, double end)
        : slope_(slope), slack_(slack), price_(slope), watch_(end) {
        for (size_t q = 0; q < cells.size(); ++q) {
            if (q == 0 || cells[q].row != cells[q - 1].row) {
                start_.push_back(option_.size());
                option_.push_back({0, 0.0, none[start_.size() - 1], -1});
            }
            option_.push_back({cells[q].dcost, cells[q].penalty, level[q], static_cast<int64_t>(q)});
            unit_ = std::max(unit_, std::fabs(static_cast<double>(cells[q].dcost)));
        }
        start_.push_back(option_.size());
        at_.resize(start_.size() - 1);
        of_level_.assign(static_cast<size_t>(levels), 0.0);
    }

  protected:
    struct Option {
        int64_t dcost;
        double penalty;
        int32_t level;
        int64_t cell;
    };

    int64_t rows() const { return static_cast<int64_t>(at_.size()); }

    // The best multipliers found, until their value is `enough`: it is left in value_, with price_ and of_level_. mean_: of each level, in the mixture
    // of plans.
    void bound(const std::vector<Bounds>& bounds, double enough, double gap) {
        demands(bounds);
        if (plan_.size() + kTried > kPlans) plan_.clear();   // a mixture of more would take too long
        const size_t m = demand_.size();
        std::vector<double> most(m, kBox * gap), y(m, 0.0), best(m, 0.0);
        most[0] = kBox * slope_ * unit_;
        y[0] = std::clamp(price_, 0.0, kBox * slope_) * unit_;
        value_ = -kInfinity;
        for (int t = 0; t < kTried; ++t) {
            const double found = value(y);
            if (found > value_) {
                value_ = found;
                best = y;
            }
            if (value_ >= enough) break;
            const double mixed = mixture(gap, most, y);
            if (mixed - value_ > kClose * (gap - value_)) continue;
            bool wider = false;   // a multiplier at the most that it may be
            for (size_t i = 0; i < m; ++i)
                if (y[i] >= most[i] * (1 - 1e-9) && most[i] < kWidest * gap) {
                    most[i] *= kWiden;
                    wider = true;
                }
            if (!wider) break;
            mixture(gap, most, y);
        }
        value(best);
        plan_.pop_back();
    }

    // Of all rows the best options at some multipliers: the value, less its rounding; leaves them in at_ and among the plans.
    double value(const std::vector<double>& y) {
        price_ = y[0] / unit_;
        std::fill(of_level_.begin(), of_level_.end(), 0.0);
        double given = 0.0, size = 0.0;
        for (size_t i = 1; i < y.size(); ++i) {
            of_level_[static_cast<size_t>(demand_[i].level)] += demand_[i].way * y[i];
            given += y[i] * static_cast<double>(demand_[i].most);
            size += std::fabs(y[i] * static_cast<double>(demand_[i].most));
        }
        return least(given, size);
    }

    // The same at price_ and of_level_. given: what the bounds are worth; size: the sum of its terms' magnitudes.
    double least(double given, double size) {
        const double nu = price_ - slope_;
        Plan plan{0.0, 0, std::vector<int32_t>(of_level_.size(), 0)};
        long double sum = 0.0L;   // so that only the terms round
        double most = size + std::fabs(nu * static_cast<double>(slack_));
        watch_.step(static_cast<int64_t>(option_.size()));
        for (size_t g = 0; g < at_.size(); ++g) {
            double low = kInfinity, terms = 0.0;
            size_t x = start_[g];
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const double priced_at = priced(option_[o]);
                terms = std::max(terms, option_[o].penalty + std::fabs(nu * static_cast<double>(option_[o].dcost)) + std::fabs(of_level_[static_cast<size_t>(option_[o].level)]));
                if (!(priced_at < low)) continue;
                low = priced_at;
                x = o;
            }
            at_[g] = x;
            sum += low;
            most += terms;
            plan.penalty += option_[x].penalty;
            plan.dcost += option_[x].dcost;
            ++plan.count[static_cast<size_t>(option_[x].level)];
        }
        looked_ += static_cast<int64_t>(option_.size());
        plan_.push_back(std::move(plan));
        return static_cast<double>(sum - static_cast<long double>(given) - static_cast<long double>(nu) * static_cast<long double>(slack_)) - 0x1p-50 * most;
    }

    double priced(const Option& o) const {
        return o.penalty + (price_ - slope_) * static_cast<double>(o.dcost) + of_level_[static_cast<size_t>(o.level)];
    }

    double slope_;
    int64_t slack_;
    std::vector<size_t> start_, at_;   // of each row; its option
    std::vector<Option> option_;
    double price_, value_ = 0.0;
    std::vector<double> of_level_, mean_;
    int64_t looked_ = 0;   // options
    Watch watch_;

  private:
    static constexpr int kTried = 160, kPivots = 32;
    static constexpr double kBox = 4, kWiden = 16, kWidest = 1e9, kClose = 1e-4;
    static constexpr size_t kPlans = 1 << 10;
    static constexpr int64_t kDearer = 2;   // numbers of a plan that are looked at for one option
    static constexpr int64_t kTakes = 5;   // of the purse, what such a number takes

    struct Plan {
        double penalty;
        int64_t dcost;
        std::vector<int32_t> count;
    };
    // The first is the limit; of the others `way` times the count is at most `most`.
    struct Demand {
        int32_t level;
        int way;
        int64_t most;
    };

    void demands(const std::vector<Bounds>& bounds) {
        demand_.assign(1, {0, 0, 0});
        for (const Bounds& b : bounds) {
            const bool fixed = b.low == b.high;
            if (fixed || b.high < rows()) demand_.push_back({b.level, 1, b.high});
            if (fixed || b.low > 0) demand_.push_back({b.level, -1, -b.low});
        }
    }

    // By how much a plan exceeds a demand.
    double excess(const Plan& plan, size_t i) const {
        if (i == 0) return static_cast<double>(plan.dcost - slack_) / unit_;
        return static_cast<double>(demand_[i].way * plan.count[static_cast<size_t>(demand_[i].level)] - demand_[i].most);
    }

    // The least value of a mixture of plans, by the simplex method; leaves in y what its demands are worth, in mean_ its counts. To exceed a demand costs
    // `most` a unit.
    double mixture(double gap, const std::vector<double>& most, std::vector<double>& y) {
        const size_t m = demand_.size(), p = plan_.size(), width = m + 1;
        std::vector<double> column(p * width);   // of each plan: its excesses, and its value
        for (size_t c = 0; c < p; ++c) {
            for (size_t i = 0; i < m; ++i) column[c * width + i] = excess(plan_[c], i);
            column[c * width + m] = (plan_[c].penalty - slope_ * static_cast<double>(plan_[c].dcost - slack_)) / gap;
        }
        // In the basis: numbers of plans, then p + i for what is left of demand i, p + m + i for what it is exceeded by.
        std::vector<size_t> basis(width);
        std::vector<double> inverse(width * width, 0.0), x(width), dual(width), entering(width);
        const double* first = &column[(p - 1) * width];
        for (size_t i = 0; i < m; ++i) {
            const double way = first[i] > 0 ? -1.0 : 1.0;
            basis[i] = first[i] > 0 ? p + m + i : p + i;
            inverse[i * width + i] = way;
            inverse[i * width + m] = -way * first[i];
            x[i] = std::fabs(first[i]);
        }
        basis[m] = p - 1;
        inverse[m * width + m] = 1.0;
        x[m] = 1.0;
        const auto cost = [&](size_t q) { return q < p ? column[q * width + m] : q < p + m ? 0.0 : most[q - p - m] / gap; };
        for (size_t pivots = 0;; ++pivots) {
            std::fill(dual.begin(), dual.end(), 0.0);
            for (size_t r = 0; r < width; ++r)
                for (size_t i = 0; i < width; ++i) dual[i] += cost(basis[r]) * inverse[r * width + i];
            size_t in = 0;
            double least = -1e-13;
            for (size_t c = 0; c < p; ++c) {
                double reduced = column[c * width + m] - dual[m];
                for (size_t i = 0; i < m; ++i) reduced -= dual[i] * column[c * width + i];
                if (reduced < least) {
                    least = reduced;
                    in = c;
                }
            }
            for (size_t i = 0; i < m; ++i) {
                for (const bool exceeded : {false, true}) {
                    const double reduced = exceeded ? most[i] / gap + dual[i] : -dual[i];
                    if (!(reduced < least)) continue;
                    least = reduced;
                    in = p + i + (exceeded ? m : 0);
                }
            }
            looked_ += static_cast<int64_t>(p * width) / kDearer;
            spend(static_cast<int64_t>((p + 2 * width) * width), kTakes);
            if (!(least < -1e-13) || pivots == kPivots * width) break;
            for (size_t r = 0; r < width; ++r) {
                const double* row = &inverse[r * width];
                double sum = 0.0;
                if (in >= p + m) sum = -row[in - p - m];
                else if (in >= p) sum = row[in - p];
                else {
                    sum = row[m];
                    for (size_t i = 0; i < m; ++i) sum += row[i] * column[in * width + i];
                }
                entering[r] = sum;
            }
            size_t out = width;
            double step = kInfinity;
            for (size_t r = 0; r < width; ++r) {
                if (!(entering[r] > 1e-11)) continue;
                const double ratio = std::max(0.0, x[r]) / entering[r];
                if (ratio < step || (ratio == step && entering[r] > entering[out])) {
                    step = ratio;
                    out = r;
                }
            }
            if (out == width) break;
            for (size_t r = 0; r < width; ++r) x[r] = r == out ? step : x[r] - step * entering[r];
            for (size_t i = 0; i < width; ++i) inverse[out * width + i] /= entering[out];
            for (size_t r = 0; r < width; ++r) {
                if (r == out || entering[r] == 0) continue;
                for (size_t i = 0; i < width; ++i) inverse[r * width + i] -= entering[r] * inverse[out * width + i];
            }
            basis[out] = in;
        }
        mean_.assign(of_level_.size(), 0.0);
        double total = 0.0;
        for (size_t r = 0; r < width; ++r) {
            total += cost(basis[r]) * x[r];
            if (basis[r] >= p) continue;
            for (size_t l = 0; l < mean_.size(); ++l) mean_[l] += x[r] * plan_[basis[r]].count[l];
        }
        for (size_t i = 0; i < m; ++i) y[i] = std::clamp(-dual[i] * gap, 0.0, most[i]);
        return total * gap;
    }

    std::vector<Demand> demand_;
    std::vector<Plan> plan_;
    double unit_ = 1.0;
};

}  // namespace bitwright
