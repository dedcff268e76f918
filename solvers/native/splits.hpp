// Of Solve (solve.hpp): streamed tables too long for a copy (giants.hpp), where the relaxation splits a row that is large.
//
// The gap is then as large as that row's step, and every row is of use. With its format fixed, what the other rows should do is what they do in the
// whole table under another limit: at the multiplier of that one the large row has a format too, which is taken off the sums, and the fixed one
// put in its place. So each format of it takes one more solve (branch and bound on the variable that is split; Dyer, Kayal and Walker 1984): of the rows
// that the first pass listed, as long as its bracket holds that multiplier, and with a pass of its own only where the end of the bracket does not tell
// that no plan of the format is better.
#pragma once

#include "solve.hpp"

namespace bitwright {

// Whether the rows listed are not all of use, in a table that giants.hpp is not for.
inline bool Solve::splits(double small) const {
    return levels_ != nullptr && t_.n >= kWide / 2 && t_.size != nullptr && o_.depth < kSplits && answer_.gap > small && reach(1) < answer_.gap && !past(end_);
}

// Whether a row is not worth solves of its own.
inline bool Solve::small_row(int64_t row) const { return t_.weight(row) / kLarge < t_.total_size / t_.n; }

// Whether each format of the critical row leaves more open than is stated, so that no search of the rows as they are gets there. By about how much the
// multiplier changes for what is then left, or missing: costs within the first bracket are taken to lie evenly.
inline bool Solve::parts(double small, int64_t every) const {
    constexpr int64_t apart = 16;
    const Bracket b = levels_->bracket(1);
    const Table& rows = levels_->table(1);
    const Sample sample = sampled(every);
    if (!(b.low < b.high && b.high < 0x1p800) || sample.critical.empty() || small_row(sample.critical.front().row)) return false;
    double shift = static_cast<double>(slack_), dense = 0.0, l[kMaxFormats];
    for (const Cell& cell : sample.critical) shift = std::min(shift, std::fabs(static_cast<double>(cell.dcost - slack_)));
    int64_t c[kMaxFormats];
    for (int64_t i = 0; i < rows.n; i += apart) {
        rows.row(i, l, c);
        dense += static_cast<double>(c[start(l, c, rows.k, b.low)] - c[start(l, c, rows.k, b.high)]);
    }
    return shift * shift * (b.high - b.low) > small * dense * apart;   // half of what is expected
}

// By formats, where the relaxation splits a large row. True when what is left open is little enough. early: only where other searches are in vain.
inline bool Solve::told_by_formats(double small, double counted, int64_t every, bool early) {
    if (told_ || !splits(small) || (early && (t_.n < kLong || !parts(small, every)))) return false;
    told_ = true;
    by_formats(counted, every);
    return answer_.gap - least_ <= (t_.n >= kLong ? std::max(small, counted) : counted);
}

// The rows that the first pass of a solve has listed, and what its plan does with the others: it is the best there is for them at every multiplier in the
// bracket of that pass. The formats of the rows listed are as they were when this goes.
class Solve::Listed {
  public:
    explicit Listed(const Solve& of) : of_(of), rows_(of.levels_->table(1)), id_(of.levels_->ids(1)), cost(of.answer_.cost) {
        const Bracket b = of.levels_->bracket(1);
        serves = b.low < b.high && b.high < 0x1p800;   // else rows of equal slopes are not settled
        long double sum = 0.0L;
        for (int64_t i = 0; serves && i < rows_.n; ++i) {
            stood_.push_back(of.choice_[id_[i]]);
            cost -= rows_.cost_at(i, stood_.back());
            sum += rows_.loss_at(i, stood_.back());
        }
        loss = static_cast<double>(of.answer_.loss - sum);
    }
    ~Listed() { restore(); }
    Listed(const Listed&) = delete;
    Listed& operator=(const Listed&) = delete;

    void restore() const {
        for (size_t i = 0; i < stood_.size(); ++i) of_.choice_[id_[i]] = stood_[i];
    }

    // What the choice differs in from what it was.
    std::vector<Change> changes() const {
        std::vector<Change> out;
        for (size_t i = 0; i < stood_.size(); ++i)
            if (of_.choice_[id_[i]] != stood_[i]) out.push_back({id_[i], of_.choice_[id_[i]]});
        return out;
    }

    // No plan within the limit loses less than this, by a multiplier of the bracket.
    double bound(double slope, int64_t limit) const {
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        long double sum = loss + slope * (static_cast<long double>(cost) - static_cast<long double>(limit));
        for (int64_t i = 0; i < rows_.n; ++i) {
            rows_.row(i, l, c);
            double least = INFINITY;
            for (int j = 0; j < rows_.k; ++j) least = std::min(least, l[j] + slope * static_cast<double>(c[j]));
            sum += least;
        }
        return static_cast<double>(sum);
    }

