/* Loops of random masks: numbers, ranks within rows, and what is kept by them. kernels.c says what
   holds for all loops. */

#include "kernels.h"

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
        if (taken == 16) /* one by one, so that they need not be in memory before */
            for (int k = 0; k < 4; k++) memcpy(out + 4 * k, words + k, sizeof *words);
        else memcpy(out, (uint16_t *)words + skip, (size_t)taken * 2);
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
   elsewhere. */
void keep(uint64_t k0, uint64_t k1, int64_t first, int64_t count, uint32_t threshold,
          const float *values, float *out) {
    uint16_t words[TILE], upper = (uint16_t)(threshold >> 16);
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        const float *restrict from = values + start;
        float *restrict to = out + start;
        draw(k0, k1, first + start, length, words);
        uint16_t undecided = 0;
        for (int64_t i = 0; i < length; i++) {
            to[i] = from[i] * (words[i] < upper ? 1.0f : 0.0f);
            undecided |= words[i] == upper;
        }
        for (int64_t i = 0; undecided && i < length; i++)
            if (words[i] == upper)
                to[i] = from[i] * (float)decide(k0, k1, first + start + i, threshold);
    }
}

#define DIGITS 3
#define BINS 2048

/* Into rank[i] the rank of |values[i]| among the `length` of a row, 0 the smallest; of equal ones
   the first is smaller. `room` is for 2 * length. A radix sort over the 31 bits, 11, 10 and 10,
   without those digits that are the same in the whole row: differences of bfloat16 values have short
   mantissas. */
