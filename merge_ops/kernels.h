/* What both sources of loops need. kernels.c says what holds for all of them. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 1024  /* elements worked on together: they stay in the first-level cache */
#define GROUP 8    /* marks of magnitudes that are looked at together */
#define LANES 64   /* partial sums of a leaf */

static const uint32_t MAGNITUDE = 0x7fffffffu;

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
