/* The innermost loops of a merge on the CPU, each one pass where torch needs several.

   kernels.py calls them, and has the same arithmetic in torch and numpy for where they were not
   compiled. Both give the same bits: every rounding here is one that stands in the source (compiled
   with -ffp-contract=off, never with -ffast-math), and sums go over fixed lanes in a fixed order.
   Lengths are elements; pointers to outputs never overlap inputs unless said. Compiled with
   -fno-strict-aliasing: floats are looked at as their bits. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 1024  /* elements worked on together: they stay in the first-level cache */
#define GROUP 8    /* marks of magnitudes that are looked at together */
#define LANES 64   /* partial sums of a leaf */

#ifndef SOURCE
#define SOURCE ""
#endif

static const uint32_t MAGNITUDE = 0x7fffffffu, INFINITE = 0x7f800000u, SIGN = 0x80000000u;

/* The digest of the source this was compiled from. */
const char *source_digest(void) { return SOURCE; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* out = stored as float32, minus base unless base is null; 1 where a stored value is NaN or
   infinite. */
int from_bfloat16(const uint16_t *stored, const float *base, float *out, int64_t count) {
    uint32_t bad = 0;
    if (base == NULL) {
        uint32_t *bits = (uint32_t *)out;
        for (int64_t i = 0; i < count; i++) {
            uint32_t value = (uint32_t)stored[i] << 16;
            bad |= (value & INFINITE) == INFINITE;
            bits[i] = value;
        }
        return bad != 0;
    }
    for (int64_t i = 0; i < count; i++) {
        uint32_t value = (uint32_t)stored[i] << 16;
        bad |= (value & INFINITE) == INFINITE;
        out[i] = as_float(value) - base[i];
    }
    return bad != 0;
}

/* values plus base unless base is null, rounded to the nearest bfloat16, ties to even. NaN stays
   NaN. */
void to_bfloat16(const float *values, const float *base, uint16_t *out, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float sum = base == NULL ? values[i] : values[i] + base[i];
        uint32_t bits = as_bits(sum);
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
        out[i] = (uint16_t)((bits & MAGNITUDE) > INFINITE ? 0x7fc0u : rounded);
    }
}

/* Of |values| under brackets [low, high], whose ends are bits of floats: counts[cut] are how many
   are above it, equal to high, equal to low (none where low is high), and strictly inside; those
   are written to inside[cut] in order. */
void under_brackets(const float *values, int64_t count, int64_t cuts, const uint32_t (*ends)[2],
                    uint32_t *const *inside, int64_t (*counts)[4]) {
    const uint32_t *bits = (const uint32_t *)values;
    memset(counts, 0, (size_t)cuts * sizeof *counts);
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        uint32_t magnitude[TILE];
        for (int64_t i = 0; i < length; i++) magnitude[i] = bits[start + i] & MAGNITUDE;
        for (int64_t cut = 0; cut < cuts; cut++) {
            uint32_t low = ends[cut][0], high = ends[cut][1], width = high - low, over = 0;
            uint8_t near[TILE] = {0};
            for (int64_t i = 0; i < length; i++) over += magnitude[i] > high;
            for (int64_t i = 0; i < length; i++) near[i] = magnitude[i] - low <= width;
            counts[cut][0] += over;
            for (int64_t group = 0; group < length; group += GROUP) {
                uint64_t any;
                memcpy(&any, near + group, sizeof any);
                for (int64_t i = group; any && i < group + GROUP; i++) {
                    if (!near[i]) continue;
                    if (magnitude[i] == high) counts[cut][1]++;
                    else if (magnitude[i] == low) counts[cut][2]++;
                    else inside[cut][counts[cut][3]++] = magnitude[i];
                }
            }
        }
    }
}

/* A product added to a sum: with one rounding where the processor can, as torch does. */
static inline float add_product(float sum, float value, float weight) {
#if defined(__FMA__) || defined(__aarch64__)
    return fmaf(value, weight, sum);
#else
    return sum + value * weight;
#endif
}

/* The arithmetic of ties.disjoint_merge: parts[e] times scale[e] are added up, and where the sum's
   sign agrees they are summed, times gain[e], divided by the shares of those that agree, and
   multiplied by lambda.
   A divisor is at least `smallest` where that is positive, else one where it is zero. */
