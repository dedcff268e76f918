// The rows of a core by rising least penalty per unit of cost (solvers/core_table.py says why).
#pragma once

#include <algorithm>

#include "core.hpp"

namespace bitwright {

// place: which of the options given each one of the table is.
struct Rated {
    std::vector<int64_t> start{0}, dcost, place;
    std::vector<double> penalty;

    int64_t rows() const { return static_cast<int64_t>(start.size()) - 1; }
    CoreTable table() const { return {rows(), start.data(), dcost.data(), penalty.data()}; }

    // Cells of a search of the table, as numbers of the options given.
    void back(std::vector<int64_t>& cells) const {
        for (int64_t& q : cells) q = place[static_cast<size_t>(q)];
    }
};

// options: those of one row together. At most `most` rows are taken; all: how many there are; end: throws Late after it.
template <class Option>
Rated by_rate(const std::vector<Option>& options, int64_t most, int64_t& all, double end) {
    struct Group { double rate; size_t begin, end; };
    std::vector<Group> groups;
    Watch watch(end);
    for (size_t q = 0; q < options.size(); ++q) {
        watch.step();
        if (q == 0 || options[q].row != options[q - 1].row) groups.push_back({kInfinity, q, q});
        groups.back().end = q + 1;
        groups.back().rate = std::min(groups.back().rate, options[q].penalty / std::fabs(static_cast<double>(options[q].dcost)));
    }
    watched(watch, groups.size(), [](const Group& a, const Group& b) { return a.rate < b.rate; },
            [&](auto less) { std::stable_sort(groups.begin(), groups.end(), less); });
    all = static_cast<int64_t>(groups.size());
    if (all > most) groups.resize(static_cast<size_t>(most));
    Rated out;
    for (const Group& group : groups) {
        watch.step(static_cast<int64_t>(group.end - group.begin));
        for (size_t q = group.begin; q < group.end; ++q) {
            out.dcost.push_back(options[q].dcost);
            out.penalty.push_back(options[q].penalty);
            out.place.push_back(static_cast<int64_t>(q));
        }
        out.start.push_back(static_cast<int64_t>(out.dcost.size()));
    }
    return out;
}

}  // namespace bitwright
