// Numbers of which the costs of a core are multiples, but for a little.
#pragma once

#include <utility>

#include "beam.hpp"

namespace bitwright {

// Euclid's divisor, to rests of `small`.
inline int64_t near_divisor(int64_t a, int64_t b, int64_t small) {
    a = std::abs(a);
    b = std::abs(b);
    while (b > small) {
        const int64_t rest = a % b;
        a = std::exchange(b, std::min(rest, b - rest));
    }
    return a;
}

// Of the costs of one row.
inline int64_t near_divisor(const std::vector<Cell>& cells, const CellRow& row) {
    int64_t step = 0;
    for (size_t q = row.begin; q < row.end; ++q) step = near_divisor(step, cells[q].dcost, row.span() >> 12);
    return step;
}

inline int64_t nearest(int64_t cost, int64_t step) {
    const int64_t twice = 2 * (cost % step), many = cost / step;
    return twice > step ? many + 1 : twice < -step ? many - 1 : many;
}

// Numbers of which the costs of most cells are near multiples, the largest first.
inline std::vector<int64_t> near_divisors(const std::vector<Cell>& cells, int64_t finer) {
    constexpr int64_t least = 16;
    constexpr double off_most = 0.15;   // of a step, in the mean; costs in no order are off by a quarter
    std::vector<int64_t> found, of_row, kept;
    for (const CellRow& row : rows_of(cells)) of_row.push_back(near_divisor(cells, row));
    std::sort(of_row.begin(), of_row.end());
    for (const size_t part : {1, 2, 3}) found.push_back(of_row[of_row.size() * part / 4]);
    for (const int bits : {8, 12, 16, 20}) {
        int64_t step = of_row.back();
        for (size_t q = of_row.size(); q-- > 0;) step = near_divisor(std::max(step, of_row[q]), std::min(step, of_row[q]), of_row.back() >> bits);
        found.push_back(step);
    }
    found.erase(std::remove_if(found.begin(), found.end(), [](int64_t step) { return step < least; }), found.end());
    for (int64_t& step : found) {   // the number that fits best
        double a = 0.0, b = 0.0;
        for (const Cell& cell : cells) {
            const double many = std::rint(static_cast<double>(cell.dcost) / static_cast<double>(step));
            a += many * static_cast<double>(cell.dcost);
            b += many * many;
        }
        if (b > 0) step = std::max<int64_t>(1, static_cast<int64_t>(std::rint(a / b)));
    }
    std::sort(found.rbegin(), found.rend());
    for (const int64_t step : found) {
        if (step < least || step >= finer || (!kept.empty() && step > kept.back() - kept.back() / 64)) continue;
        double off = 0.0;
        for (const Cell& cell : cells) off += std::fabs(static_cast<double>(cell.dcost - nearest(cell.dcost, step) * step));
        const auto near = std::count_if(of_row.begin(), of_row.end(), [&](int64_t own) { return std::abs(own - step) <= step / 16; });
        if (off <= off_most * static_cast<double>(cells.size()) * static_cast<double>(step) || 4 * near >= 3 * static_cast<int64_t>(of_row.size())) kept.push_back(step);
    }
    return kept;
}

}  // namespace bitwright