static void rank_row(const uint32_t *bits, int64_t length, uint64_t *room, int32_t *rank) {
    static const int shifts[DIGITS] = {0, 11, 21};
    static const uint32_t masks[DIGITS] = {2047, 1023, 1023};
    uint32_t places[DIGITS][BINS] = {{0}};
    int different[DIGITS];
    uint64_t *a = room, *b = room + length;
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

/* The ranks of all rows. Returns 0 where there was no memory. */
int row_ranks(const float *values, int64_t rows, int64_t length, int32_t *ranks) {
    uint64_t *room = malloc((size_t)length * 2 * sizeof *room);
    if (room == NULL) return 0;
    for (int64_t row = 0; row < rows; row++)
        rank_row((const uint32_t *)values + row * length, length, room, ranks + row * length);
    free(room);
    return 1;
}

#define OCTAVES 8    /* magnitudes that bins tell apart, about the row's typical one */
#define FINEST 8192  /* bins at most, beside that of zeros */
#define FOUND 64     /* magnitudes of a row whose ranks are remembered */
#define WIDE 16      /* magnitudes compared together */
#define PATIENCE 64  /* looks at each entry of a row, on average, before all ranks are found */

/* One row whose entries are decided by rank, and room for that. */
struct row {
    int64_t length;
    uint32_t *magnitude; /* of all entries, then WIDE of more than any */
    uint16_t *bin;
    struct { uint32_t magnitude; int64_t until, rank; } found[FOUND]; /* of a next one at `until` */
    int64_t looks;
    uint64_t *room; /* for ranking all entries, once there were too many looks */
    int32_t *rank;
    int ranked;
};

static int64_t count_smaller(const uint32_t *magnitude, int64_t count, uint32_t than) {
    uint32_t smaller = 0;
    for (int64_t i = 0; i < (count + WIDE - 1) / WIDE * WIDE; i++) smaller += magnitude[i] < than;
    return smaller;
}

static int64_t count_equal(const uint32_t *magnitude, int64_t count, uint32_t to) {
    uint32_t equal = 0;
    for (int64_t i = 0; i < count / WIDE * WIDE; i++) equal += magnitude[i] == to;
    return equal;
}

static int rank_all(struct row *row) {
    size_t length = (size_t)row->length;
    if (row->room == NULL) row->room = malloc(length * (2 * sizeof *row->room + sizeof *row->rank));
    if (row->room == NULL) return 0;
    row->rank = (int32_t *)(row->room + 2 * length);
    rank_row(row->magnitude, row->length, row->room, row->rank);
    return row->ranked = 1;
}

/* The rank of entry i, no smaller than that asked for before; -1 where there was no memory. */
static int64_t rank_of(struct row *row, int64_t i) {
    uint32_t magnitude = row->magnitude[i];
    size_t place = (uint32_t)(magnitude * 0x9E3779B1u) >> 26;
    if (row->ranked) return row->rank[i];
    if (row->found[place].until < 0 || row->found[place].magnitude != magnitude) {
        row->looks += row->length;
        if (row->looks > PATIENCE * row->length) return rank_all(row) ? row->rank[i] : -1;
        row->found[place].magnitude = magnitude;
        row->found[place].until = 0;
        row->found[place].rank = count_smaller(row->magnitude, row->length, magnitude);
    }
    int64_t from = row->found[place].until, until = i / WIDE * WIDE;
    uint32_t here = 0;
    row->found[place].until = until;
    row->found[place].rank += count_equal(row->magnitude + from, until - from, magnitude);
    for (int64_t k = 0; k < WIDE; k++)
        here += (row->magnitude[until + k] == magnitude) & (until + k < i);
    return row->found[place].rank + here;
}

/* Bins for a row's magnitudes, about their geometric mean: 0 for zeros, then
   1 + (magnitude - low >> shift), at most 1 + last. */
struct bins {
    uint32_t low, last;
    int shift;
};

static struct bins bins_for(const uint32_t *magnitude, int64_t length) {
    uint64_t sum = 0, some = 0;
    for (int64_t start = 0; start < length; start += TILE) {
        int64_t end = least(start + TILE, length);
        uint32_t upper = 0, differing = 0;
        for (int64_t i = start; i < end; i++) {
            upper += magnitude[i] >> 16;
            differing += magnitude[i] != 0;
        }
        sum += upper, some += differing;
    }
    uint32_t below = 11u << 22, typical = some ? (uint32_t)(sum / some) << 16 : 0;
    uint32_t last = 16 * OCTAVES - 1;
    int shift = 19;
    while (last < FINEST / 2 && last * 4 < length) last = last * 2 + 1, shift--;
    return (struct bins){typical > below ? typical - below : 0, last, shift};
}

/* Into bound[b] the lowest (lower half) and the highest level (upper half) that an entry of bin b
   may have, levels[1 + rank] being that of a rank; into row->bin the entries' bins. */
static void bound_bins(struct row *row, const uint16_t *levels, uint32_t *bound) {
    struct bins bins = bins_for(row->magnitude, row->length);
    uint32_t low = bins.low, last = bins.last, count[2][FINEST + 1];
    int shift = bins.shift;
    int64_t length = row->length;
    const uint32_t *restrict magnitude = row->magnitude;
    uint16_t *restrict bin = row->bin;
    for (int64_t i = 0; i < length; i++) {
        uint32_t above = (magnitude[i] > low ? magnitude[i] - low : 0) >> shift;
        bin[i] = (uint16_t)((above < last ? above : last) + (magnitude[i] != 0));
    }
    memset(count[0], 0, (last + 2) * sizeof **count);
    memset(count[1], 0, (last + 2) * sizeof **count);
    for (int64_t i = 0; i + 1 < length; i += 2) count[0][bin[i]]++, count[1][bin[i + 1]]++;
    if (length % 2) count[0][bin[length - 1]]++;
    uint32_t before = 0;
    for (uint32_t b = 0; b < last + 2; b++) {
        uint32_t lowest = levels[1 + before];
        before += count[0][b] + count[1][b];
        bound[b] = lowest | (uint32_t)levels[before] << 16;
    }
}

/* Decides one row (see decide_by_rank); returns 0 where there was no memory. */
static int decide_row(struct row *row, uint64_t k0, uint64_t k1, int64_t first,
                      const uint32_t *thresholds, const uint32_t *bound, uint8_t *decided) {
    for (int64_t start = 0; start < row->length; start += TILE) {
        int64_t length = least(TILE, row->length - start);
        uint16_t words[TILE];
        uint32_t bounds[TILE];
        uint8_t below[TILE] = {0}, open[TILE] = {0};
        draw(k0, k1, first + start, length, words);
        for (int64_t i = 0; i < length; i++) bounds[i] = bound[row->bin[start + i]];
        for (int64_t i = 0; i < length; i++) {
            uint16_t low = (uint16_t)bounds[i], high = (uint16_t)(bounds[i] >> 16);
            below[i] = words[i] < low;
            open[i] = (words[i] >= low) & (words[i] <= high);
        }
        for (int64_t group = 0; group < length; group += GROUP) {
            uint64_t kept = packed(below + group);
            for (uint64_t left = packed(open + group); left; left &= left - 1) {
                int place = __builtin_ctzll(left);
                int64_t i = group + place, rank = rank_of(row, start + i);
                if (rank < 0) return 0;
                uint32_t threshold = thresholds[rank];
                uint64_t wanted = words[i] < threshold >> 16;
                if (words[i] == threshold >> 16)
                    wanted = (uint64_t)decide(k0, k1, first + start + i, threshold);
                kept |= wanted << place;
            }
            for (int64_t i = group; i < least(group + GROUP, length); i += 8, kept >>= 8)
                *decided++ = (uint8_t)kept;
        }
    }
    return 1;
}

/* Into `decided`, bit by bit, low ones first, whether each element's number (randomness.py) is below
   thresholds[rank of its magnitude in its row]; thresholds must not fall. Every row begins with a
   byte. Returns 0 where there was no memory.

   Ranks need no sorting: how many entries lie in lower bins and in its own bound an entry's
   threshold, which decides for all but a few; the ranks of those are counted one by one. */
int decide_by_rank(uint64_t k0, uint64_t k1, int64_t first, const float *values, int64_t rows,
                   int64_t length, const uint32_t *thresholds, uint8_t *decided) {
    uint32_t bound[FINEST + 1];
    struct row row = {.length = length};
    row.magnitude = malloc((size_t)(length + WIDE) * (sizeof *row.magnitude + 2 * sizeof *row.bin));
    if (row.magnitude == NULL) return 0;
    row.bin = (uint16_t *)(row.magnitude + length + WIDE);
    uint16_t *levels = row.bin + length;
    levels[0] = levels[length + 1] = 0; /* of bins with nothing in them */
    for (int64_t i = 0; i < length; i++) levels[1 + i] = (uint16_t)(thresholds[i] >> 16);
    for (int64_t i = 0; i < WIDE; i++) row.magnitude[length + i] = UINT32_MAX;
    int done = 1;
    for (int64_t number = 0; done && number < rows; number++, first += length) {
        const uint32_t *bits = (const uint32_t *)values + number * length;
        for (int64_t i = 0; i < length; i++) row.magnitude[i] = bits[i] & MAGNITUDE;
        for (int k = 0; k < FOUND; k++) row.found[k].until = -1;
        row.looks = row.ranked = 0;
        bound_bins(&row, levels, bound);
        done = decide_row(&row, k0, k1, first, thresholds, bound, decided);
        decided += (length + 7) / 8;
    }
    free(row.magnitude);
    free(row.room);
    return done;
}

/* values * 1 or * 0 as decided, times the factor. */
static void apply_tile(const float *restrict values, const uint8_t *restrict decided, int64_t count,
                       float factor, float *restrict out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint32_t byte = decided[i / 8];
        for (int k = 0; k < 8; k++)
            out[i + k] = values[i + k] * (float)(int32_t)(byte >> k & 1) * factor;
    }
    for (; i < count; i++)
        out[i] = values[i] * (float)(int32_t)(decided[i / 8] >> i % 8 & 1) * factor;
}

/* out = values * 1 or * 0 as decided for their rows, times the factor. */
void apply_decided(const float *values, const uint8_t *decided, int64_t rows, int64_t length,
                   float factor, float *out) {
    for (int64_t row = 0; row < rows; row++, decided += (length + 7) / 8)
        apply_tile(values + row * length, decided, length, factor, out + row * length);
}

/* The leaf_sums of |values| times what was decided, a row a leaf. */
void decided_sums(const float *values, const uint8_t *decided, int64_t rows, int64_t length,
                  double *sums) {
    for (int64_t row = 0; row < rows; row++) {
        double lanes[LANES] = {0};
        for (int64_t start = 0; start < length; start += TILE) {
            int64_t count = least(TILE, length - start);
            float kept[TILE];
            apply_tile(values + row * length + start, decided + start / 8, count, 1.0f, kept);
            add_lanes(kept, NULL, count, lanes);
        }
        decided += (length + 7) / 8;
        sums[row] = fold(lanes);
    }
}
