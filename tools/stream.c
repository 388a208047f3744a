/* Measures how fast memory, or the cache that holds it, is read and written. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peak.h"
#include "stats.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define REGISTER "+v"
#elif defined(__aarch64__)
#define REGISTER "+w"
#else
#define REGISTER "+m"
#endif

enum { TRIALS = 12, PIECE = 4096 };

typedef uint64_t chunk __attribute__((vector_size(16), may_alias));

/* Sums count chunks, a multiple of four. */
static void read_chunks(const chunk *from, size_t count)
{
    chunk a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i < count; i += 4) {
        a += from[i];
        b += from[i + 1];
        c += from[i + 2];
        d += from[i + 3];
    }
    a += b + c + d;
    __asm__ volatile("" : REGISTER(a));
}

/* past: around the caches, which pays when what is written does not fit them. */
static void write_chunks(chunk *to, size_t count, bool past)
{
#if defined(__x86_64__)
    if (past) {
        for (size_t i = 0; i < count; i++)
            _mm_stream_si128((__m128i *)(void *)(to + i), _mm_setzero_si128());
        _mm_sfence();
        return;
    }
#endif
    (void)past;
    memset(to, 0, count * sizeof(*to));
}

typedef struct area {
    char *memory;
    size_t each; /* bytes of one thread, whole pieces */
} area;

/* Memory for each of threads, touched by it. */
static bool area_create(area *a, size_t bytes, int threads)
{
    a->each = (bytes / (size_t)threads + PIECE - 1) / PIECE * PIECE;
    a->memory = NULL;
    if (a->each == 0)
        return true;
    a->memory = mmap(NULL, a->each * (size_t)threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a->memory == MAP_FAILED)
        return false;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        memset(a->memory + a->each * (size_t)t, 1, a->each);
    return true;
}

static void area_destroy(area *a, int threads)
{
    if (a->memory && a->memory != MAP_FAILED)
        munmap(a->memory, a->each * (size_t)threads);
}

/* Seconds to read one area and write the other; an area of no bytes has no memory to point into. */
static double pass(const area *in, const area *out, int threads, bool past)
{
    const double start = nf_tool_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        if (in->each)
            read_chunks((const chunk *)(in->memory + in->each * (size_t)t), in->each / sizeof(chunk));
        if (out->each)
            write_chunks((chunk *)(out->memory + out->each * (size_t)t), out->each / sizeof(chunk), past);
    }
    return nf_tool_now() - start;
}

double nf_tool_stream_seconds(size_t read_bytes, size_t written_bytes, int threads)
{
    area in, out = {0};
    const bool made = area_create(&in, read_bytes, threads) && area_create(&out, written_bytes, threads);
    double best = 0;
    for (int i = 0; made && i < 2 * TRIALS; i++) {
        const double seconds = pass(&in, &out, threads, i % 2 == 1);
        best = i == 0 || seconds < best ? seconds : best;
    }
    area_destroy(&in, threads);
    area_destroy(&out, threads);
    return best;
}

double nf_tool_peak_bandwidth(int threads)
{
    static int measured_threads;
    static double bandwidth;
    if (measured_threads != threads) {
        const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
        const size_t bytes = (cache > 0 ? (size_t)cache : (size_t)32 << 20) * 4;
        const double seconds = nf_tool_stream_seconds(bytes, 0, threads);
        bandwidth = seconds > 0 ? (double)bytes / seconds : 0;
        measured_threads = threads;
    }
    return bandwidth;
}
