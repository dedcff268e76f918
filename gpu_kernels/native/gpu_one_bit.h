// The fused kernel of one bit: levels {0, s} by the rule of quantizers/one_bit.py, in phases as gpu.h has them. All sums are of
// whole numbers, so that the order in which threads add them up does not matter.
#pragma once
#include "gpu.h"

template <class T> struct bw_rtn<T, 1> {
    struct shared {
        float x[BW_THREADS * BW_PITCH];
        float top[BW_THREADS], inverse[BW_THREADS], norm[BW_THREADS]; // from the second on: of a group, at its first thread
        int bad[BW_THREADS], factor[BW_THREADS], threshold[BW_THREADS], below[BW_THREADS];
        int total[4][BW_THREADS], count[4][BW_THREADS]; // two starts, two sides each
        bw_i64 sum[BW_THREADS];
        bw_u32 held[BW_THREADS], flip[BW_THREADS], words[BW_THREADS];
    };
    static const int phases = 11;

    BW_METHOD int position(const shared &s, int thread, int i, int head) {
        return bw_position(s.x[thread * BW_PITCH + i], s.inverse[head]);
    }

    BW_METHOD void largest(int thread, shared &s) {
        bw_float_bits most;
        most.u = 0;
        for (int i = 0; i < 32; ++i) {
            bw_float_bits v;
            v.f = s.x[thread * BW_PITCH + i];
            v.u &= 0x7fffffffu;
            most.u = v.u > most.u ? v.u : most.u;
        }
        s.top[thread] = most.f, s.bad[thread] = most.u >= 0x7f800000u;
    }

    BW_METHOD void reach(const bw_args &a, int thread, int span, shared &s) {
        float top = BW_LEAST_TOP;
        int bad = 0;
        for (int k = thread; k < thread + span; ++k) top = s.top[k] > top ? s.top[k] : top, bad |= s.bad[k];
        if (bad) *a.status = bad; // any thread's reason will do
        s.bad[thread] = bad, s.top[thread] = top, s.inverse[thread] = bad ? 0.0f : bw_div(BW_REACH, top);
    }

    BW_METHOD void squares(int thread, int head, shared &s) {
        s.sum[thread] = 0;
        for (int i = 0; i < 32; ++i) {
            const int at = position(s, thread, i, head);
            s.sum[thread] += at * at;
        }
    }

    BW_METHOD void steps(const bw_args &a, int thread, int span, shared &s) {
        bw_i64 norm = 0;
        for (int k = thread; k < thread + span; ++k) norm += s.sum[k];
        s.norm[thread] = (float)norm, s.factor[thread] = bw_factor((float)norm, (float)a.group);
    }

    BW_METHOD void sides(int thread, int head, shared &s) { // even: below zero, odd: above
        for (int j = 0; j < 4; ++j) s.total[j][thread] = s.count[j][thread] = 0;
        for (int i = 0; i < 32; ++i) {
            const int at = bw_byte(position(s, thread, i, head), s.factor[head]);
            for (int j = 0; j < 4; ++j) {
                const int turned = j % 2 ? at : -at;
                if (turned > (j < 2 ? BW_FIRST_START : BW_SECOND_START)) s.total[j][thread] += turned, ++s.count[j][thread];
            }
        }
    }

    BW_METHOD void better(int thread, int span, shared &s) {
        float best = -1.0f, mean = 0.0f;
        for (int j = 0; j < 4; ++j) {
            int total = 0, count = 0;
            for (int k = thread; k < thread + span; ++k) total += s.total[j][k], count += s.count[j][k];
            const float average = bw_div((float)total, (float)(count > 1 ? count : 1)), gain = bw_mul(average, (float)total);
            if (gain > best) best = gain, mean = average, s.below[thread] = j % 2 == 0;
        }
        s.threshold[thread] = (int)bw_mul(mean, bw_div((float)(1 << 14), (float)s.factor[thread]));
    }

    BW_METHOD void choice(int thread, int head, shared &s) {
        bw_u32 bits = 0;
        bw_i64 sum = 0;
        for (int i = 0; i < 32; ++i) {
            const int at = position(s, thread, i, head), turned = s.below[head] ? -at : at;
            if (turned > s.threshold[head]) bits |= 1u << i, sum += turned;
        }
        s.sum[thread] = sum, s.words[thread] = bits;
    }

    BW_METHOD void level(const bw_args &a, int thread, int span, bw_i64 group, shared &s) {
        bw_i64 along = 0;
        for (int k = thread; k < thread + span; ++k) along += s.sum[k];
        const float unit = bw_div(s.top[thread], BW_REACH);
        const float level = along ? bw_mul(bw_div(s.norm[thread], (float)along), unit) : 0.0f;
        const bool held = level >= BW_TINY, below = held && s.below[thread];
        if (level > BW_MAX_HALF) *a.status = 2;
        else a.scales[group] = (bw_u16)(bw_to_half((double)(held ? level : BW_TINY)) | (a.symmetric && held && !below ? 0x8000u : 0u));
        if (a.zeros) a.zeros[group] = (bw_u8)below;
        s.held[thread] = held ? ~0u : 0u;                  // of a group of zeros no weight stands at the level
        s.flip[thread] = a.symmetric || below ? ~0u : 0u; // code 0 is the level
    }

    BW_METHOD void phase(int p, const bw_args &a, int thread, bw_i64 block, shared &s) {
        const bw_i64 first = block * BW_THREADS, unit = first + thread;
        const int span = (int)(a.group / 32), head = thread - thread % span;
        if (p == 0) bw_stage<T>(a, thread, first, s.x);
        if (p == 10) bw_move_words<1>(a, thread, first, s.words, true);
        if (unit >= bw_units(a)) return;
        if (p == 1) largest(thread, s);
        if (p == 2 && thread == head) reach(a, thread, span, s);
        if (p > 2 && s.bad[head]) return;
        if (p == 3) squares(thread, head, s);
        if (p == 4 && thread == head) steps(a, thread, span, s);
        if (p == 5) sides(thread, head, s);
        if (p == 6 && thread == head) better(thread, span, s);
        if (p == 7) choice(thread, head, s);
        if (p == 8 && thread == head) level(a, thread, span, unit / span, s);
        if (p == 9) s.words[thread] = (s.words[thread] & s.held[head]) ^ s.flip[head];
    }
};
