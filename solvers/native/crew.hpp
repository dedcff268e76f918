// Work shared by threads that stay for a whole solve.
//
// A thread that is started, or woken, each time begins up to half a millisecond late on a virtual machine whose processor has gone idle
// meanwhile, and a solve of 10^7 rows shares some twenty steps within 20 to 40 ms. So threads that have nothing to do look for work for a
// while (kPatience) before they sleep, as those of OpenMP do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "clock.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace bitwright {

class Crew {
  public:
    explicit Crew(int size) : size_(size) {}
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    ~Crew() {
        over_ = true;
        tell(round_, 1);
        for (std::thread& other : others_) other.join();
    }

    int size() const { return size_; }

    // work(0) to work(count - 1), count at most `size`: the first in this thread, the others in threads of their own, or here too where
    // there are no more threads to have. Throws what the first of them threw, once all have ended.
    template <class Work>
    void share(int count, const Work& work) {
        thrown_.assign(static_cast<size_t>(count), nullptr);
        work_ = &work;
        call_ = [](const void* what, int me) { (*static_cast<const Work*>(what))(me); };
        count_ = count;
        if (count > 1) {
            start();
            busy_ = static_cast<int>(others_.size());
            tell(round_, 1);
        }
        guarded(0);
        for (int me = static_cast<int>(others_.size()) + 1; me < count; ++me) guarded(me);
        if (count > 1) await([this] { return busy_.load(std::memory_order_acquire) == 0; });
        for (const std::exception_ptr& one : thrown_)
            if (one != nullptr) std::rethrow_exception(one);
    }

    // work(0) to work(count - 1), each thread a stretch of them.
    template <class Work>
    void divide(size_t count, const Work& work) {
        const size_t workers = static_cast<size_t>(size_);
        share(size_, [&](int me) {
            const size_t part = static_cast<size_t>(me);
            for (size_t q = count * part / workers; q < count * (part + 1) / workers; ++q) work(q);
        });
    }

  private:
    static constexpr double kPatience = 2e-3;   // seconds: what lies between two steps that are shared takes less

    void start() {
        try {
            while (static_cast<int>(others_.size()) + 1 < size_) {
                const int me = static_cast<int>(others_.size()) + 1;
                others_.emplace_back([this, me, seen = round_.load()]() mutable {
                    for (;; ++seen) {
                        await([this, seen] { return round_.load(std::memory_order_acquire) != seen; });
                        if (over_) return;
                        if (me < count_) guarded(me);
                        tell(busy_, -1);
                    }
                });
            }
        } catch (const std::system_error&) {   // no more threads to be had: what they would do is done by the first
            size_ = static_cast<int>(others_.size()) + 1;
        }
    }

    void guarded(int me) {
        try {
            call_(work_, me);
        } catch (...) {
            thrown_[static_cast<size_t>(me)] = std::current_exception();
        }
    }

    // What others wait for changes.
    void tell(std::atomic<int>& what, int by) {
        what.fetch_add(by, std::memory_order_release);
        { const std::lock_guard<std::mutex> lock(asleep_); }   // who has looked and not slept yet would miss it
        changed_.notify_all();
    }

    template <class Ready>
    void await(Ready ready) {
        const double end = now() + kPatience;
        do {
            for (int look = 0; look < 64; ++look) {
                if (ready()) return;
#if defined(__x86_64__) && defined(__GNUC__)
                _mm_pause();
#endif
            }
            std::this_thread::yield();   // where others want the processor, they come first
        } while (now() < end);
        std::unique_lock<std::mutex> lock(asleep_);
        changed_.wait(lock, ready);
    }

    int size_, count_ = 0;
    const void* work_ = nullptr;
    void (*call_)(const void*, int) = nullptr;
    std::vector<std::exception_ptr> thrown_;   // by each
    std::atomic<int> round_{0}, busy_{0};      // how often work was given out; who has not done with it
    std::atomic<bool> over_{false};
    std::mutex asleep_;
    std::condition_variable changed_;
    std::vector<std::thread> others_;
};

}  // namespace bitwright
