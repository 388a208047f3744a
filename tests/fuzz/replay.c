/* Feeds a fuzz target its seeds, every truncation of each, and each with single bytes changed: a fuzzer without the luck,
 * for the quick suite. Seeds come from tests/fuzz/corpus, or are the files named as arguments. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { PATH_SIZE = 4096, LARGEST_SEED = 1 << 16 };

/* In a block of its exact size, so that AddressSanitizer sees a read past its end. */
static void feed(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
}

static void feed_variants(uint8_t *bytes, size_t length)
{
    static const uint8_t changes[] = {0x01, 0x10, 0x80, 0xff};
    for (size_t i = 0; i < length; i++) {
        feed(bytes, i);
        for (size_t c = 0; c < sizeof changes; c++) {
            bytes[i] ^= changes[c];
            feed(bytes, length);
            bytes[i] ^= changes[c];
        }
    }
}

static int replay(const char *path)
{
    static uint8_t bytes[LARGEST_SEED];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 0;
    }
    const size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    feed(bytes, length);
    feed_variants(bytes, length);
    return 1;
}

static int replay_folder(const char *folder)
{
    DIR *directory = opendir(folder);
    if (!directory) {
        perror(folder);
        return 0;
    }
    int replayed = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        char path[PATH_SIZE];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        replayed += replay(path);
    }
    closedir(directory);
    return replayed;
}

int main(int argc, char **argv)
{
    int replayed = 0;
    for (int i = 1; i < argc; i++)
        replayed += replay(argv[i]);
    if (argc == 1) {
        const char *source = getenv("top_srcdir");
        char folder[PATH_SIZE / 2];
        snprintf(folder, sizeof folder, "%s/tests/fuzz/corpus/%s", source ? source : ".", nf_fuzz_corpus);
        replayed = replay_folder(folder);
    }
    printf("%d passed, 0 failed, 0 skipped\n", replayed);
    return replayed ? EXIT_SUCCESS : EXIT_FAILURE;
}
