// Rows of a table copied out.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "crew.hpp"
#include "table.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bitwright {

// An array that grows in place (realloc moves pages, it does not copy large ones).
template <class T>
class Growing {
  public:
    Growing() = default;
    Growing(Growing&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), room_(std::exchange(other.room_, 0)), ready_(std::exchange(other.ready_, 0)) {}
    Growing& operator=(Growing&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(room_, other.room_);
        std::swap(ready_, other.ready_);
        return *this;
    }
    ~Growing() { std::free(data_); }

    // Addresses for so many; no memory yet.
    void expect(int64_t count) {
        if (count <= room_) return;
        void* grown = std::realloc(data_, static_cast<size_t>(count) * sizeof(T));
        if (grown == nullptr) throw std::bad_alloc();
        data_ = static_cast<T*>(grown);
        room_ = count;
    }

    void reserve(int64_t count) {
        if (count <= ready_) return;
        if (count > room_) expect(std::max(count, room_ + room_ / 2 + 1024));
        const int64_t from = std::exchange(ready_, std::min(room_, count + kStep / static_cast<int64_t>(sizeof(T))));
        populate(from, ready_);
    }

    // Addresses for so many, whose memory comes with `populate`: several threads may ask for a stretch each.
    void claim(int64_t count) {
        expect(count);
        ready_ = std::max(ready_, count);
    }

    // Memory for the elements begin to end, which have addresses.
    void populate([[maybe_unused]] int64_t begin, [[maybe_unused]] int64_t end) {
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
        // Pages of large arrays a few at a time: a fault for each would cost as much as what is written there, and large pages would be
        // cleared and held whole. A kernel that cannot do it maps them as they are touched.
        constexpr uintptr_t page = 4096;
        if (room_ * static_cast<int64_t>(sizeof(T)) < 2 * kStep) return;
        const uintptr_t first = reinterpret_cast<uintptr_t>(data_ + begin) / page * page;
        const uintptr_t last = reinterpret_cast<uintptr_t>(data_ + end) / page * page;
        if (last > first + page) madvise(reinterpret_cast<void*>(first + page), last - first - page, MADV_POPULATE_WRITE);
#endif
    }
    T* data() { return data_; }
    const T* data() const { return data_; }

  private:
    static constexpr int64_t kStep = 1 << 17;

    T* data_ = nullptr;
    int64_t room_ = 0, ready_ = 0;
};

// Rows of a table copied out, with their numbers in the original table.
struct Rows {
    Growing<char> loss;
    Growing<int64_t> size;   // empty when sizes are equal
    Growing<uint32_t> id;
    Growing<uint8_t> chosen;   // of rows from a pass that chooses: the format that stands in the choice
    int64_t n = 0, total_size = 0;

    void reserve(const Table& t, int64_t count) {
        loss.reserve(count * t.row_bytes());
        if (t.size != nullptr) size.reserve(count);
        id.reserve(count);
        chosen.reserve(count);
    }

    void expect(const Table& t, int64_t count) {
        loss.expect(count * t.row_bytes());
        if (t.size != nullptr) size.expect(count);
        id.expect(count);
        chosen.expect(count);
    }

    // Addresses for so many rows, and memory for those from `begin` to `end`: as of `Growing`.
    void claim(const Table& t, int64_t count) {
        loss.claim(count * t.row_bytes());
        if (t.size != nullptr) size.claim(count);
        id.claim(count);
        chosen.claim(count);
    }

    void populate(const Table& t, int64_t begin, int64_t end) {
        loss.populate(begin * t.row_bytes(), end * t.row_bytes());
        if (t.size != nullptr) size.populate(begin, end);
        id.populate(begin, end);
        chosen.populate(begin, end);
    }

    // Room must be reserved.
    void add(const Table& t, int64_t i, uint32_t number) {
        char* to = loss.data() + n * t.row_bytes();
        if (t.row_bytes() == 16) std::memcpy(to, t.row_at(i), 16);   // lengths known here cost a load and a store
        else if (t.row_bytes() == 32) std::memcpy(to, t.row_at(i), 32);
        else std::memmove(to, t.row_at(i), static_cast<size_t>(t.row_bytes()));
        if (t.size != nullptr) size.data()[n] = t.weight(i);
        id.data()[n++] = number;
        total_size += t.weight(i);
    }

    // The last row once more.
    void again(const Table& t) {
        std::memcpy(loss.data() + n * t.row_bytes(), loss.data() + (n - 1) * t.row_bytes(), static_cast<size_t>(t.row_bytes()));
        if (t.size != nullptr) size.data()[n] = size.data()[n - 1];
        id.data()[n] = id.data()[n - 1];
        ++n;
        total_size += t.size != nullptr ? size.data()[n - 1] : t.one_size;
    }

    // Another list's rows, from row `at` on. Room must be claimed.
    void put(const Table& t, int64_t at, const Rows& other) {
        const auto count = static_cast<size_t>(other.n);
        if (count == 0) return;
        populate(t, at, at + other.n);
        std::memcpy(loss.data() + at * t.row_bytes(), other.loss.data(), count * static_cast<size_t>(t.row_bytes()));
        if (t.size != nullptr) std::memcpy(size.data() + at, other.size.data(), count * sizeof(int64_t));
        std::memcpy(id.data() + at, other.id.data(), count * sizeof(uint32_t));
        std::memcpy(chosen.data() + at, other.chosen.data(), count);
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

// Several lists as one, in their order; they end up empty.
inline Rows joined(const Table& t, std::vector<Rows>& lists, Crew& crew) {
    Rows all = std::move(lists[0]);
    lists[0] = Rows();
    std::vector<int64_t> at;
    for (const Rows& list : lists) {
        at.push_back(all.n);
        all.n += list.n;
        all.total_size += list.total_size;
    }
    if (lists.size() == 1) return all;
    all.claim(t, all.n);
    crew.divide(lists.size(), [&](size_t q) {   // each thread has its own pages made
        all.put(t, at[q], lists[q]);
        lists[q] = Rows();
    });
    return all;
}

}  // namespace bitwright
