// The rows of a table but for some: those that a level did not list, and all but one.
#pragma once

#include "deviations.hpp"

namespace bitwright {

// Rows that are not in a list, and the cells that they add to those of it.
class Unlisted {
  public:
    Unlisted(const Deviations& all, const uint32_t* listed, int64_t count) : all_(all), is_listed_(static_cast<size_t>(all.table.n), 0) {
        for (int64_t i = 0; i < count; ++i) is_listed_[listed[i]] = 1;
    }

    // Those of penalties below `gap` at a multiplier. Throws Late past `end`.
    void cells(double slope, double gap, double end, std::vector<Cell>& out) const {
        Watch watch(end);
        for (int64_t i = 0; i < all_.table.n; ++i) {
            watch.step(all_.table.k);
            if (is_listed_[static_cast<size_t>(i)] == 0) all_.cells_of(i, slope, gap, out);
        }
    }

  private:
    Deviations all_;
    std::vector<char> is_listed_;
};

// A table of compact costs without one of its rows: the last one stands in its place.
struct Without {
    std::vector<char> loss;
    std::vector<int64_t> size;
    Table table;
    int64_t out;

    Without(const Table& from, int64_t row) : table(from), out(row) {
        const int64_t last = from.n - 1, bytes = from.row_bytes();
        loss.resize(static_cast<size_t>(last * bytes));
        size.resize(static_cast<size_t>(last));
        std::memcpy(loss.data(), from.loss, loss.size());
        std::memcpy(size.data(), from.size, size.size() * sizeof(int64_t));
        if (row < last) {
            std::memcpy(loss.data() + row * bytes, from.row_at(last), static_cast<size_t>(bytes));
            size[static_cast<size_t>(row)] = from.weight(last);
        }
        table.loss = loss.data();
        table.size = size.data();
        table.n = last;
        table.mapped = false;
        table.total_size = table.top_size = table.divisor = table.least_size = 0;
    }
    Without(const Without&) = delete;
    Without& operator=(const Without&) = delete;

    int64_t number(int64_t i) const { return i == out ? table.n : i; }
};

}  // namespace bitwright