  private:
    const Solve& of_;
    const Table rows_;
    const uint32_t* id_;
    std::vector<uint8_t> stood_;

  public:
    bool serves;
    int64_t cost;   // of the others
    double loss;
};

// Each format of the critical row in turn, those first that leave the others' part of the limit nearly as it is. `least_`: what is left open.
inline void Solve::by_formats(double counted, int64_t every) {
    std::vector<Cell> formats = sampled(every).critical;
    if (formats.empty()) return;
    const int64_t row = formats.front().row;
    if (small_row(row)) return;
    const int x = choice_[row];
    formats.push_back({row, 0, 0.0, 0.0, x});
    int y = x;   // the end of the step that is split
    double least = INFINITY;
    for (const Cell& cell : formats) {
        if (cell.dcost <= slack_ || cell.penalty >= least) continue;
        least = cell.penalty;
        y = cell.format;
    }
    if (y == x) return;
    std::sort(formats.begin(), formats.end(), [this](const Cell& a, const Cell& b) { return std::abs(a.dcost - slack_) < std::abs(b.dcost - slack_); });
    double open = INFINITY;
    const Listed listed(*this);
    for (const Cell& cell : formats) {
        if (!(cell.penalty < answer_.gap)) continue;
        const int own = cell.dcost < slack_ ? y : x;   // the format that the row has where the others get more, or less
        const int64_t more = t_.cost_at(row, own) - t_.cost_at(row, cell.format);
        const double swapped = t_.loss_at(row, cell.format) - t_.loss_at(row, own), from = answer_.bound + lost_;
        const Options options{o_.limit + more, o_.threads, o_.full_rows, o_.work >> kLess, std::max(0.0, end_ - now()), 0.0, o_.seed,
                              {0.0, INFINITY}, o_.depth + 1, from + answer_.gap - swapped, counted};
        // What the row's format adds to a bound of all plans at a multiplier.
        const auto fixed = [&](double slope) {
            double all = INFINITY;
            for (int j = 0; j < t_.k; ++j) all = std::min(all, t_.loss_at(row, j) + slope * static_cast<double>(t_.cost_at(row, j)));
            return t_.loss_at(row, cell.format) + slope * static_cast<double>(t_.cost_at(row, cell.format)) - all + slope * static_cast<double>(more);
        };
        auto solve = std::make_unique<Solve>(t_, options, choice_);
        std::vector<uint8_t> choice;   // where the table is passed over again
        const int side = listed.serves ? solve->begin_within(*levels_, listed.cost, listed.loss) : 1;
        if (side != 0) {
            listed.restore();
            const Bracket b = levels_->bracket(1);
            const double end = side > 0 ? b.high : b.low;
            if (listed.serves && !(listed.bound(end, options.limit) + fixed(end) - from < answer_.gap)) continue;
            choice.resize(static_cast<size_t>(t_.n));
            solve = std::make_unique<Solve>(t_, options, choice.data());
            if (!solve->begin()) continue;
        }
        const Answer& part = solve->answer_;
        answer_.passes += part.passes;
        answer_.listed = std::max(answer_.listed, part.listed);
        const double bound = part.bound + fixed(part.slope) - from;
        if (!(bound < answer_.gap)) {
            listed.restore();
            continue;
        }
        std::vector<Change> changes;
        if (side == 0) changes = listed.changes();
        for (int64_t i = 0; i < static_cast<int64_t>(choice.size()); ++i)
            if (choice[i] != choice_[i]) changes.push_back({i, choice[i]});
        for (const Change& one : solve->searched()) changes.push_back(one);
        listed.restore();
        looked_ += solve->looked_;
        answer_.core = std::max(answer_.core, part.core);
        answer_.states = std::max(answer_.states, part.states);
        const double proved = part.status == Status::kOptimal ? std::min(part.loss, options.below) : part.bound + solve->lost_ + solve->least_;
        open = std::min(open, std::max(bound, proved + swapped - from));
        const auto last = std::find_if(changes.rbegin(), changes.rend(), [row](const Change& one) { return one.row == row; });
        const int was = last == changes.rend() ? x : last->format;   // of the row in that plan
        const int64_t cost = part.cost + t_.cost_at(row, cell.format) - t_.cost_at(row, was);
        const double loss = part.loss + t_.loss_at(row, cell.format) - t_.loss_at(row, was);
        if (cost > o_.limit || !(loss - from < answer_.gap)) continue;
        answer_.gap = other_.gap = loss - from;
        changes.push_back({row, static_cast<uint8_t>(cell.format)});
        other_.changes = std::move(changes);
        other_.cost = cost;
        other_.loss = loss;
    }
    least_ = std::min(open, answer_.gap);
}

}  // namespace bitwright
