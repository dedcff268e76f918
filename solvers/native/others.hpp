// The rows of a table but for some: those that a level did not list, and all but one.
#pragma once

#include "deviations.hpp"

namespace bitwright {

// Rows that are not in a list, and the cells that they add to those of it at multipliers of a bracket that settles them: each has one best format in all of it.
class Unlisted {
  public:
    Unlisted(const Deviations& all, const uint32_t* listed, int64_t count, Bracket settled) : all_(all), settled_(settled), is_listed_(static_cast<size_t>(all.table.n), 0) {
        for (int64_t i = 0; i < count; ++i) is_listed_[listed[i]] = 1;
    }

    // Those of penalties below `gap` at a multiplier. Throws Late past `end`.
    void cells(double slope, double gap, double end, std::vector<Cell>& out) {
        Watch watch(end);
        if (!(gap <= found_)) find(gap, watch);
        if (gap < found_ / 2) {   // as gaps fall, so that few rows are looked at again and again
            rows_.erase(std::remove_if(rows_.begin(), rows_.end(), [&](const Row& row) { return !(row.least < gap); }), rows_.end());
            found_ = gap;
        }
        for (const Row& row : rows_) {
            watch.step(all_.table.k);
            if (row.least < gap) all_.cells_of(row.at, slope, gap, out);
        }
    }

  private:
    // least: no other format has a penalty below it at any of the multipliers.
    struct Row {
        double least;
        int64_t at;
    };

    // All of a penalty below `gap` somewhere in the bracket: a dearer format's is least at its low end, a cheaper one's at its high end.
    void find(double gap, Watch& watch) {
        const Table& t = all_.table;
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        rows_.clear();
        for (int64_t i = 0; i < t.n; ++i) {
            watch.step(t.k);
            if (is_listed_[static_cast<size_t>(i)] != 0) continue;
            t.row(i, l, c);
            const int x = all_.choice[i];
            const double lost = l[x];
            const int64_t paid = c[x];
            double least = kInfinity;
            for (int j = 0; j < t.k; ++j) {
                if (c[j] == paid) continue;
                const double dcost = static_cast<double>(c[j] - paid);
                least = std::min(least, (l[j] - lost) + (dcost > 0 ? settled_.low : settled_.high) * dcost);
            }
            if (least < gap) rows_.push_back({least, i});
        }
        found_ = gap;
    }

    Deviations all_;
    Bracket settled_;
    std::vector<char> is_listed_;
    std::vector<Row> rows_;
    double found_ = -1.0;   // the gap that they were looked for
};

// A table without one of its rows: the last one stands in its place.
struct Without {
    std::vector<char> loss;
    std::vector<int64_t> size;   // or costs
    Table table;
    int64_t out;

    Without(const Table& from, int64_t row) : table(from), out(row) {
        const int64_t last = from.n - 1, bytes = from.row_bytes();
        loss.resize(static_cast<size_t>(last * bytes));
        std::memcpy(loss.data(), from.loss, loss.size());
        if (row < last) std::memcpy(loss.data() + row * bytes, from.row_at(last), static_cast<size_t>(bytes));
        if (from.matrix != nullptr) {
            size.assign(from.matrix, from.matrix + last * from.k);
            if (row < last) std::copy_n(from.matrix + last * from.k, from.k, size.begin() + row * from.k);
            table.matrix = size.data();
        } else {
            size.resize(static_cast<size_t>(last));
            std::memcpy(size.data(), from.size, size.size() * sizeof(int64_t));
            if (row < last) size[static_cast<size_t>(row)] = from.weight(last);
            table.size = size.data();
        }
        table.loss = loss.data();
        table.n = last;
        table.mapped = false;
        table.total_size = table.top_size = table.divisor = table.least_size = 0;
    }
    Without(const Without&) = delete;
    Without& operator=(const Without&) = delete;

    int64_t number(int64_t i) const { return i == out ? table.n : i; }
};

}  // namespace bitwright
