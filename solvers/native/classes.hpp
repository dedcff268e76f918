// Deviations that matter where costs are few: those of equal cost stand in for each other.
#pragma once

#include <functional>
#include <numeric>
#include <unordered_map>

#include "totals.hpp"

namespace bitwright {

// How many rows a plan better than the gap in hand deviates in, at most: it pays for each of them the least penalty of that row or more, so
// no more than the least ones that together pay less than the gap.
inline size_t most_rows(std::vector<double> least, double gap, Watch& watch) {
    const double most = gap * (1 + 1e-9);   // by more than the sums' rounding
    size_t sorted = 0, rows = 0;
    double paid = 0.0;
    while (rows < least.size()) {
        if (rows == sorted) {
            const size_t from = sorted;
            sorted = std::min(least.size(), 2 * sorted + 256);
            const auto begin = least.begin() + static_cast<std::ptrdiff_t>(from), end = least.begin() + static_cast<std::ptrdiff_t>(sorted);
            watched(watch, least.size() - from, std::less<>(), [&](auto less) { std::nth_element(begin, end - 1, least.end(), less); });
            std::sort(begin, end);
        }
        if (!(paid + least[rows] <= most)) break;
        paid += least[rows++];
    }
    return rows;
}

// How many cells a plan better than the gap in hand needs, at most, where some of them are nearly free: those of no more penalty than `free`. Of its cells
// none add up to nothing (without those it costs as much and loses no more). Taken in such an order that their sum stays between the dearest cells of
// either way (Steinitz 1913), the free ones come to no sum twice, a multiple of what they are all multiples of, until those left are of one way, which
// lead to what the limit and the dear cells leave for them.
inline double most_cells(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double free, Watch& watch) {
    struct Way {
        double least = kInfinity, most = 0.0, dear = 0.0, rate = kInfinity;   // steps of free cells; the largest and the least rate of dear ones
    };
    Way ways[2];
    std::vector<double> dear;   // least penalty of each row's dear cells
    int64_t step = 0;
    for (size_t begin = 0, end = 0; begin < cells.size(); begin = end) {
        double low = kInfinity;
        for (end = begin; end < cells.size() && cells[end].row == cells[begin].row; ++end) {
            const Cell& cell = cells[end];
            if (!(cell.penalty < gap)) continue;
            Way& way = ways[cell.dcost < 0];
            const double far = std::fabs(static_cast<double>(cell.dcost));
            if (cell.penalty > free) {
                low = std::min(low, cell.penalty);
                way.dear = std::max(way.dear, far);
                way.rate = std::min(way.rate, cell.penalty / far);
                continue;
            }
            way.least = std::min(way.least, far);
            way.most = std::max(way.most, far);
            if (step != 1 && (step == 0 || cell.dcost % step != 0)) step = std::gcd(step, cell.dcost);
        }
        if (low < gap) dear.push_back(low);
        watch.step(static_cast<int64_t>(end - begin));
    }
    const double rows = static_cast<double>(most_rows(std::move(dear), gap, watch));
    if (step == 0) return rows;
    const auto moved = [&](const Way& way) { return rows > 0 && way.dear > 0 ? std::min(rows * way.dear, gap / way.rate) : 0.0; };
    const double wide = std::max(ways[0].most, ways[1].most), left = static_cast<double>(slack);
    const double far = std::max(left + moved(ways[1]), gap / slope - left + moved(ways[0]));
    const double mixed = ways[0].most > 0 && ways[1].most > 0 ? (ways[0].most + ways[1].most) / static_cast<double>(step) : 0.0;
    return (rows + mixed + (far + wide) / std::min(ways[0].least, ways[1].least)) * (1 + 1e-9) + 4;
}

// Which cells such a plan may need: of each extra cost those of least penalty, as many as it has cells. Where it takes a cell that is
// left out, some cell of that cost and of no more penalty is of a row that it leaves alone: exchanged, the plan costs as much and loses no
// more. cells: those of one row together; so are those returned.
inline std::vector<uint32_t> of_each_cost(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, Watch& watch) {
    constexpr double nearly_free[] = {0x1p-20, 0x1p-10, 1.0};   // of the gap
    std::vector<double> least;   // of each row
    std::unordered_map<int64_t, std::vector<uint32_t>> of;
    for (size_t begin = 0, end = 0; begin < cells.size(); begin = end) {
        double low = kInfinity;
        for (end = begin; end < cells.size() && cells[end].row == cells[begin].row; ++end) {
            const Cell& cell = cells[end];
            low = std::min(low, cell.penalty);
            if (!(cell.penalty < gap)) continue;
            // Of cells of a row that cost as much one is enough: then each cell of a cost is of its own row.
            std::vector<uint32_t>& places = of[cell.dcost];
            if (places.empty() || places.back() < begin) places.push_back(static_cast<uint32_t>(end));
            else if (cell.penalty < cells[places.back()].penalty) places.back() = static_cast<uint32_t>(end);
        }
        if (low < gap) least.push_back(low);
        watch.step(static_cast<int64_t>(end - begin));
    }
    size_t most = most_rows(std::move(least), gap, watch);
    for (const double free : nearly_free) {
        const double cells_of_it = slope > 0 ? most_cells(cells, slope, slack, gap, free * gap, watch) : kInfinity;
        if (cells_of_it < static_cast<double>(most)) most = static_cast<size_t>(cells_of_it);
    }
    const auto nearer = [&](uint32_t a, uint32_t b) { return cells[a].penalty != cells[b].penalty ? cells[a].penalty < cells[b].penalty : a < b; };
    std::vector<uint32_t> kept;
    for (auto& [dcost, places] : of) {
        if (places.size() > most) {
            watched(watch, places.size(), nearer, [&](auto less) {
                std::nth_element(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(most), places.end(), less);
            });
            places.resize(most);
        }
        kept.insert(kept.end(), places.begin(), places.end());
    }
    std::sort(kept.begin(), kept.end());
    return kept;
}

// A table of totals of these: complete when no plan is better. A plan found at first leaves fewer of them. last: how many additions the
// last table may take. Throws Late past `end`.
inline CoreResult by_each_cost(const std::vector<Cell>& cells, double slope, int64_t slack, int64_t step, double gap, double enough, double end, double last = 0x1p26) {
    constexpr size_t rows = 1 << 13;
    constexpr double first = 0x1p22;
    Watch watch(end);
    CoreResult best{gap, false, 0, 0, {}};
    for (double most = first; most <= last && !best.complete && best.gap > enough; most *= 4) {
        const std::vector<uint32_t> kept = of_each_cost(cells, slope, slack, best.gap, watch);
        std::vector<Cell> few;
        few.reserve(kept.size());
        for (const uint32_t q : kept) few.push_back(cells[q]);
        watch.look();
        const CoreResult found = Totals(few, slope, slack, step, best.gap, rows).run(enough, most);
        best.complete = found.complete;
        best.states = std::max(best.states, found.states);
        if (!(found.gap < best.gap)) continue;
        best.gap = found.gap;
        best.cells.clear();
        for (const int64_t q : found.cells) best.cells.push_back(kept[static_cast<size_t>(q)]);
    }
    return best;
}

}  // namespace bitwright