void disjoint_merge(const float *const *parts, const float *scale, const float *gain,
                    const float *share, int64_t experts, int64_t count, int normalize,
                    float smallest, float lambda, float *out) {
    float total[TILE], merged[TILE], divisor[TILE];
    uint32_t sign[TILE];
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        memset(merged, 0, sizeof merged);
        memset(divisor, 0, sizeof divisor);
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = parts[e] + start;
            float scaled = scale[e];
            if (e == 0)
                for (int64_t i = 0; i < length; i++) total[i] = part[i] * scaled;
            else
                for (int64_t i = 0; i < length; i++) total[i] += part[i] * scaled;
        }
        for (int64_t i = 0; i < length; i++) sign[i] = as_bits(total[i]) & SIGN;
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = parts[e] + start;
            float scaled = scale[e], factor = gain[e];
            uint32_t weight = as_bits(share[e]);
            for (int64_t i = 0; i < length; i++) {
                /* Masks, because signs are chance and a branch on them is guessed wrong. */
                uint32_t towards = as_bits(part[i] * scaled) ^ sign[i];
                uint32_t agreeing = towards & ((towards >> 31) - 1);
                merged[i] = add_product(merged[i], as_float(agreeing), factor);
                divisor[i] += as_float(weight & -(uint32_t)(agreeing != 0));
            }
        }
        if (normalize && smallest > 0)
            for (int64_t i = 0; i < length; i++)
                merged[i] /= divisor[i] > smallest ? divisor[i] : smallest;
        else if (normalize)
            for (int64_t i = 0; i < length; i++)
                merged[i] /= divisor[i] + (float)(divisor[i] == 0);
        for (int64_t i = 0; i < length; i++) 
            out[start + i] = as_float(as_bits(merged[i]) ^ sign[i]) * lambda;
    }
}

/* parts[0] * weights[0] + parts[1] * weights[1] + ..., divided by the divisor, times the scale. */
void weighted_sum(const float *const *parts, const float *weights, int64_t experts, int64_t count,
                  float divisor, float scale, float *out) {
    float merged[TILE];
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = parts[e] + start;
            float weight = weights[e];
            if (e == 0)
                for (int64_t i = 0; i < length; i++) merged[i] = part[i] * weight;
            else
                for (int64_t i = 0; i < length; i++)
                    merged[i] = add_product(merged[i], part[i], weight);
        }
        if (divisor != 1)
            for (int64_t i = 0; i < length; i++) merged[i] /= divisor;
        for (int64_t i = 0; i < length; i++) out[start + i] = merged[i] * scale;
    }
}

/* out = values whose magnitude is above `low` and not above `high` (bits of floats), with the first
   low_ties of those that equal low, and without the first high_ties of those that equal high; zero
   elsewhere. */
void keep_band(const float *values, int64_t count, uint32_t low, int64_t low_ties, uint32_t high,
               int64_t high_ties, float *out) {
    const uint32_t *bits = (const uint32_t *)values;
    uint32_t *kept = (uint32_t *)out;
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t end = least(start + TILE, count);
        uint32_t equal = 0;
        for (int64_t i = start; i < end; i++) {
            uint32_t here = bits[i] & MAGNITUDE;
            kept[i] = bits[i] & -(uint32_t)(here > low) & -(uint32_t)(here <= high);
            equal |= (here == low) | (here == high);
        }
        if (!equal || !(low_ties || high_ties)) continue;
        for (int64_t i = start; i < end; i++) {
            uint32_t here = bits[i] & MAGNITUDE;
            if (here != low && here != high) continue;
            int wanted = here > low || (low_ties && low_ties--);
            if (here == high && high_ties) high_ties--, wanted = 0;
            kept[i] = wanted ? bits[i] : 0;
        }
    }
}

/* Puts into sums[leaf] the sum of the float32 products a·b (|a| where b is null), leaf by leaf, in float64:
   element i of a leaf into lane i mod LANES, then the upper half of the lanes to the lower. */
void leaf_sums(const float *a, const float *b, int64_t count, int64_t leaf, double *sums) {
    for (int64_t start = 0; start < count; start += leaf, sums++) {
        int64_t end = least(start + leaf, count);
        double lanes[LANES] = {0};
        int64_t i = start;
        for (; i + LANES <= end; i += LANES)
            for (int64_t k = 0; k < LANES; k++)
                lanes[k] += b == NULL ? fabsf(a[i + k]) : a[i + k] * b[i + k];
        for (int64_t k = 0; i < end; i++, k++) lanes[k] += b == NULL ? fabsf(a[i]) : a[i] * b[i];
        for (int64_t half = LANES / 2; half; half /= 2)
            for (int64_t k = 0; k < half; k++) lanes[k] += lanes[k + half];
        *sums = lanes[0];
    }
}

/* The variance over the parts of every entry, in float64, rounded once. */
void variance(const float *const *parts, int64_t experts, int64_t count, float *out) {
    double mean[TILE], squares[TILE];
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        memset(mean, 0, sizeof mean);
        memset(squares, 0, sizeof squares);
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = parts[e] + start;
            for (int64_t i = 0; i < length; i++) mean[i] += part[i];
        }
        for (int64_t i = 0; i < length; i++) mean[i] /= (double)experts;
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = parts[e] + start;
            for (int64_t i = 0; i < length; i++) {
                double apart = part[i] - mean[i];
                squares[i] += apart * apart;
            }
        }
        for (int64_t i = 0; i < length; i++)
            out[start + i] = (float)(squares[i] / (double)experts);
    }
}

