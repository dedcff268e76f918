// The fused pass over a table: each row's best format within a bracket of multipliers, and the rows that have no single
// best one there, copied out.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "fast512.hpp"
#include "table.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace bitwright {

// An array that grows in place (realloc moves pages, it does not copy large ones).
template <class T>
class Growing {
  public:
    Growing() = default;
    Growing(Growing&& other) noexcept : data_(std::exchange(other.data_, nullptr)), room_(std::exchange(other.room_, 0)) {}
    Growing& operator=(Growing&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(room_, other.room_);
        return *this;
    }
    ~Growing() { std::free(data_); }

    void reserve(int64_t count) {
        if (count <= room_) return;
        const int64_t room = std::max(count, room_ + room_ / 2 + 1024);
        void* grown = std::realloc(data_, static_cast<size_t>(room) * sizeof(T));
        if (grown == nullptr) throw std::bad_alloc();
        data_ = static_cast<T*>(grown);
        room_ = room;
#if defined(__linux__)
        // Large arrays in large pages: a page fault for every 4 KiB would cost as much as what is written there.
        constexpr uintptr_t huge = uintptr_t{1} << 21;
        const uintptr_t from = (reinterpret_cast<uintptr_t>(grown) + huge - 1) / huge * huge;
        const uintptr_t to = reinterpret_cast<uintptr_t>(data_ + room_) / huge * huge;
        if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
    }
    T* data() { return data_; }
    const T* data() const { return data_; }

  private:
    T* data_ = nullptr;
    int64_t room_ = 0;
};

// Rows of a table copied out, with their numbers in the original table.
struct Rows {
    Growing<char> loss;
    Growing<int64_t> size;   // empty when sizes are equal
    Growing<uint32_t> id;
    int64_t n = 0, total_size = 0;

    void reserve(const Table& t, int64_t count) {
        loss.reserve(count * t.row_bytes());
        if (t.size != nullptr) size.reserve(count);
        id.reserve(count);
    }

    // Room must be reserved.
    void add(const Table& t, int64_t i, uint32_t number) {
        char* to = loss.data() + n * t.row_bytes();
        if (t.row_bytes() == 16) std::memcpy(to, t.row_at(i), 16);   // lengths known here cost a load and a store
        else if (t.row_bytes() == 32) std::memcpy(to, t.row_at(i), 32);
        else std::memcpy(to, t.row_at(i), static_cast<size_t>(t.row_bytes()));
        if (t.size != nullptr) size.data()[n] = t.weight(i);
        id.data()[n++] = number;
        total_size += t.weight(i);
    }

    void append(const Table& t, const Rows& other) {
        reserve(t, n + other.n);
        std::memcpy(loss.data() + n * t.row_bytes(), other.loss.data(), static_cast<size_t>(other.n * t.row_bytes()));
        if (t.size != nullptr) std::memcpy(size.data() + n, other.size.data(), static_cast<size_t>(other.n) * 8);
        std::memcpy(id.data() + n, other.id.data(), static_cast<size_t>(other.n) * 4);
        n += other.n;
        total_size += other.total_size;
    }

    // The same costs and formats over these rows.
    Table view(const Table& t) const {
        Table v = t;
        v.loss = loss.data();
        v.size = t.size != nullptr ? size.data() : nullptr;
        v.n = n;
        v.total_size = total_size;
        v.mapped = false;
        return v;
    }
};

// What a pass gives: totals of the rows that have one best format in the bracket, the size of all rows, and the other rows (at most `most`;
// `over` when there were more).
struct Tally {
    int64_t cost = 0, weight = 0;
    double loss = 0.0;
    bool over = false;
    Rows rows;
};

constexpr int kBlock = 256;

struct Lanes {
    double loss[kBlock], cost[kBlock];
    int64_t high[kBlock], low[kBlock];
};

// Choice at two multipliers for up to kBlock rows of K formats. `w`: weights as doubles; `r`: rates as doubles.
template <class T, int K>
BW_INLINE void choose(const T* loss, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    for (int i = 0; i < count; ++i) {
        const T* p = loss + static_cast<int64_t>(i) * K;
        double l = load(p), c = w[i] * r[0];
        double vh = l + b.high * c, vl = l + b.low * c;
        double chosen = l, spent = c;
        int64_t xh = 0, xl = 0;
        for (int j = 1; j < K; ++j) {
            l = load(p + j);
            c = w[i] * r[j];
            const double h = l + b.high * c, g = l + b.low * c;
            const bool a = h < vh, d = g < vl;
            vh = a ? h : vh;
            xh = a ? j : xh;
            chosen = a ? l : chosen;
            spent = a ? c : spent;
            vl = d ? g : vl;
            xl = d ? j : xl;
        }
        out.loss[i] = chosen;
        out.cost[i] = spent;
        out.high[i] = xh;
        out.low[i] = xl;
    }
}

template <class T, int K>
void choose_plain(const T* l, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    choose<T, K>(l, w, r, b, count, out);
}

