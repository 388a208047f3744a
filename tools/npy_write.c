/* Writing .npy arrays: into a temporary file beside the target, renamed when everything has succeeded. */
#include "npy.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PREFIX = 10, HEADER_ALIGNMENT = 64, HEADER_SIZE = 320 };

static int fail(struct npy_output *output, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct npy_output *output, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(output->error, sizeof(output->error), format, arguments);
    va_end(arguments);
    return -1;
}

/* Magic, version 1.0, length and dictionary, padded so that the data begins on a multiple of 64. Returns the size. */
static size_t make_header(char header[HEADER_SIZE], npy_type type, int rank, const int64_t *extents)
{
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    size_t length = PREFIX;
    length += (size_t)snprintf(header + length, HEADER_SIZE - length,
                               "{'descr': '%s', 'fortran_order': False, 'shape': (", npy_type_name(type));
    for (int i = 0; i < rank; i++)
        length += (size_t)snprintf(header + length, HEADER_SIZE - length, "%s%lld", i ? ", " : "",
                                   (long long)extents[i]);
    length += (size_t)snprintf(header + length, HEADER_SIZE - length, "%s), }", rank == 1 ? "," : "");
    while ((length + 1) % HEADER_ALIGNMENT)
        header[length++] = ' ';
    header[length++] = '\n';
    header[8] = (char)((length - PREFIX) & 0xff);
    header[9] = (char)((length - PREFIX) >> 8);
    return length;
}

/* Where the array really goes: a link is followed; anything but a regular file is refused, a device above all. */
static int resolve(struct npy_output *output, const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0) {
        if (!S_ISREG(status.st_mode))
            return fail(output, "exists and is not a regular file");
        output->path = realpath(path, NULL);
    } else if (errno == ENOENT) {
        output->path = strdup(path);
    }
    return output->path ? 0 : fail(output, "%s", strerror(errno));
}

/* A new file beside the target with the permissions a plain open() would give. */
static FILE *open_temporary(struct npy_output *output)
{
    static const char suffix[] = ".XXXXXX";
    const size_t length = strlen(output->path);
    output->temporary = malloc(length + sizeof(suffix));
    if (!output->temporary) {
        fail(output, "out of memory");
        return NULL;
    }
    memcpy(output->temporary, output->path, length);
    memcpy(output->temporary + length, suffix, sizeof(suffix));
    const int descriptor = mkstemp(output->temporary);
    if (descriptor < 0) {
        fail(output, "%s", strerror(errno));
        free(output->temporary);
        output->temporary = NULL;
        return NULL;
    }
    const mode_t mask = umask(0);
    umask(mask);
    FILE *file = fchmod(descriptor, 0666 & ~mask) == 0 ? fdopen(descriptor, "wb") : NULL;
    if (!file) {
        fail(output, "%s", strerror(errno));
        close(descriptor);
    }
    return file;
}

int npy_stage(struct npy_output *output, const char *path, npy_type type, int rank, const int64_t *extents,
              const void *data)
{
    *output = (struct npy_output){0};
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= (size_t)extents[i];
    char header[HEADER_SIZE];
    const size_t length = make_header(header, type, rank, extents);
    FILE *file = resolve(output, path) == 0 ? open_temporary(output) : NULL;
    if (!file) {
        npy_abandon(output);
        return -1;
    }
    bool good = fwrite(header, 1, length, file) == length && fwrite(data, npy_type_size(type), count, file) == count;
    good = good && fflush(file) == 0;
    if (!good)
        fail(output, "%s", strerror(errno));
    if (fclose(file) != 0 && good) {
        good = false;
        fail(output, "%s", strerror(errno));
    }
    if (!good)
        npy_abandon(output);
    return good ? 0 : -1;
}

int npy_commit(struct npy_output *output)
{
    if (rename(output->temporary, output->path) != 0) {
        fail(output, "%s", strerror(errno));
        npy_abandon(output);
        return -1;
    }
    free(output->temporary);
    output->temporary = NULL;
    npy_abandon(output);
    return 0;
}

void npy_abandon(struct npy_output *output)
{
    if (output->temporary)
        unlink(output->temporary);
    free(output->temporary);
    free(output->path);
    output->path = output->temporary = NULL;
}
