/* Built programs on disk. A file is named by its key and holds a header and the binary; whatever is not exactly that is
 * as good as absent. Several processes may write at once: each writes a file of its own and renames it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/opencl/cl.h"
#include "core/log.h"
#include "core/mem.h"

enum { PATH_CAPACITY = NF_PATH_CAPACITY + 64, BYTES_MOST = 1 << 28 };

/* ---- Keys: FNV-1a, twice --------------------------------------------------------------------------------------- */

static uint64_t hash(uint64_t state, const void *data, size_t bytes)
{
    static const uint64_t prime = UINT64_C(0x100000001b3);
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++)
        state = (state ^ byte[i]) * prime;
    return state;
}

cl_key cl_key_begin(void)
{
    return (cl_key){{UINT64_C(0xcbf29ce484222325), UINT64_C(0x9ae16a3b2f90404f)}};
}

/* The text's NUL counts: "a", "b" is not "ab". The second word also takes the first one in, so that they differ in more
 * than where they began. */
void cl_key_add(cl_key *key, const char *text)
{
    const size_t bytes = strlen(text) + 1;
    key->word[0] = hash(key->word[0], text, bytes);
    key->word[1] = hash(hash(key->word[1], text, bytes), &key->word[0], sizeof key->word[0]);
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

typedef struct header {
    char magic[16];
    cl_key key;
    uint64_t bytes, checksum; /* of the binary, which follows */
} header;

static const char magic[16] = "nearfield cl 1\n";

static header make_header(const cl_key *key, const void *binary, size_t bytes)
{
    header made = {.key = *key, .bytes = bytes, .checksum = hash(cl_key_begin().word[0], binary, bytes)};
    memcpy(made.magic, magic, sizeof magic);
    return made;
}

/* Makes the folder and those above it. False if it cannot be. */
static bool make_folder(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made)
            return false;
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

static bool name_file(char *path, const char *folder, const cl_key *key, const char *suffix)
{
    const int length = snprintf(path, PATH_CAPACITY, "%s/opencl-%016" PRIx64 "%016" PRIx64 "%s", folder, key->word[0],
                                key->word[1], suffix);
    return length > 0 && length < PATH_CAPACITY;
}

static bool read_all(int file, void *data, size_t bytes)
{
    for (char *at = data; bytes;) {
        const ssize_t got = read(file, at, bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool write_all(int file, const void *data, size_t bytes)
{
    for (const char *at = data; bytes;) {
        const ssize_t put = write(file, at, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        bytes -= (size_t)put;
    }
    return true;
}

/* The binary of an open file, or NULL if the file is not what cl_cache_store writes under this key. */
static void *read_binary(const nf_context *context, int file, const cl_key *key, size_t *bytes)
{
    header found;
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || !read_all(file, &found, sizeof found) ||
        memcmp(found.magic, magic, sizeof magic) != 0 || found.bytes == 0 || found.bytes > BYTES_MOST ||
        (uint64_t)status.st_size != sizeof found + found.bytes)
        return NULL;
    void *binary = nf_alloc(context, found.bytes);
    if (!binary)
        return NULL;
    if (read_all(file, binary, found.bytes)) {
        const header wanted = make_header(key, binary, found.bytes);
        if (memcmp(&found, &wanted, sizeof wanted) == 0) {
            *bytes = found.bytes;
            return binary;
        }
    }
    nf_release(context, binary);
    return NULL;
}

void *cl_cache_load(const cl_state *state, const cl_key *key, size_t *bytes)
{
    const nf_context *context = state->context;
    char path[PATH_CAPACITY];
    if (!*state->cache_folder || !name_file(path, state->cache_folder, key, ".bin"))
        return NULL;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* what is there may be a pipe */
    if (file < 0)
        return NULL;
    void *binary = read_binary(context, file, key, bytes);
    close(file);
    if (binary)
        nf_log(context, NF_LOG_PLANS, "opencl: program read from %s", path);
    else
        nf_log(context, NF_LOG_PLANS, "opencl: %s is damaged or not ours, the program is built anew", path);
    return binary;
}

static bool write_file(int file, const cl_key *key, const void *binary, size_t bytes)
{
    const header made = make_header(key, binary, bytes);
    const bool written = write_all(file, &made, sizeof made) && write_all(file, binary, bytes);
    return close(file) == 0 && written;
}

void cl_cache_store(const cl_state *state, const cl_key *key, const void *binary, size_t bytes)
{
    char folder[NF_PATH_CAPACITY], path[PATH_CAPACITY], temporary[PATH_CAPACITY];
    snprintf(folder, sizeof folder, "%s", state->cache_folder);
    if (!*folder || !name_file(path, folder, key, ".bin") || !name_file(temporary, folder, key, ".XXXXXX"))
        return;
    const int file = bytes <= BYTES_MOST && make_folder(folder) ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (file >= 0 && write_file(file, key, binary, bytes) && rename(temporary, path) == 0)
        return;
    nf_log(state->context, NF_LOG_PLANS, "opencl: the built program cannot be kept in %s: %s", folder, strerror(errno));
    if (file >= 0)
        unlink(temporary);
}
