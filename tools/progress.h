/* A progress bar on stderr: shown on a terminal, or when asked for. */
#ifndef NF_TOOLS_PROGRESS_H
#define NF_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct nf_progress {
    const char *label;
    int64_t total;
    bool shown;
    int percent;  /* last printed */
    double start; /* seconds */
} nf_progress;

/* Nothing is printed unless stderr is a terminal or always is set. */
void nf_progress_start(nf_progress *progress, const char *label, int64_t total, bool always);
/* done of total units are finished. */
void nf_progress_update(nf_progress *progress, int64_t done);
/* Wipes the bar from a terminal; ends the line elsewhere. */
void nf_progress_finish(nf_progress *progress);

/* Seconds of a clock that only runs forward. */
double nf_seconds(void);

#endif
