/* nearfield denoise - non-local means on pictures and volumes. What it computes is said in nlm.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "args.h"
#include "denoise_subject.h"
#include "nlm.h"
#include "noise.h"
#include "progress.h"

static const char *const self = "denoise";

/* Found best, or near it, on photographs and brain scans at sigma 10 to 50 of 255: 3x3 patches for colour, whose three
 * channels say as much as 5x5 of grey, 5x5x5 for volumes, 11 frequencies: the 9 lowest of two axes and two of colour,
 * and h = 1.15 sigma; sigma for whole patches. */
enum { WINDOW_2D = 21, WINDOW_3D = 7, PATCH_GREY = 5, PATCH_COLOUR = 3, PATCH_3D = 5, FEATURES = 11 };
#define FEATURES_STRENGTH 1.15

enum { OUT, NOISY, PICTURE, OUTPUTS };

typedef struct denoise {
    const char *input, *paths[OUTPUTS], *crop_text, *features_text, *backend;
    double sigma, strength, added; /* in the file's units; negative: not given */
    int64_t window, patch, features, seed, threads;
    bool progress;
    nf_subject subject; /* noisy */
    float *clean, *result;
    nf_output outputs[OUTPUTS];
    nf_nlm nlm;
    nf_nlm_report report;
    double seconds;
} denoise;

static int parse(denoise *d, int argc, char **argv)
{
    const nf_tool_option options[] = {
        {"sigma", NF_TOOL_DOUBLE, &d->sigma, .value = "S",
         .help = "the noise's standard deviation (default: estimated)", .minimum = 0, .maximum = HUGE_VAL},
        {"window", NF_TOOL_INT, &d->window, .value = "W",
         .help = "average over W^2 or W^3 pixels, W odd (21 for pictures, 7 for volumes)", .minimum = 1,
         .maximum = 1001},
        {"patch", NF_TOOL_INT, &d->patch, .value = "P",
         .help = "compare P^2 or P^3 pixels, P odd (3 for colour, else 5)", .minimum = 1, .maximum = 31},
        {"features", NF_TOOL_STRING, &d->features_text, .value = "N",
         .help = "of the patch compare the N lowest frequencies, or \"all\" (11)"},
        {"strength", NF_TOOL_DOUBLE, &d->strength, .value = "H",
         .help = "h of exp(-d^2/h^2) (1.15 sigma; sigma with all features)", .minimum = 0, .maximum = HUGE_VAL},
        {"add-noise", NF_TOOL_DOUBLE, &d->added, .value = "S",
         .help = "first add Gaussian noise of this deviation, and report PSNR", .minimum = 0, .maximum = HUGE_VAL},
        {"seed", NF_TOOL_INT, &d->seed, .value = "N", .help = "of the noise (1)"},
        {"noisy-out", NF_TOOL_STRING, &d->paths[NOISY], .value = "FILE", .help = "write the input with its noise"},
        {"picture", NF_TOOL_STRING, &d->paths[PICTURE], .value = "FILE",
         .help = "write a PNG of before and after; of a volume, its middle slice"},
        {"crop", NF_TOOL_STRING, &d->crop_text, .value = "WxH+X+Y", .help = "use only this part of a picture"},
        {"backend", NF_TOOL_STRING, &d->backend, .value = "NAME", .help = "as NEARFIELD_BACKEND"},
        {"threads", NF_TOOL_INT, &d->threads, .value = "N", .help = "threads to use", .minimum = 1, .maximum = 4096},
        {"progress", NF_TOOL_FLAG, &d->progress, .help = "show progress even if stderr is no terminal"},
        {0}};
    const nf_tool_command command = {
        .name = self,
        .words = "IN OUT",
        .min_words = 2,
        .max_words = 2,
        .options = options,
        .summary =
            "Denoises by non-local means: every pixel becomes the mean of the pixels in a window around it, weighted "
            "by\n"
            "exp(-d^2/h^2), where d^2 is the mean squared difference of the patches around the two. It is computed as\n"
            "neighborhood attention. At the borders patches are reflected, and the window is shifted inwards.\n"
            "\n"
            "IN is a PNG or JPEG (OUT a PNG of the same depth; transparency is passed through; colour profiles are "
            "not\n"
            "kept) or a NIfTI volume, .nii or .nii.gz (OUT is NIfTI of float32 with the same header; the volumes of a\n"
            "series are filtered one by one). S and H are on a scale of 0 to 255 for pictures, 16-bit ones included, "
            "and\n"
            "in the volume's own units. The noise is not clipped, except in files; PSNR is relative to 255, or to the\n"
            "range of the clean volume."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop == NF_TOOL_CONTINUE) {
        d->input = argv[1];
        d->paths[OUT] = argv[2];
    }
    return stop;
}

static bool read_features(denoise *d)
{
    d->features = FEATURES;
    if (!d->features_text)
        return true;
    if (strcmp(d->features_text, "all") == 0) {
        d->features = 0;
        return true;
    }
    return nf_tool_read_int(d->features_text, &d->features) && d->features > 0;
}

