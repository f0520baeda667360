/* Checksums of the pieces of a file, as kernels.c says of all loops: the same on every machine. */

#include "kernels.h"

/* Word i of a piece (little-endian, the last one filled up with zeros) is x = (low, high):
   products += (low + i M) (high + i N + 1), each factor modulo 2^32; words += x, both modulo 2^64.
   The second sum sees every change of one word; the first one also words that change places. */
static uint64_t checksum(const uint8_t *restrict data, int64_t nbytes) {
    uint64_t products = 0, words = 0;
    int64_t whole = nbytes / 8;
    for (int64_t i = 0; i < whole; i++) {
        uint64_t x;
        memcpy(&x, data + 8 * i, sizeof x);
        uint32_t low = (uint32_t)x + (uint32_t)i * 0x9e3779b1u;
        uint32_t high = (uint32_t)(x >> 32) + (uint32_t)i * 0x85ebca77u + 1u;
        products += (uint64_t)low * high;
        words += x;
    }
    if (nbytes > 8 * whole) {
        uint64_t x = 0;
        memcpy(&x, data + 8 * whole, (size_t)(nbytes - 8 * whole));
        uint32_t low = (uint32_t)x + (uint32_t)whole * 0x9e3779b1u;
        uint32_t high = (uint32_t)(x >> 32) + (uint32_t)whole * 0x85ebca77u + 1u;
        products += (uint64_t)low * high;
        words += x;
    }
    return products ^ (words << 31 | words >> 33);
}

/* The checksum of each piece of `piece` bytes, the last one shorter, into `out`. */
void checksums(const uint8_t *data, int64_t nbytes, int64_t piece, uint64_t *out) {
    for (int64_t start = 0; start < nbytes; start += piece) {
        *out++ = checksum(data + start, least(piece, nbytes - start));
    }
}