template <class T, int K>
BW_AVX2 void choose_avx2(const T* l, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    choose<T, K>(l, w, r, b, count, out);
}

template <class T>
using Choose = void (*)(const T*, const double*, const double*, Bracket, int, Lanes&);

// The compiled pass for k formats, or null when there is none.
template <class T>
Choose<T> choose_for(int k) {
    const bool wide = BW_HAS_AVX2;
    switch (k) {
#define BW_CASE(K) \
    case K: \
        return wide ? choose_avx2<T, K> : choose_plain<T, K>;
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
        BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
        default: return nullptr;
    }
}

// One worker's pass over rows begin..end. `id`: original numbers of the rows, or null.
class Pass {
  public:
    Pass(const Table& t, const uint32_t* id, Bracket b, int64_t most, uint8_t* choice)
        : t_(t), id_(id), b_(b), most_(most), choice_(choice) {
#if BW_FAST
        fast_ = t.single && (t.k == 4 || t.k == 8) && BW_HAS_AVX2 && !flushes() && t.top_size < (int64_t{1} << 32) &&
                *std::max_element(t.rate, t.rate + t.k) < (1 << 24) &&
                fast_prices(t.rate, t.k, t.size == nullptr ? static_cast<double>(t.one_size) : 1.0,
                            t.size == nullptr ? 1.0 : static_cast<double>(t.top_size), b.low, b.high, prices_);
#endif
    }

    bool fast() const { return fast_; }
    void precise() { fast_ = false; }

    // One chunk: its cost and loss; the listed rows go to `out`. False when there are too many of them.
    bool run(int64_t begin, int64_t end, Tally& sums, Rows& out) const {
#if BW_FAST
        if (fast_) {
            const int64_t whole = begin + (end - begin) / 8 * 8;
            const bool fine = t_.k == 4 ? (t_.size == nullptr ? blocks<4, true>(begin, whole, sums, out) : blocks<4, false>(begin, whole, sums, out))
                                        : (t_.size == nullptr ? blocks<8, true>(begin, whole, sums, out) : blocks<8, false>(begin, whole, sums, out));
            if (!fine) return false;
            begin = whole;
        }
#endif
        return t_.single ? doubles<float>(begin, end, sums, out) : doubles<double>(begin, end, sums, out);
    }

  private:
    bool list(int64_t i, Rows& out) const {
        out.add(t_, i, id_ != nullptr ? id_[i] : static_cast<uint32_t>(i));
        return out.n <= most_;
    }

    void put(int64_t i, uint8_t x) const { choice_[id_ != nullptr ? id_[i] : i] = x; }

#if BW_FAST
    template <int K, bool kEqual>
    bool blocks(int64_t begin, int64_t end, Tally& sums, Rows& out) const {
        const float* loss = static_cast<const float*>(t_.loss);
        FastBlock b;
        uint8_t scratch[512];
        int64_t cost = 0, weight = 0;
        for (int64_t at = begin; at < end; at += 512) {
            const int count = static_cast<int>(std::min<int64_t>(512, end - at));
            uint8_t* choice = id_ == nullptr && choice_ != nullptr ? choice_ + at : scratch;
            std::memset(b.unsure, 0, sizeof b.unsure);
            const int64_t* size = kEqual ? nullptr : t_.size + at;
            if (wide_ && count % 16 == 0) fast_block16<K, kEqual>(loss + at * K, size, prices_, count, choice, b);
            else fast_block<K, kEqual>(loss + at * K, size, prices_, count, choice, b);
            cost += b.cost;
            weight += b.weight;
            sums.loss += b.loss;
            out.reserve(t_, out.n + count);
            // One branch a block that is hard to foresee (its end), not one for every 64 rows.
            unsigned words = 0;
            for (int g = 0; g < 8; ++g) words |= static_cast<unsigned>(b.unsure[g] != 0) << g;
            while (words != 0) {
                const int g = __builtin_ctz(words);
                const int64_t i = at + 64 * g + __builtin_ctzll(b.unsure[g]);
                b.unsure[g] &= b.unsure[g] - 1;
                words &= ~(static_cast<unsigned>(b.unsure[g] == 0) << g);
                std::memcpy(out.loss.data() + out.n * (4 * K), loss + i * K, 4 * K);
                if constexpr (!kEqual) {
                    out.size.data()[out.n] = t_.weight(i);
                    out.total_size += t_.weight(i);
                }
                out.id.data()[out.n++] = id_ != nullptr ? id_[i] : static_cast<uint32_t>(i);
            }
            if (out.n > most_) return false;
            if (id_ != nullptr && choice_ != nullptr)
                for (int i = 0; i < count; ++i) choice_[id_[at + i]] = scratch[i];
        }
        sums.cost += kEqual ? cost * t_.one_size : cost;
        sums.weight += kEqual ? (end - begin) * t_.one_size : weight;
        if constexpr (kEqual) out.total_size = out.n * t_.one_size;
        return true;
    }
#endif

