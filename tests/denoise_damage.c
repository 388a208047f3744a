/* Damaged files. */
#include "denoise_damage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "noise.h"

unsigned char *damage_load(const char *path, size_t *length)
{
    FILE *const file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s does not open", path);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    unsigned char *const bytes = malloc(*length);
    ck_assert(*length > 0 && fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

void damage_store(const char *path, const unsigned char *bytes, size_t length)
{
    FILE *const file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s does not open", path);
    ck_assert(fwrite(bytes, 1, length, file) == length);
    ck_assert(fclose(file) == 0);
}

bool damage_try(damage_reader reader, const char *path)
{
    enum { READ = 0, REFUSED = 3, SILENT = 4, PATIENCE = 60 };
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        nf_message message = {""};
        alarm(PATIENCE);
        _exit(reader(path, &message) ? READ : strstr(message.text, path) ? REFUSED : SILENT);
    }
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    ck_assert_msg(WIFEXITED(status), "signal %d; see %s", WTERMSIG(status), path);
    ck_assert_msg(WEXITSTATUS(status) == READ || WEXITSTATUS(status) == REFUSED, "exit %d; see %s", WEXITSTATUS(status),
                  path);
    return WEXITSTATUS(status) == READ;
}

void damage_truncate(damage_reader reader, const char *path, const unsigned char *bytes, size_t length)
{
    for (size_t kept = 0; kept < length; kept++) {
        damage_store(path, bytes, kept);
        ck_assert_msg(!damage_try(reader, path), "the first %zu of %zu bytes were accepted", kept, length);
    }
}

void damage_flip(damage_reader reader, damage_repair repair, const char *path, const unsigned char *bytes,
                 size_t length, uint64_t seed, int cases)
{
    unsigned char *const changed = malloc(length);
    nf_random random = {seed};
    for (int i = 0; i < cases; i++) {
        memcpy(changed, bytes, length);
        for (uint64_t left = 1 + nf_random_bits(&random) % 4; left > 0; left--)
            changed[nf_random_bits(&random) % length] ^= (unsigned char)(1 + nf_random_bits(&random) % 255);
        if (repair)
            repair(changed, length);
        damage_store(path, changed, length);
        damage_try(reader, path);
    }
    free(changed);
}
