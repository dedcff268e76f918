// Tables that lie in files: which of their pages are wanted next, and which no more.
#pragma once

#include "table.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace bitwright {

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
// Begin to read rows that are looked at next: a page at a time, a disk would answer each time anew.
inline void fetch(const Table& t, int64_t begin, int64_t end) { advise(t, begin, end, MADV_WILLNEED); }
#else
inline void release(const Table&, int64_t, int64_t) {}
inline void fetch(const Table&, int64_t, int64_t) {}
inline void expect(const Table&, bool) {}
#endif

}  // namespace bitwright
