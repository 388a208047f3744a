/* Messages, and outputs written to a temporary file and renamed. */
#include "denoise_file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

bool nf_message_set(nf_message *message, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
    for (char *c = message->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return false;
}

bool nf_path_ends(const char *path, const char *suffix)
{
    const size_t length = strlen(path), tail = strlen(suffix);
    return length >= tail && strcasecmp(path + length - tail, suffix) == 0;
}

/* mkstemp makes files that only their owner can read: give them the mode that fopen would have. */
static void set_usual_mode(int descriptor)
{
    const mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(descriptor, 0666 & ~mask);
}

bool nf_output_open(nf_output *output, const char *path, nf_message *message)
{
    static const char pattern[] = ".XXXXXX";
    const size_t length = strlen(path);
    struct stat status;
    *output = (nf_output){0};
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return nf_message_set(message, "%s: an output must be a regular file or not exist yet", path);
    output->path = malloc(length + 1);
    output->temporary = malloc(length + sizeof pattern);
    if (!output->path || !output->temporary) {
        nf_output_discard(output);
        return nf_message_set(message, "%s: not enough memory", path);
    }
    memcpy(output->path, path, length + 1);
    memcpy(output->temporary, path, length);
    memcpy(output->temporary + length, pattern, sizeof pattern);
    const int descriptor = mkstemp(output->temporary);
    if (descriptor >= 0) {
        set_usual_mode(descriptor);
        output->file = fdopen(descriptor, "wb");
    }
    if (!output->file) {
        nf_message_set(message, "%s: cannot create: %s", path, strerror(errno));
        if (descriptor >= 0) {
            close(descriptor);
            unlink(output->temporary);
        }
        nf_output_discard(output);
        return false;
    }
    return true;
}

bool nf_output_commit(nf_output *output, nf_message *message)
{
    const bool lost = ferror(output->file) != 0;
    const bool closed = fclose(output->file) == 0;
    output->file = NULL;
    const bool done = !lost && closed && rename(output->temporary, output->path) == 0;
    if (!done) {
        nf_message_set(message, "%s: cannot write: %s", output->path, errno ? strerror(errno) : "unknown reason");
        unlink(output->temporary);
    }
    nf_output_discard(output);
    return done;
}

void nf_output_discard(nf_output *output)
{
    if (output->file) {
        fclose(output->file);
        unlink(output->temporary);
    }
    free(output->path);
    free(output->temporary);
    *output = (nf_output){0};
}
