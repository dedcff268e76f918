// What searches look at of a long table without levels: first the rows nearest to the critical slope, later those that a plan with less
// gap may differ in. Both are copied out, so that no search passes over the others again.
#pragma once

#include "deviations.hpp"

namespace bitwright {

// Some rows of a table, as a table of their own.
struct Copied {
    std::vector<char> loss;
    std::vector<int64_t> cost;
    std::vector<uint32_t> id;

    Copied() = default;
    Copied(const Deviations& from, const std::vector<int64_t>& rows) {
        const Table& t = from.table;
        loss.resize(rows.size() * static_cast<size_t>(t.row_bytes()));
        cost.resize(rows.size() * static_cast<size_t>(t.k));
        id.reserve(rows.size());
        char* at = loss.data();
        int64_t* paid = cost.data();
        for (const int64_t i : rows) {
            std::memcpy(at, t.row_at(i), static_cast<size_t>(t.row_bytes()));
            for (int j = 0; j < t.k; ++j) paid[j] = t.cost_at(i, j);
            id.push_back(static_cast<uint32_t>(from.number(i)));
            at += t.row_bytes();
            paid += t.k;
        }
    }

    Deviations view(const Deviations& from) const {
        Table v = from.table;
        v.loss = loss.data();
        v.matrix = cost.data();
        v.size = nullptr;
        v.n = static_cast<int64_t>(id.size());
        v.mapped = false;
        return {v, id.data(), from.choice};
    }
};

class Used {
  public:
    Used() = default;
    explicit Used(const Deviations& all) : all_(all) {}

    // Whether what is looked at lacks rows of use.
    bool partial() const { return partial_; }

    Deviations nearest(const std::vector<int64_t>& rows) {
        near_ = Copied(all_, rows);
        partial_ = true;
        return near_.view(all_);
    }

    // All that have another format of a penalty below `gap` at a multiplier, and others where these are most rows. Throws Late past `end`.
    Deviations of_use(double slope, double gap, double end) {
        partial_ = false;
        if (!(gap < looked_)) return all_;
        looked_ = gap;
        const Table& t = all_.table;
        const auto most = static_cast<size_t>(t.n / 2);
        std::vector<int64_t> rows;
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        Watch watch(end);
        for (int64_t i = 0; i < t.n; ++i) {
            watch.step(t.k);
            t.row(i, l, c);
            const int x = all_.choice[all_.number(i)];
            const double lost = l[x];
            const int64_t paid = c[x];
            bool any = false;
            for (int j = 0; j < t.k; ++j) any |= (c[j] != paid) & ((l[j] - lost) + slope * static_cast<double>(c[j] - paid) < gap);
            if (!any) continue;
            rows.push_back(i);
            if (rows.size() > most) return all_;
        }
        Copied fewer(all_, rows);
        used_ = std::move(fewer);
        return all_ = used_.view(all_);
    }

  private:
    Deviations all_;   // with all rows of use
    Copied near_, used_;
    double looked_ = INFINITY;   // the gap that they were last looked for
    bool partial_ = false;
};

}  // namespace bitwright
