/* Checksums of the pieces of a file, and reads that are compared with them. kernels.c says what holds
   for all loops: the same numbers on every machine. */

#include "kernels.h"

#include <errno.h>
#include <unistd.h>

#define WORDS 8    /* of a row, each a lane */
#define TOGETHER 8 /* pieces asked for at once: they are checked while they are in the cache */

static const uint64_t PRIME = 0x9e3779b97f4a7c15u;

static inline void add_row(const uint8_t *restrict row, uint64_t *restrict sums,
                           uint64_t *restrict sums_of_sums) {
    uint64_t words[WORDS];
    memcpy(words, row, sizeof words);
    for (int lane = 0; lane < WORDS; lane++) {
        sums[lane] += words[lane];
        sums_of_sums[lane] += sums[lane];
    }
}

/* Rows of eight little-endian words, the last one filled up with zeros. Each lane has the sum of its
   words and the sum of those sums, modulo 2^64; both are put together lane by lane. The first sees
   every change of one word, the second one words that change places. */
static uint64_t checksum(const uint8_t *restrict data, int64_t nbytes) {
    uint64_t sums[WORDS] = {0}, sums_of_sums[WORDS] = {0}, first = 0, second = 0;
    uint8_t last[8 * WORDS] = {0};
    int64_t whole = nbytes / (8 * WORDS) * (8 * WORDS);
    for (int64_t at = 0; at < whole; at += 8 * WORDS) add_row(data + at, sums, sums_of_sums);
    if (nbytes > whole) {
        memcpy(last, data + whole, (size_t)(nbytes - whole));
        add_row(last, sums, sums_of_sums);
    }
    for (int lane = 0; lane < WORDS; lane++) {
        first = first * PRIME + sums[lane];
        second = second * PRIME + sums_of_sums[lane];
    }
    return first ^ (second << 32 | second >> 32);
}

/* The checksum of each piece of `piece` bytes, the last one shorter, into `out`. */
void checksums(const uint8_t *data, int64_t nbytes, int64_t piece, uint64_t *out) {
    for (int64_t start = 0; start < nbytes; start += piece) {
        *out++ = checksum(data + start, least(piece, nbytes - start));
    }
}

/* Bytes from `start` on; how many came, fewer only at the end of the file or where it fails. */
static int64_t fill(int file, int64_t start, uint8_t *into, int64_t count) {
    int64_t done = 0;
    while (done < count) {
        ssize_t got = pread(file, into + done, (size_t)(count - done), (off_t)(start + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += got;
    }
    return done;
}

/* Bytes [offset, offset + count) of a file of `size` bytes into `out`, whose pieces must have the
   checksums `expected`; `scratch` has room for a piece. -1 where all are right, -2 where bytes are
   missing or cannot be read, else the first byte of a piece that is wrong. */
int64_t read_checked(int file, int64_t offset, int64_t count, int64_t size, int64_t piece,
                     const uint64_t *expected, uint8_t *scratch, uint8_t *out) {
    int64_t end = offset + count, at = offset;
    while (at < end) {
        int64_t number = at / piece, start = number * piece, stop = least(start + piece, size);
        if (start < at || stop > end) {
            if (fill(file, start, scratch, stop - start) != stop - start) return -2;
            if (checksum(scratch, stop - start) != expected[number]) return start;
            int64_t until = least(stop, end);
            memcpy(out + (at - offset), scratch + (at - start), (size_t)(until - at));
            at = until;
            continue;
        }
        int64_t until = end == size ? end : end / piece * piece;
        int64_t length = least(until - at, TOGETHER * piece);
        uint8_t *into = out + (at - offset);
        if (fill(file, at, into, length) != length) return -2;
        for (int64_t done = 0; done < length; done += piece, number++) {
            if (checksum(into + done, least(piece, length - done)) != expected[number])
                return at + done;
        }
        at += length;
    }
    return -1;
}
