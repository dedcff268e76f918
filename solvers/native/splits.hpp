// Of Solve (solve.hpp): streamed tables too long for a copy (giants.hpp), where the relaxation splits a row that is large.
//
// The gap is then as large as that row's step, and every row is of use. With its format fixed, what the other rows should do is what they do in the
// whole table under another limit: at the multiplier of that one the large row has a format too, which is taken off the sums, and the fixed one
// put in its place. So each format of it takes one more solve (branch and bound on the variable that is split; Dyer, Kayal and Walker 1984).
#pragma once

#include "solve.hpp"

namespace bitwright {

// Whether the rows listed are not all of use, in a table that giants.hpp is not for.
inline bool Solve::splits(double small) const {
    return levels_ != nullptr && t_.n >= kWide / 2 && t_.size != nullptr && o_.depth < kSplits && answer_.gap > small && reach(1) < answer_.gap && !past(end_);
}

// Each format of the critical row in turn, those first that leave the others' part of the limit nearly as it is. `least_`: what is left open.
inline void Solve::by_formats(double counted, int64_t every) {
    std::vector<Cell> formats = sampled(every).critical;
    if (formats.empty()) return;
    const int64_t row = formats.front().row;
    if (t_.weight(row) / kLarge < t_.total_size / t_.n) return;
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
    for (const Cell& cell : formats) {
        if (!(cell.penalty < answer_.gap)) continue;
        const int own = cell.dcost < slack_ ? y : x;   // the format that the row has where the others get more, or less
        const int64_t more = t_.cost_at(row, own) - t_.cost_at(row, cell.format);
        const double swapped = t_.loss_at(row, cell.format) - t_.loss_at(row, own), from = answer_.bound + lost_;
        std::vector<uint8_t> choice(static_cast<size_t>(t_.n));
        const Options options{o_.limit + more, o_.threads, o_.full_rows, o_.work >> kLess, std::max(0.0, end_ - now()), 0.0, o_.seed,
                              {0.0, INFINITY}, o_.depth + 1, from + answer_.gap - swapped, counted};
        Solve solve(t_, options, choice.data());
        if (!solve.begin()) continue;
        const Answer& part = solve.answer_;
        answer_.passes += part.passes;
        answer_.listed = std::max(answer_.listed, part.listed);
        double all = INFINITY;   // of the row at that multiplier
        for (int j = 0; j < t_.k; ++j) all = std::min(all, t_.loss_at(row, j) + part.slope * static_cast<double>(t_.cost_at(row, j)));
        const double fixed = t_.loss_at(row, cell.format) + part.slope * static_cast<double>(t_.cost_at(row, cell.format));
        double bound = part.bound + (fixed - all) + part.slope * static_cast<double>(more) - from;
        if (!(bound < answer_.gap)) continue;
        solve.complete();
        looked_ += solve.looked_;
        answer_.core = std::max(answer_.core, part.core);
        answer_.states = std::max(answer_.states, part.states);
        const double proved = part.status == Status::kOptimal ? std::min(part.loss, options.below) : part.bound + solve.lost_ + solve.least_;
        open = std::min(open, std::max(bound, proved + swapped - from));
        const int64_t cost = part.cost + t_.cost_at(row, cell.format) - t_.cost_at(row, choice[row]);
        const double loss = part.loss + t_.loss_at(row, cell.format) - t_.loss_at(row, choice[row]);
        if (cost > o_.limit || !(loss - from < answer_.gap)) continue;
        answer_.gap = other_.gap = loss - from;
        choice[row] = static_cast<uint8_t>(cell.format);
        other_.choice = std::move(choice);
        other_.cost = cost;
        other_.loss = loss;
    }
    least_ = std::min(open, answer_.gap);
}

}  // namespace bitwright
