// Rows of a table copied out.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

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
        else std::memmove(to, t.row_at(i), static_cast<size_t>(t.row_bytes()));
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

}  // namespace bitwright