/* Sixteen 16-bit words of Philox4x64-10, for one value of its counter and a stream. */
static inline void philox(uint64_t counter, uint64_t stream, uint64_t k0, uint64_t k1,
                          uint64_t words[4]) {
    uint64_t x0 = counter, x1 = stream, x2 = 0, x3 = 0;
    for (int round = 0; round < 10; round++) {
        unsigned __int128 p0 = (unsigned __int128)x0 * 0xD2E7470EE14C6C93u;
        unsigned __int128 p1 = (unsigned __int128)x2 * 0xCA5A826395121157u;
        x0 = (uint64_t)(p1 >> 64) ^ x1 ^ k0, x1 = (uint64_t)p1;
        x2 = (uint64_t)(p0 >> 64) ^ x3 ^ k1, x3 = (uint64_t)p0;
        k0 += 0x9E3779B97F4A7C15u, k1 += 0xBB67AE8584CAA73Bu;
    }
    words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
}

/* Words start, start + 1, ... of stream 0, low ones first. */
static void draw(uint64_t k0, uint64_t k1, int64_t start, int64_t count, uint16_t *out) {
    uint64_t words[4];
    while (count) {
        int64_t skip = start % 16, taken = least(16 - skip, count);
        philox((uint64_t)(start / 16), 0, k0, k1, words);
        memcpy(out, (uint16_t *)words + skip, (size_t)taken * 2);
        out += taken, start += taken, count -= taken;
    }
}

/* Whether word `at` of stream 1 is below the lower half of the threshold. */
static int decide(uint64_t k0, uint64_t k1, int64_t at, uint32_t threshold) {
    uint64_t words[4];
    philox((uint64_t)(at / 16), 1, k0, k1, words);
    return ((uint16_t *)words)[at % 16] < (threshold & 0xffffu);
}

/* out = values where the element's number (randomness.py) is below the threshold, values * 0
   elsewhere. The threshold is thresholds[levels[i]], or thresholds[0] where levels is null. */
void keep(uint64_t k0, uint64_t k1, int64_t first, int64_t count, const int32_t *levels,
          const uint32_t *thresholds, const float *values, float *out) {
    uint16_t words[TILE], upper[TILE];
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        const float *restrict from = values + start;
        float *restrict to = out + start;
        const int32_t *level = levels == NULL ? NULL : levels + start;
        draw(k0, k1, first + start, length, words);
        for (int64_t i = 0; i < length; i++)
            upper[i] = (uint16_t)(thresholds[level == NULL ? 0 : level[i]] >> 16);
        uint16_t undecided = 0;
        for (int64_t i = 0; i < length; i++) {
            to[i] = from[i] * (words[i] < upper[i] ? 1.0f : 0.0f);
            undecided |= words[i] == upper[i];
        }
        for (int64_t i = 0; undecided && i < length; i++) {
            if (words[i] != upper[i]) continue;
            uint32_t threshold = thresholds[level == NULL ? 0 : level[i]];
            to[i] = from[i] * (float)decide(k0, k1, first + start + i, threshold);
        }
    }
}

#define DIGITS 3
#define BINS 2048

/* The rank of every |value| within its row, 0 the smallest; of equal ones the first is smaller.
   Returns 0 where there was no memory. A radix sort over the 31 bits, 11, 10 and 10, without those
   digits that are the same in the whole row: differences of bfloat16 values have short mantissas. */
int row_ranks(const float *values, int64_t rows, int64_t length, int32_t *ranks) {
    static const int shifts[DIGITS] = {0, 11, 21};
    static const uint32_t masks[DIGITS] = {2047, 1023, 1023};
    uint64_t *a = malloc((size_t)length * 16), *b = a + length;
    if (a == NULL) return 0;
    for (int64_t row = 0; row < rows; row++) {
        const uint32_t *bits = (const uint32_t *)values + row * length;
        int32_t *rank = ranks + row * length;
        uint32_t places[DIGITS][BINS] = {{0}}, different[DIGITS];
        for (int64_t i = 0; i < length; i++) {
            uint32_t magnitude = bits[i] & MAGNITUDE;
            a[i] = (uint64_t)magnitude << 32 | (uint64_t)i;
            for (int digit = 0; digit < DIGITS; digit++)
                places[digit][magnitude >> shifts[digit] & masks[digit]]++;
        }
        int left = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t first = (bits[0] & MAGNITUDE) >> shifts[digit] & masks[digit];
            left += different[digit] = places[digit][first] != (uint64_t)length;
        }
        if (!left)
            for (int64_t i = 0; i < length; i++) rank[i] = (int32_t)i;
        for (int digit = 0; digit < DIGITS; digit++) {
            if (!different[digit]) continue;
            uint32_t before = 0, *place = places[digit], mask = masks[digit];
            for (int64_t bin = 0; bin <= mask; bin++) {
                uint32_t here = place[bin];
                place[bin] = before;
                before += here;
            }
            int shift = 32 + shifts[digit];
            if (--left) {
                for (int64_t i = 0; i < length; i++) b[place[a[i] >> shift & mask]++] = a[i];
                uint64_t *swap = a;
                a = b, b = swap;
            } else {
                for (int64_t i = 0; i < length; i++)
                    rank[(uint32_t)a[i]] = (int32_t)place[a[i] >> shift & mask]++;
            }
        }
    }
    free(a < b ? a : b);
    return 1;
}