static int check_options(denoise *d)
{
    if (d->window % 2 == 0 && d->window > 0)
        return nf_tool_error(self, "--window %" PRId64 ": must be odd", d->window);
    if (d->patch % 2 == 0 && d->patch > 0)
        return nf_tool_error(self, "--patch %" PRId64 ": must be odd", d->patch);
    if (!read_features(d))
        return nf_tool_error(self, "--features %s: must be a whole number from 1 on, or \"all\"", d->features_text);
    if (d->added == 0)
        return nf_tool_error(self, "--add-noise 0: must be above 0");
    if (d->paths[NOISY] && d->added < 0)
        return nf_tool_error(self, "--noisy-out %s: needs --add-noise", d->paths[NOISY]);
    if (d->paths[PICTURE] && !nf_path_ends(d->paths[PICTURE], ".png"))
        return nf_tool_error(self, "--picture %s: must end in .png", d->paths[PICTURE]);
    for (int i = 0; i < OUTPUTS; i++)
        for (int j = 0; j < i; j++)
            if (d->paths[i] && d->paths[j] && strcmp(d->paths[i], d->paths[j]) == 0)
                return nf_tool_error(self, "%s: two outputs must not have the same name", d->paths[i]);
    return NF_TOOL_OK;
}

static bool parse_crop(const char *text, nf_crop *crop, nf_message *message)
{
    char rest;
    *crop = (nf_crop){0};
    if (strlen(text) < 64 && sscanf(text, "%9" SCNd64 "x%9" SCNd64 "+%9" SCNd64 "+%9" SCNd64 "%c", &crop->width,
                                    &crop->height, &crop->x, &crop->y, &rest) == 4)
        return true;
    return nf_message_set(message, "--crop %s: must be WxH+X+Y, as in 320x200+16+0", text);
}

static bool load(denoise *d, nf_message *message)
{
    nf_crop crop;
    if (d->crop_text && !parse_crop(d->crop_text, &crop, message))
        return false;
    return nf_subject_read(&d->subject, d->input, d->crop_text ? &crop : NULL, message) &&
           nf_subject_check_name(&d->subject, d->paths[OUT], message) &&
           (!d->paths[NOISY] || nf_subject_check_name(&d->subject, d->paths[NOISY], message)) &&
           (!d->paths[PICTURE] || nf_subject_check_pair(&d->subject, d->paths[PICTURE], message));
}

static bool open_outputs(denoise *d, nf_message *message)
{
    for (int i = 0; i < OUTPUTS; i++)
        if (d->paths[i] && !nf_output_open(&d->outputs[i], d->paths[i], message))
            return false;
    return true;
}

/* Adds the noise, keeping the clean data, and makes room for the result, which starts as a copy so that transparency is
 * in it. */
static bool make_data(denoise *d, nf_message *message)
{
    const nf_subject *const s = &d->subject;
    if (d->added >= 0) {
        d->clean = nf_subject_copy(s, message);
        if (!d->clean)
            return false;
        nf_noise_add(s->data, s->pixels * s->count, s->channels, s->step, d->added / s->unit, (uint64_t)d->seed);
    }
    d->result = nf_subject_copy(s, message);
    return d->result != NULL;
}

static void settle_filter(denoise *d)
{
    const nf_subject *const s = &d->subject;
    const int64_t patch = s->is_volume ? PATCH_3D : s->channels == 1 ? PATCH_GREY : PATCH_COLOUR;
    const int64_t window = d->window > 0 ? d->window : s->is_volume ? WINDOW_3D : WINDOW_2D;
    int64_t values = s->channels;
    d->nlm = (nf_nlm){.rank = s->rank, .channels = s->channels, .step = s->step};
    for (int a = 0; a < s->rank; a++) {
        d->nlm.extents[a] = s->extents[a];
        d->nlm.window[a] = window < s->extents[a] ? window : s->extents[a]; /* a short axis is seen whole */
        d->nlm.patch[a] = s->extents[a] == 1 ? 1 : d->patch > 0 ? d->patch : patch;
        values *= d->nlm.patch[a];
    }
    d->nlm.features = d->features < values ? d->features : 0;
}

/* Settles sigma and strength, in the file's units. */
static bool settle_strength(denoise *d, nf_message *message)
{
    const nf_subject *const s = &d->subject;
    if (d->sigma < 0)
        d->sigma = d->added;
    if (d->sigma < 0 && d->strength < 0) {
        const double estimate = nf_noise_estimate(s->data, s->rank, s->extents, s->channels, s->step);
        if (estimate < 0)
            return nf_message_set(message, "not enough memory to estimate the noise");
        d->sigma = estimate * s->unit;
        printf("noise: sigma %.4g, estimated\n", d->sigma);
    }
    if (d->strength < 0)
        d->strength = d->sigma * (d->nlm.features ? FEATURES_STRENGTH : 1);
    d->nlm.strength = d->strength / s->unit;
    if (d->nlm.strength < NF_NLM_MIN_STRENGTH)
        return nf_message_set(message, "strength %g (by default from sigma) must be at least %g here: give --strength",
                              d->strength, NF_NLM_MIN_STRENGTH * s->unit);
    return true;
}

