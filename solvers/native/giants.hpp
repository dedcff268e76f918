// Of Solve (solve.hpp): long tables of a heavy tail, streamed or not (between.hpp), where the relaxation splits a row that is much of all costs.
//
// The gap is then as large as that row's next step, nearly every row is of use, and no search of all of them is short. With its format fixed the next
// relaxation splits a smaller row, and so on: what is left open in the end is of use to few rows. So rows near the critical slope are branched on, which
// takes a hundredth of a millisecond each; where a format moves that slope out of their bracket, the rows of another one are needed.
#pragma once

#include "others.hpp"
#include "solve.hpp"

namespace bitwright {

// Whether a row of a long table is much of all sizes, or costs. Beyond so many rows a look at all of them takes longer than it saves.
inline bool Solve::heavy() const {
    if (t_.n >= kWide / 2) return false;
    return levels_ != nullptr ? t_.size != nullptr && t_.top_size >= t_.total_size / kMuch : used_.partial() && uneven_;
}

// Whether the relaxation splits a row that is such a part of all sizes, or costs.
inline bool Solve::splits_one_in(int64_t part, int64_t every) const {
    if (!heavy()) return false;
    const std::vector<Cell> formats = sampled(every).critical;
    if (formats.empty()) return false;
    const int64_t row = formats.front().row;
    return levels_ != nullptr ? t_.weight(row) >= t_.total_size / part : t_.dearest(row) >= dearest_ / part;
}

// Branch on the rows of a level of a streamed table, or those next to the critical slope of another one, which tell the relaxation as long as its
// multiplier settles all other rows; these come in where a branch is closed. True when no plan of all rows is better.
inline bool Solve::branched_near(size_t level, double tiny, double counted) {
    const Bracket settled = levels_ != nullptr ? levels_->bracket(level) : settled_;
    if (spent()) return false;
    const Sample sample = sampled(1);
    if (sample.cut) return false;
    Unlisted unlisted({t_, nullptr, choice_}, base_.ids, base_.table.n, settled);
    const Others others = [&unlisted, this](double slope, double gap, std::vector<Cell>& cells) { unlisted.cells(slope, gap, end_, cells); };
    const Effort effort{0, kProved >> 2, tiny, std::max(0.0, end_ - now())};
    Branch branch(sample.cells, answer_.slope, slack_, answer_.gap, effort, {kChoices, counted, false, false, nullptr, settled, &others});
    const CoreResult found = branch.run();
    const bool better = found.gap < answer_.gap;
    take(found, sample.cells, count_rows(sample.cells));
    for (Cell cell : branch.of_others()) {
        cell.penalty = std::max(0.0, cell.dloss + answer_.slope * static_cast<double>(cell.dcost));
        if (better) moves_.push_back(cell);
    }
    return found.complete;
}

// Each format of a critical row that is much of all costs in turn, and what is left of the limit for the other rows: a table of its own, whose
// critical slope may be far from this one. True when no plan is better.
inline bool Solve::by_giant(double counted, int64_t every) {
    if (o_.depth > kGiants || spent() || !splits_one_in(kHeavy, every)) return false;
    std::vector<Cell> formats = sampled(every).critical;
    const int64_t giant = formats.front().row;
    formats.push_back({giant, 0, 0.0, 0.0, choice_[giant]});
    const Without rest(t_, giant);
    struct Child {
        Cell format;
        std::vector<uint8_t> choice;
        std::unique_ptr<Solve> solve;
        double bound;   // of the gap
    };
    std::vector<Child> children;
    for (const Cell& format : formats) {
        Child child{format, std::vector<uint8_t>(static_cast<size_t>(rest.table.n)), nullptr, 0.0};
        const Options options{o_.limit - t_.cost_at(giant, format.format), o_.threads, o_.full_rows, o_.work >> kLess, std::max(0.0, end_ - now()), 0.0, o_.seed,
                              {0.0, INFINITY}, o_.depth + 1, INFINITY, counted};
        child.solve = std::make_unique<Solve>(rest.table, options, child.choice.data());
        if (!child.solve->begin()) continue;
        child.bound = child.solve->answer_.bound + t_.loss_at(giant, format.format) - answer_.bound;
        children.push_back(std::move(child));
    }
    std::sort(children.begin(), children.end(), [](const Child& a, const Child& b) { return a.bound < b.bound; });
    bool complete = true;
    for (Child& child : children) {
        if (!(child.bound < answer_.gap + lost_) || answer_.gap <= counted) break;
        // A part of another problem is to be better than a plan of that, which its own moves do not tell.
        const double lost = t_.loss_at(giant, child.format.format), below = answer_.bound + lost_ + answer_.gap - lost;
        child.solve->o_.below = below;
        child.solve->complete();
        const Answer& part = child.solve->answer_;
        looked_ += child.solve->looked_;
        answer_.core = std::max(answer_.core, part.core);
        answer_.states = std::max(answer_.states, part.states);
        complete = complete && part.status == Status::kOptimal;
        if (!(part.loss < below)) continue;
        answer_.gap = part.loss + lost - answer_.bound - lost_;
        moves_.clear();
        for (int64_t i = 0; i < rest.table.n; ++i) move_to(rest.number(i), child.choice[static_cast<size_t>(i)]);
        move_to(giant, child.format.format);
    }
    return complete;
}

inline void Solve::move_to(int64_t row, int format) {
    const int x = choice_[row];
    if (x == format) return;
    const int64_t dcost = t_.cost_at(row, format) - t_.cost_at(row, x);
    const double dloss = t_.loss_at(row, format) - t_.loss_at(row, x);
    moves_.push_back({row, dcost, std::max(0.0, dloss + answer_.slope * static_cast<double>(dcost)), dloss, format});
}

}  // namespace bitwright
