/* The progress bar: one line, rewritten at every percent. */
#include "progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double nf_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void nf_progress_start(nf_progress *progress, const char *label, int64_t total, bool always)
{
    *progress = (nf_progress){.label = label,
                              .total = total > 0 ? total : 1,
                              .shown = always || isatty(STDERR_FILENO),
                              .percent = -1,
                              .start = nf_seconds()};
    nf_progress_update(progress, 0);
}

void nf_progress_update(nf_progress *progress, int64_t done)
{
    static const char full[] = "########################################";
    const int percent = (int)(100 * done / progress->total), width = (int)sizeof full - 1;
    if (!progress->shown || percent == progress->percent)
        return;
    const int filled = percent * width / 100;
    const double elapsed = nf_seconds() - progress->start;
    fprintf(stderr, "\r%s [%.*s%*s] %3d %%", progress->label, filled, full, width - filled, "", percent);
    if (done > 0)
        fprintf(stderr, ", %.0f s left ", elapsed * (double)(progress->total - done) / (double)done);
    fflush(stderr);
    progress->percent = percent;
}

void nf_progress_finish(nf_progress *progress)
{
    if (progress->shown)
        fputs(isatty(STDERR_FILENO) ? "\r\033[K" : "\n", stderr);
    progress->shown = false;
}
