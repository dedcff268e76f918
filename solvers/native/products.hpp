// Costs given as a matrix that are sizes times rates: nothing but whole bits a weight or blocks, and bytes where they come out even. As such they are streamed.
#pragma once

#include "table.hpp"

namespace bitwright {

class Products {
  public:
    // Of a matrix: its first row over what all of that is a multiple of makes the rates, and every other row must be a multiple of them.
    // Nothing is found where the first row is all zero, or past `end`.
    Products(const Table& t, double end) : rate_(static_cast<size_t>(t.k)), size_(static_cast<size_t>(t.n)) {
        try {
            Watch watch(end);
            found_ = find(t, watch);
        } catch (const Late&) {
        }
    }

    bool found() const { return found_; }

    // The same table with them, as long as this lives.
    Table table(Table t) const {
        t.matrix = nullptr;
        t.size = size_.data();
        t.rate = rate_.data();
        t.total_size = t.top_size = t.divisor = t.least_size = 0;
        return t;
    }

  private:
    bool find(const Table& t, Watch& watch) {
        int64_t step = 0;
        for (int j = 0; j < t.k; ++j) step = std::gcd(step, t.matrix[j]);
        if (step == 0) return false;
        int top = 0;
        for (int j = 0; j < t.k; ++j) {
            rate_[static_cast<size_t>(j)] = t.matrix[j] / step;
            if (t.matrix[j] > t.matrix[top]) top = j;
        }
        const int64_t* rate = rate_.data();
        for (int64_t i = 0; i < t.n; ++i) {
            watch.step(t.k);
            const int64_t* c = t.matrix + i * t.k;
            const int64_t size = c[top] / rate[top];
            int64_t off = 0;
            for (int j = 0; j < t.k; ++j) off |= c[j] ^ (size * rate[j]);
            if (off != 0) return false;
            size_[static_cast<size_t>(i)] = size;
        }
        return true;
    }

    std::vector<int64_t> rate_, size_;
    bool found_ = false;
};

}  // namespace bitwright