    template <class T>
    bool doubles(int64_t begin, int64_t end, Tally& sums, Rows& out) const {
        const Choose<T> run = choose_for<T>(t_.k);
        const T* loss = static_cast<const T*>(t_.loss);
        double r[kMaxFormats], w[kBlock];
        for (int j = 0; j < t_.k; ++j) r[j] = static_cast<double>(t_.rate[j]);
        std::fill(w, w + kBlock, static_cast<double>(t_.one_size));
        Lanes lanes;
        for (int64_t at = begin; at < end; at += kBlock) {
            const int count = static_cast<int>(std::min<int64_t>(kBlock, end - at));
            if (t_.size != nullptr)
                for (int i = 0; i < count; ++i) {
                    const int64_t size = t_.weight(at + i);
                    w[i] = static_cast<double>(size);
                    sums.weight += size;
                }
            else sums.weight += count * t_.one_size;
            run(loss + at * t_.k, w, r, b_, count, lanes);
            out.reserve(t_, out.n + count);
            double l0 = 0.0, c0 = 0.0;
            for (int i = 0; i < count; ++i) {
                const bool one = lanes.high[i] == lanes.low[i];
                l0 += one ? lanes.loss[i] : 0.0;
                c0 += one ? lanes.cost[i] : 0.0;   // exact: the caller made sure that a block's total is below 2^53
                if (choice_ != nullptr) put(at + i, static_cast<uint8_t>(lanes.high[i]));
                if (!one && !list(at + i, out)) return false;
            }
            sums.loss += l0;
            sums.cost += static_cast<int64_t>(c0);
        }
        return true;
    }

    Table t_;
    const uint32_t* id_;
    Bracket b_;
    int64_t most_;
    uint8_t* choice_;
    bool fast_ = false;
#if BW_FAST
    bool wide_ = has_avx512();
    FastPrices prices_;
#endif
};

#if defined(__linux__)
inline void advise(const Table& t, int64_t begin, int64_t end, int how) {
    if (!t.mapped || end <= begin) return;
    const auto apply = [how](const char* from, const char* to) {
        const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        const uintptr_t a = reinterpret_cast<uintptr_t>(from) / page * page, b = reinterpret_cast<uintptr_t>(to) / page * page;
        if (b > a) madvise(reinterpret_cast<void*>(a), b - a, how);
    };
    apply(t.row_at(begin), t.row_at(end));
    if (t.size != nullptr) apply(reinterpret_cast<const char*>(t.size + begin), reinterpret_cast<const char*>(t.size + end));
}

// Give back the pages of rows that were read (they stay in the page cache). Files only: it would empty other memory.
inline void release(const Table& t, int64_t begin, int64_t end) { advise(t, begin, end, MADV_DONTNEED); }
// How the file will be read next: a few rows here and there, or from end to end.
inline void expect(const Table& t, bool scattered) { advise(t, 0, t.n, scattered ? MADV_RANDOM : MADV_SEQUENTIAL); }
#else
inline void release(const Table&, int64_t, int64_t) {}
inline void expect(const Table&, bool) {}
#endif

// The pass over all rows, in chunks that are joined in order: the same for any number of threads. choice: null, or where
// each row's best format goes, by original number.
inline Tally fused_pass(const Table& t, const uint32_t* id, Bracket b, bool precise, int64_t most, int threads, uint8_t* choice) {
    constexpr int64_t chunk = 1 << 17;
    const int64_t chunks = (t.n + chunk - 1) / chunk;
    const int crew_size = static_cast<int>(std::clamp<int64_t>(chunks, 1, threads));
    std::vector<Tally> parts(static_cast<size_t>(chunks));
    std::vector<Rows> lists(static_cast<size_t>(crew_size));
    std::vector<char> over(static_cast<size_t>(crew_size), 0);
    auto work = [&](int me) {
        try {
            Pass pass(t, id, b, most, choice);
            if (precise) pass.precise();
            lists[me].reserve(t, t.n / crew_size / 32);
            for (int64_t c = chunks * me / crew_size; c < chunks * (me + 1) / crew_size; ++c) {
                const int64_t begin = c * chunk, end = std::min(t.n, begin + chunk);
                if (!pass.run(begin, end, parts[c], lists[me])) {
                    over[me] = 1;
                    return;
                }
                release(t, begin, end);
            }
        } catch (const std::bad_alloc&) {
            over[me] = 2;
        }
    };
    std::vector<std::thread> crew;
    for (int me = 1; me < crew_size; ++me) crew.emplace_back(work, me);
    work(0);
    for (std::thread& one : crew) one.join();
    Tally all;
    long double loss = 0.0L;
    for (const Tally& part : parts) {
        all.cost += part.cost;
        loss += part.loss;
    }
    all.loss = static_cast<double>(loss);
    for (int me = 0; me < crew_size; ++me) {
        if (over[me] == 2) throw std::bad_alloc();
        all.over = all.over || over[me] != 0;
        if (me == 0) all.rows = std::move(lists[0]);
        else all.rows.append(t, lists[me]);
        lists[me] = Rows();
    }
    all.over = all.over || all.rows.n > most;
    return all;
}

}  // namespace bitwright
