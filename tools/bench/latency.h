/* What both load generators measure with: the clock, and latencies in a histogram whose buckets are 1/128 of their power of
 * two, as in an HDR histogram: under 0.8 % error.
 */
#include <stdint.h>
#include <time.h>

#define SECOND 1000000000LL
#define SUB 128
#define BUCKETS (SUB * 40)

static uint64_t histogram[BUCKETS], measured;
static double latency_sum;
static long long latency_max;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int bucket_of(long long ns) {
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    if (value < SUB) return (int)value;
    int shift = 63 - __builtin_clzll(value) - 7;
    int bucket = (shift + 1) * SUB + (int)((value >> shift) - SUB);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double bucket_value(int bucket) {
    if (bucket < SUB) return bucket;
    int shift = bucket / SUB - 1;
    return ((double)(bucket % SUB + SUB) + 0.5) * (double)(1ULL << shift);
}

static void add_latency(long long latency) {
    measured++;
    histogram[bucket_of(latency)]++;
    latency_sum += (double)latency;
    if (latency > latency_max) latency_max = latency;
}

/* Microseconds; so do the other figures that are printed. */
static double percentile(double share) {
    uint64_t wanted = (uint64_t)(share * (double)measured + 0.9999999), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) >= wanted && seen) return bucket_value(i) / 1000.0;
    return 0;
}

static double mean_us(void) {
    return measured ? latency_sum / (double)measured / 1000.0 : 0;
}
