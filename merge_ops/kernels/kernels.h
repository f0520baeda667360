/* What the sources of loops share. kernels.c says what holds for all of them. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 1024  /* elements worked on together: they stay in the first-level cache */
#define GROUP 64   /* marks that are looked at together */
#define LANES 64   /* partial sums of a leaf */

/* From ROUNDS_UP on a magnitude is rounded to an infinite bfloat16. */
static const uint32_t MAGNITUDE = 0x7fffffffu, INFINITE = 0x7f800000u, ROUNDS_UP = 0x7f7f8000u;

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
static inline int widen(const uint16_t *restrict stored, const float *restrict base, int64_t count,
                        float *restrict out) {
    uint32_t bad = 0;
    if (base == NULL) {
        for (int64_t i = 0; i < count; i++) {
            uint32_t value = (uint32_t)stored[i] << 16;
            bad |= (value & INFINITE) == INFINITE;
            out[i] = as_float(value);
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
   NaN. 1 where a result is NaN or infinite. */
static inline int round_to_bfloat16(const float *restrict values, const float *restrict base,
                                    int64_t count, uint16_t *restrict out) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        float sum = base == NULL ? values[i] : values[i] + base[i];
        uint32_t bits = as_bits(sum);
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
        uint32_t magnitude = bits & MAGNITUDE;
        out[i] = (uint16_t)(magnitude > INFINITE ? 0x7fc0u : rounded);
        most = magnitude > most ? magnitude : most;
    }
    return most >= ROUNDS_UP;
}

/* One more term of a weighted sum: the product is rounded, then the sum. Never fused, whatever the
   processor can: one plan gives one file on all of them. */
static inline void add_term(const float *restrict part, float weight, int first, int64_t count,
                            float *restrict sum) {
    if (first)
        for (int64_t i = 0; i < count; i++) sum[i] = part[i] * weight;
    else
        for (int64_t i = 0; i < count; i++) sum[i] += part[i] * weight;
}

/* The end of a weighted sum: divided by the divisor, times the scale. */
static inline void end_sum(float divisor, float scale, int64_t count, float *sum) {
    if (divisor != 1)
        for (int64_t i = 0; i < count; i++) sum[i] /= divisor;
    if (scale != 1)
        for (int64_t i = 0; i < count; i++) sum[i] *= scale;
}

/* Bit i of the result is the lowest bit of bytes[i]; the others must be zero. */
static inline uint64_t packed(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int group = 0; group < 8; group++) {
        uint64_t eight = 0;
        for (int k = 0; k < 8; k++) eight |= (uint64_t)bytes[group * 8 + k] << 8 * k;
        word |= (eight * 0x0102040810204080u >> 56) << 8 * group;
    }
    return word;
}

/* The float32 products a·b (|a| where b is null) added in float64: element i into lane i mod
   LANES. */
static inline void add_lanes(const float *a, const float *b, int64_t count,
                             double *restrict lanes) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int64_t k = 0; k < LANES; k++)
            lanes[k] += b == NULL ? fabsf(a[i + k]) : a[i + k] * b[i + k];
    for (int64_t k = 0; i < count; i++, k++) lanes[k] += b == NULL ? fabsf(a[i]) : a[i] * b[i];
}

/* The upper half of the lanes added to the lower, until one is left. */
static inline double fold(double *lanes) {
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t k = 0; k < half; k++) lanes[k] += lanes[k + half];
    return lanes[0];
}
