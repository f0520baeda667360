/* exp, log and tanh in float64, in their place. kernels.c says what holds for all loops.

   The operations of elementary.py, one for one and in its order: the same bits. Polynomials and
   constants are those of FreeBSD's msun (fdlibm) and, for tanh, of Cephes. */

#include "kernels.h"

#define COUNT(factors) ((int)(sizeof factors / sizeof *factors))
#define POLYNOMIAL(x, factors) polynomial(x, factors, COUNT(factors))

static const double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
static const double EXP[] = {
    1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
    -1.65339022054652515390e-06, 4.13813679705723846039e-08};
static const double LOG[] = {
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
    1.479819860511658591e-01};
static const double TANH_ABOVE[] = {-1.61468768441708447952e3, -9.92877231001918586564e1,
                                    -9.64399179425052238628e-1};
static const double TANH_BELOW[] = {4.84406305325125486048e3, 2.23548839060100448583e3,
                                    1.12811678491632931402e2, 1.0};

static inline double as_double(int64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double polynomial(double x, const double *factors, int count) {
    double value = x * factors[count - 1];
    for (int k = count - 2; k > 0; k--) value = (value + factors[k]) * x;
    return value + factors[0];
}

static inline double exp_of(double x) {
    double halvings = rint(x * 1.4426950408889634);
    halvings = halvings < -1021 ? -1021 : halvings > 1023 ? 1023 : halvings;
    double high = x - halvings * LN2_HIGH, low = halvings * LN2_LOW, rest = high - low;
    double square = rest * rest, ratio = rest - square * POLYNOMIAL(square, EXP);
    double value = 1.0 - ((low - rest * ratio / (2.0 - ratio)) - high);
    return x < -700 ? 0 : value * as_double(((int64_t)halvings + 1023) << 52);
}

static inline double log_of(double x) {
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    double mantissa = as_double((bits & (((int64_t)1 << 52) - 1)) | (int64_t)1023 << 52);
    int large = mantissa > 1.4142135623730951;
    double power = (double)((bits >> 52) - 1023 + large);
    double f = (large ? mantissa * 0.5 : mantissa) - 1.0, s = f / (f + 2.0), z = s * s;
    double half = f * f * 0.5, series = z * POLYNOMIAL(z, LOG);
    return power * LN2_HIGH - ((half - (s * (half + series) + power * LN2_LOW)) - f);
}

static inline double tanh_of(double x) {
    double square = x * x, magnitude = fabs(x);
    double near = square * POLYNOMIAL(square, TANH_ABOVE) / POLYNOMIAL(square, TANH_BELOW) * x + x;
    double far = 1.0 - 2.0 / (exp_of((magnitude < 20 ? magnitude : 20) * 2.0) + 1.0);
    return magnitude < 0.625 ? near : copysign(far, x);
}

/* values = exp(values); 0 below -700. */
void exponential(double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = exp_of(values[i]);
}

/* values = log(values), of positive normal ones. */
void logarithm(double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = log_of(values[i]);
}

/* values = tanh(values). */
void hyperbolic_tangent(double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = tanh_of(values[i]);
}
