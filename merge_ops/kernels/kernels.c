/* The innermost loops of a merge on the CPU, each one pass where torch needs several; those of
   random masks are in kernels_masks.c, sums of what is stored in kernels_stored.c.

   loops.py calls them; torch_arithmetic.py has the same arithmetic in torch, for where they were not
   compiled. Both give the same bits on every processor: every rounding here is one that stands in the
   source (compiled with -ffp-contract=off, never with -ffast-math), no product is fused with a sum,
   and sums go over fixed lanes in a fixed order.
   Lengths are elements; pointers to outputs never overlap inputs unless said. Compiled with
   -fno-strict-aliasing: floats are looked at as their bits. */

#include "kernels.h"

#ifndef SOURCE
#define SOURCE ""
#endif

static const uint32_t SIGN = 0x80000000u;

/* The digest of the sources this was compiled from. */
const char *source_digest(void) { return SOURCE; }

/* See widen. */
int from_bfloat16(const uint16_t *stored, const float *base, float *out, int64_t count) {
    return widen(stored, base, count, out);
}

/* See round_to_bfloat16. */
int to_bfloat16(const float *values, const float *base, uint16_t *out, int64_t count) {
    return round_to_bfloat16(values, base, count, out);
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
                for (uint64_t left = packed(near + group); left; left &= left - 1) {
                    int64_t i = group + __builtin_ctzll(left);
                    if (magnitude[i] == high) counts[cut][1]++;
                    else if (magnitude[i] == low) counts[cut][2]++;
                    else inside[cut][counts[cut][3]++] = magnitude[i];
                }
            }
        }
    }
}

/* Which magnitudes of a part count, as bits of floats: above `low` and not above `high`; of those
   that equal low also the next low_ties, of those that equal high not the next high_ties. What is
   kept is multiplied by the factor. A part that is not cut counts as it is. */
struct band {
    uint32_t low, high;
    int64_t low_ties, high_ties;
    float factor;
    int32_t cut;
};

/* kept = values where |by| is within the band, zero elsewhere; ties that were used up are taken off
   the band. */
static inline void keep_tile(const float *by, const float *values, int64_t length,
                             struct band *band, float *out) {
    const uint32_t *bits = (const uint32_t *)by, *from = (const uint32_t *)values;
    uint32_t *kept = (uint32_t *)out, low = band->low, high = band->high, equal = 0;
    uint32_t lowest = band->low_ties ? low : low + 1;
    for (int64_t i = 0; i < length; i++) {
        uint32_t here = bits[i] & MAGNITUDE;
        kept[i] = from[i] & -(uint32_t)(here >= lowest) & -(uint32_t)(here <= high);
        equal |= (here == low) | (here == high);
    }
    if (!equal || !(band->low_ties || band->high_ties)) return;
    for (int64_t i = 0; i < length; i++) {
        uint32_t here = bits[i] & MAGNITUDE;
        if (here != low && here != high) continue;
        int wanted = here > low || (band->low_ties && band->low_ties--);
        if (here == high && band->high_ties) band->high_ties--, wanted = 0;
        if (!wanted) kept[i] = 0;
    }
}

/* What counts of the next elements of a part: themselves, or a copy in `tile`. */
static inline const float *counting(const float *part, struct band *band, int64_t length,
                                    float *tile) {
    if (band == NULL || !band->cut) return part;
    keep_tile(part, part, length, band, tile);
    if (band->factor != 1)
        for (int64_t i = 0; i < length; i++) tile[i] *= band->factor;
    return tile;
}

/* The arithmetic of ties.disjoint_merge: parts[e] times scale[e] are added up, and where the sum's
   sign agrees they are summed, times gain[e], divided by the shares of those that agree, and
   multiplied by lambda.
   A divisor is at least `smallest` where that is positive, else one where it is zero. `bands` may
   be null; they are used up. Returns 0 where there was no memory. */
