/* Weighted sums of bfloat16 as it is stored. kernels.c says what holds for all loops. */

#include "kernels.h"

/* Into out[s] the weighted sum s of stored[e] - base, plus base, rounded; without base where that
   is null. Of each sum `numbers` has its weights, divisor and scale. Returns 1 where a value that
   is stored or a result is NaN or infinite, -1 where there was no memory. The same bits as from_bfloat16 and
   weighted_sums_to_bfloat16. */
int sums_of_bfloat16(const uint16_t *const *stored, const uint16_t *base, int64_t experts,
                     int64_t count, int64_t sums, const float *numbers, uint16_t *const *out) {
    float origin[TILE], merged[TILE], *from = base == NULL ? NULL : origin;
    float *parts = malloc((size_t)experts * sizeof origin);
    int bad = 0;
    if (parts == NULL) return -1;
    for (int64_t start = 0; start < count; start += TILE) {
        int64_t length = least(TILE, count - start);
        if (base != NULL) bad |= widen(base + start, NULL, length, origin);
        for (int64_t e = 0; e < experts; e++)
            bad |= widen(stored[e] + start, from, length, parts + e * TILE);
        const float *weights = numbers;
        for (int64_t s = 0; s < sums; s++, weights += experts + 2) {
            for (int64_t e = 0; e < experts; e++)
                add_term(parts + e * TILE, weights[e], e == 0, length, merged);
            end_sum(weights[experts], weights[experts + 1], length, merged);
            bad |= round_to_bfloat16(merged, from, length, out[s] + start);
        }
    }
    free(parts);
    return bad;
}