typedef struct watch {
    nf_progress bar;
    int64_t before; /* pixels of the volumes that are finished */
} watch;

static void on_block(void *user, int64_t done)
{
    watch *const w = user;
    nf_progress_update(&w->bar, w->before + done);
}

static bool filter(denoise *d, nf_context *context, nf_message *message)
{
    const nf_subject *const s = &d->subject;
    watch w = {0};
    bool done = true;
    const double start = nf_seconds();
    nf_progress_start(&w.bar, "denoise", s->pixels * s->count, d->progress);
    for (int64_t i = 0; i < s->count && done; i++) {
        const int64_t offset = i * s->pixels * s->step;
        w.before = i * s->pixels;
        done = nf_nlm_run(&d->nlm, context, s->data + offset, d->result + offset, on_block, &w, &d->report, message);
    }
    nf_progress_finish(&w.bar);
    d->seconds = nf_seconds() - start;
    return done;
}

static void print_sides(const char *label, int rank, const int64_t *sides)
{
    printf("%s", label);
    for (int a = rank - 1; a >= 0; a--) /* as people write them: width first */
        printf("%s%" PRId64, a < rank - 1 ? "x" : "", sides[a]);
}

static void print_report(const denoise *d)
{
    static const char *const colours[] = {"grey", "grey with alpha", "RGB", "RGB with alpha"};
    const nf_subject *const s = &d->subject;
    const nf_nlm_report *const r = &d->report;
    printf("%s: ", d->input);
    print_sides("", s->rank, s->extents);
    if (s->is_volume)
        printf(", %" PRId64 " volume%s, range %.6g\n", s->count, s->count == 1 ? "" : "s", s->unit);
    else
        printf(", %s, %d bits\n", colours[s->image.channels - 1], s->image.bits);
    print_sides("filter: window ", s->rank, d->nlm.window);
    print_sides(", patch ", s->rank, d->nlm.patch);
    if (d->nlm.features)
        printf(" by its %" PRId64 " lowest frequencies", d->nlm.features);
    printf(", h %.4g\n", d->strength);
    printf("computed by: %s, %" PRId64 " block%s of up to %.3g MiB of patches\n", r->chosen, r->blocks,
           r->blocks == 1 ? "" : "s", (double)r->patch_bytes / (1 << 20));
    printf("time: %.2f s, %.1f GFLOP/s\n", d->seconds, r->flops * (double)s->count / d->seconds * 1e-9);
    if (d->clean) {
        const int64_t pixels = s->pixels * s->count;
        const double before = nf_noise_psnr(s->data, d->clean, pixels, s->channels, s->step, 1);
        const double after = nf_noise_psnr(d->result, d->clean, pixels, s->channels, s->step, 1);
        printf("PSNR: %.2f dB with noise of sigma %g (seed %" PRId64 "), %.2f dB denoised: gain %.2f dB\n", before,
               d->added, d->seed, after, after - before);
    }
}

static bool write_outputs(denoise *d, nf_message *message)
{
    nf_subject *const s = &d->subject;
    if (!nf_subject_write(s, d->result, &d->outputs[OUT], message) ||
        (d->paths[NOISY] && !nf_subject_write(s, s->data, &d->outputs[NOISY], message)) ||
        (d->paths[PICTURE] && !nf_subject_write_pair(s, s->data, d->result, &d->outputs[PICTURE], message)))
        return false;
    for (int i = 0; i < OUTPUTS; i++)
        if (d->paths[i] && !nf_output_commit(&d->outputs[i], message))
            return false;
    return true;
}

static bool run(denoise *d, nf_context *context, nf_message *message)
{
    if (!load(d, message) || !open_outputs(d, message) || !make_data(d, message))
        return false;
    settle_filter(d);
    if (!settle_strength(d, message) || !filter(d, context, message))
        return false;
    print_report(d);
    return write_outputs(d, message);
}

int nf_tool_denoise(int argc, char **argv)
{
    denoise d = {.sigma = -1, .strength = -1, .added = -1, .seed = 1};
    nf_message message = {""};
    int status = parse(&d, argc, argv);
    if (status != NF_TOOL_CONTINUE)
        return status;
    status = check_options(&d);
    if (status != NF_TOOL_OK)
        return status;
#ifdef _OPENMP
    if (d.threads > 0)
        omp_set_num_threads((int)d.threads);
#endif
    nf_context *const context = nf_tool_context(self, d.backend, d.threads);
    if (!context)
        return NF_TOOL_BAD;
    if (!run(&d, context, &message))
        status = nf_tool_error(self, "%s", message.text);
    for (int i = 0; i < OUTPUTS; i++)
        nf_output_discard(&d.outputs[i]);
    nf_subject_destroy(&d.subject);
    free(d.clean);
    free(d.result);
    nf_context_destroy(context);
    return nf_tool_finish(self, status);
}
