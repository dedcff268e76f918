// Of Solve (solve.hpp): where all deviations that are still of use cost multiples of one number, or all but those of a few rows.
//
// Of a step that all costs are multiples of, a part of the limit is of no use to any choice (`useless`). As the gap falls deviations drop out, and those left
// may have a longer one: rows of one kind tie at the critical slope and change by the same formats, or sizes are few. A better plan takes none but these,
// so it leaves at least what is left of the limit beyond a multiple (Gomory's group relaxation, 1969): the gap that is open is less by what that is worth.
#pragma once

#include "solve.hpp"

namespace bitwright {

// The deviations of use of all rows, where those in more than one stretch of the table cost multiples of a number that is worth much of the gap, which no
// few rows hide, or where they are few. False elsewhere.
inline bool Solve::may_round(std::vector<Cell>& cells) const {
    constexpr int64_t stretches = 8;
    constexpr size_t some = 8, enough = 48;   // cells of a stretch, at least, and at most or of one row more
    constexpr double much = 0.5;
    const Deviations all{t_, nullptr, choice_};
    std::vector<int64_t> steps;
    size_t begin = 0;   // of the stretch in hand
    bool found = false, whole = true;
    Watch watch(end_);
    for (int64_t s = 0; s < stretches && !found; ++s) {
        const int64_t end = t_.n * (s + 1) / stretches;
        int64_t i = t_.n * s / stretches;
        for (; i < end && cells.size() - begin < enough; ++i) {
            watch.step(t_.k);
            all.cells_of(i, answer_.slope, answer_.gap, cells);
        }
        whole = whole && i == end;
        if (cells.size() - begin < some) continue;
        const std::vector<Cell> of_stretch(cells.begin() + static_cast<std::ptrdiff_t>(begin), cells.end());
        const int64_t step = common_step(of_stretch, &Cell::dcost, step_);
        for (const int64_t other : steps) found = found || answer_.slope * static_cast<double>(std::gcd(step, other)) > much * answer_.gap;
        steps.push_back(step);
        begin = cells.size();
    }
    if (!found && steps.size() > 1) return false;
    if (whole && !found) return true;
    Sample sample = all.sampled(1, answer_.slope, answer_.gap, end_);
    cells = std::move(sample.cells);
    return !sample.cut;
}

// Of all rows, whichever are looked at. Once a gap. True when no plan is better.
inline bool Solve::by_multiples(double counted) {
    if (!(answer_.slope > 0) || slack_ == 0 || t_.n >= kWide / 2 || !(answer_.gap < rounded_) || spent()) return false;
    rounded_ = answer_.gap;
    std::vector<Cell> cells;
    if (!may_round(cells)) return false;
    const int64_t common = common_step(cells, &Cell::dcost, step_), rest = common > 0 ? slack_ % common : slack_;
    const double worth = std::min(answer_.gap, answer_.slope * static_cast<double>(rest));
    slack_ -= rest;
    lost_ += worth;
    answer_.gap -= worth;
    if (answer_.gap <= counted) return true;
    if (!middling()) return false;
    const CoreResult found = told_apart(cells, answer_.slope, slack_, answer_.gap, counted, end_);
    take(found, cells, count_rows(cells));
    return found.complete || answer_.gap <= counted;
}

}  // namespace bitwright