int disjoint_merge(const float *const *parts, struct band *bands, const float *scale,
                   const float *gain, const float *share, int64_t experts, int64_t count,
                   int normalize, float smallest, float lambda, float *out) {
    float total[TILE], merged[TILE], divisor[TILE];
    uint32_t sign[TILE];
    const float **now = malloc((size_t)experts * (sizeof *now + sizeof total));
    if (now == NULL) return 0;
    float *tiles = (float *)(now + experts);
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        memset(merged, 0, sizeof merged);
        memset(divisor, 0, sizeof divisor);
        for (int64_t e = 0; e < experts; e++) {
            struct band *band = bands == NULL ? NULL : bands + e;
            const float *restrict part =
                counting(parts[e] + start, band, length, tiles + e * TILE);
            now[e] = part;
            float scaled = scale[e];
            if (e == 0)
                for (int64_t i = 0; i < length; i++) total[i] = part[i] * scaled;
            else
                for (int64_t i = 0; i < length; i++) total[i] += part[i] * scaled;
        }
        for (int64_t i = 0; i < length; i++) sign[i] = as_bits(total[i]) & SIGN;
        for (int64_t e = 0; e < experts; e++) {
            const float *restrict part = now[e];
            float scaled = scale[e], factor = gain[e];
            uint32_t weight = as_bits(share[e]);
            for (int64_t i = 0; i < length; i++) {
                /* Masks, because signs are chance and a branch on them is guessed wrong. */
                uint32_t towards = as_bits(part[i] * scaled) ^ sign[i];
                uint32_t agreeing = towards & ((towards >> 31) - 1);
                merged[i] += as_float(agreeing) * factor;
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
    free(now);
    return 1;
}

/* The weighted sum of at most a tile of the parts, from `start`. */
static inline void sum_tile(const float *const *parts, struct band *bands, const float *weights,
                            int64_t experts, int64_t start, int64_t length, float divisor,
                            float scale, float *restrict merged) {
    float tile[TILE];
    for (int64_t e = 0; e < experts; e++) {
        struct band *band = bands == NULL ? NULL : bands + e;
        add_term(counting(parts[e] + start, band, length, tile), weights[e], e == 0, length, merged);
    }
    end_sum(divisor, scale, length, merged);
}

/* parts[0] * weights[0] + parts[1] * weights[1] + ..., divided by the divisor, times the scale.
   `bands` as in disjoint_merge. */
void weighted_sum(const float *const *parts, struct band *bands, const float *weights,
                  int64_t experts, int64_t count, float divisor, float scale, float *out) {
    for (int64_t start = 0; start < count; start += TILE)
        sum_tile(parts, bands, weights, experts, start, least(TILE, count - start), divisor, scale,
                 out + start);
}

/* Into out[s] the weighted sum s, plus base unless it is null, rounded as by to_bfloat16; of each in
   `numbers` its weights, divisor and scale. With bands there is only one. Returns 1 where a result
   is NaN or infinite. */
int weighted_sums_to_bfloat16(const float *const *parts, struct band *bands, int64_t experts,
                              int64_t count, int64_t sums, const float *numbers,
                              const float *base, uint16_t *const *out) {
    float merged[TILE];
    int bad = 0;
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        const float *from = base == NULL ? NULL : base + start, *weights = numbers;
        for (int64_t s = 0; s < sums; s++, weights += experts + 2) {
            sum_tile(parts, bands, weights, experts, start, length, weights[experts],
                     weights[experts + 1], merged);
            bad |= round_to_bfloat16(merged, from, length, out[s] + start);
        }
    }
    return bad;
}

/* out = values where |by| is within the band, zero elsewhere. */
void keep_band(const float *by, const float *values, int64_t count, uint32_t low, int64_t low_ties,
               uint32_t high, int64_t high_ties, float *out) {
    struct band band = {low, high, low_ties, high_ties, 1, 1};
    for (int64_t start = 0; start < count; start += TILE)
        keep_tile(by + start, values + start, least(TILE, count - start), &band, out + start);
}

/* Puts into sums[leaf] the sum of the products a·b (|a| where b is null), leaf by leaf. */
void leaf_sums(const float *a, const float *b, int64_t count, int64_t leaf, double *sums) {
    for (int64_t start = 0; start < count; start += leaf) {
        double lanes[LANES] = {0};
        int64_t length = least(leaf, count - start);
        add_lanes(a + start, b == NULL ? NULL : b + start, length, lanes);
        *sums++ = fold(lanes);
    }
}

/* Into sums[e], `leaves` apart, the leaf_sums of the squares of those entries of parts[e] where `by`
   is larger than `above`. Returns how many these are. */
int64_t squares_above(const float *const *parts, int64_t experts, const float *by, float above,
                   int64_t count, int64_t leaf, double *sums) {
    int64_t leaves = (count + leaf - 1) / leaf, larger = 0;
    for (int64_t i = 0; i < count; i++) larger += by[i] > above;
    for (int64_t e = 0; e < experts; e++)
        for (int64_t start = 0; start < count; start += leaf) {
            double lanes[LANES] = {0};
            int64_t end = least(start + leaf, count);
            for (int64_t tile = start; tile < end; tile += TILE) {
                float kept[TILE];
                const float *restrict part = parts[e] + tile, *restrict decides = by + tile;
                int64_t length = least(TILE, end - tile);
                for (int64_t i = 0; i < length; i++)
                    kept[i] = as_float(as_bits(part[i]) & -(uint32_t)(decides[i] > above));
                add_lanes(kept, kept, length, lanes);
            }
            sums[e * leaves + start / leaf] = fold(lanes);
        }
    return larger;
}

/* The variance of two, without arrays of float64 between: what most merges have. */
static void variance_of_two(const float *restrict a, const float *restrict b, int64_t count,
                            float *restrict out) {
    for (int64_t i = 0; i < count; i++) {
        double mean = ((double)a[i] + b[i]) * 0.5; /* the same bits as a division */
        double first = a[i] - mean, second = b[i] - mean;
        out[i] = (float)((first * first + second * second) * 0.5);
    }
}

static void variance_of_tile(const float *const *parts, int64_t experts, int64_t start,
                             int64_t count, float *out) {
    double mean[TILE] = {0}, squares[TILE] = {0};
    for (int64_t e = 0; e < experts; e++) {
        const float *restrict part = parts[e] + start;
        for (int64_t i = 0; i < count; i++) mean[i] += part[i];
    }
    for (int64_t i = 0; i < count; i++) mean[i] /= (double)experts;
    for (int64_t e = 0; e < experts; e++) {
        const float *restrict part = parts[e] + start;
        for (int64_t i = 0; i < count; i++) {
            double apart = part[i] - mean[i];
            squares[i] += apart * apart;
        }
    }
    for (int64_t i = 0; i < count; i++) out[i] = (float)(squares[i] / (double)experts);
}

/* The variance over the parts of every entry, in float64, rounded once. Returns how many are not
   zero. */
int64_t variance(const float *const *parts, int64_t experts, int64_t count, float *out) {
    int64_t differing = 0;
    for (int64_t start = 0; start < count; start += TILE, out += TILE) {
        int64_t length = least(TILE, count - start);
        uint32_t here = 0;
        if (experts == 2) variance_of_two(parts[0] + start, parts[1] + start, length, out);
        else variance_of_tile(parts, experts, start, length, out);
        for (int64_t i = 0; i < length; i++) here += out[i] != 0;
        differing += here;
    }
    return differing;
}

/* Entries where low <= by <= high (bits of floats, none negative), in order: into picked[0] those of
   `by`, into picked[1 + e] those of parts[e]; these are `count` apart. Returns how many. */
int64_t pick_between(const float *by, uint32_t low, uint32_t high, const float *const *parts,
                     int64_t experts, int64_t count, float *picked) {
    const uint32_t *bits = (const uint32_t *)by;
    int64_t found = 0;
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        uint8_t near[TILE] = {0};
        for (int64_t i = 0; i < length; i++) near[i] = bits[start + i] - low <= high - low;
        for (int64_t group = 0; group < length; group += GROUP) {
            for (uint64_t left = packed(near + group); left; left &= left - 1) {
                int64_t i = group + __builtin_ctzll(left);
                picked[found] = by[start + i];
                for (int64_t e = 0; e < experts; e++)
                    picked[(e + 1) * count + found] = parts[e][start + i];
                found++;
            }
        }
    }
    return found;
}
