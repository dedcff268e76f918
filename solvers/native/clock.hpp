// The caller's clock, and how steps that take long look at it on the way.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <limits>

namespace bitwright {

inline double now() {
    using clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

// Seconds that the processor has worked for this thread; where there is no such clock, those of the other one.
inline double worked() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0) return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
#endif
    return now();
}

// For tests: how many looks are left before every further one finds the time over; negative: the clock tells.
inline std::atomic<int64_t> looks_left{-1};

// What is left of the work that all searches of one problem may take together, in about tenths of a nanosecond: counted, so that a plan
// depends on no clock. Of each thread; without a purse there is no end of it. What each loop takes was fitted to the processor's time of
// 729 searches (all loops: their sum within 10 %).
inline thread_local int64_t purse = std::numeric_limits<int64_t>::max();

inline void spend(int64_t count, int64_t each) { purse -= count * each; }

// A purse for as long as this lives.
class Purse {
  public:
    explicit Purse(int64_t work) : before_(purse) { purse = work; }
    ~Purse() { purse = before_; }
    Purse(const Purse&) = delete;
    Purse& operator=(const Purse&) = delete;

  private:
    int64_t before_;
};

// One look at the clock, and into the purse.
inline bool past(double end) {
    if (looks_left.load(std::memory_order_relaxed) >= 0 && looks_left.fetch_sub(1) <= 0) {
        looks_left = 0;
        return true;
    }
    return purse < 0 || now() > end;
}

// Thrown in the midst of a step when time is over. Whoever holds a plan catches it.
struct Late {};

// Counts small steps (a row, a cell, a comparison: some nanoseconds each), and looks after so many of them: each few milliseconds, or sooner.
class Watch {
  public:
    explicit Watch(double end) : end_(end) {}
    ~Watch() { spend(kSteps - left_, kTakes); }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    void step(int64_t count = 1) {
        left_ -= count;
        if (left_ > 0) return;
        spend(kSteps - left_, kTakes);
        left_ = kSteps;
        look();
    }
    void look() const {
        if (past(end_)) throw Late();
    }

  private:
    static constexpr int64_t kSteps = 1 << 14, kTakes = 50;

    double end_;
    int64_t left_ = kSteps;
};

// Run `sort`, which takes a comparison, of so many elements: where they are many, comparisons are counted. What was being sorted is in no
// order where it throws.
template <class Less, class Sort>
void watched(Watch& watch, size_t count, Less less, Sort sort) {
    constexpr size_t few = 1 << 13;
    if (count < few) {
        sort(less);
        return;
    }
    sort([&watch, &less](const auto& a, const auto& b) {
        watch.step();
        return less(a, b);
    });
}

}  // namespace bitwright
