/* Damaged files for the readers of the denoise command: cut short everywhere, and with bytes changed at random. */
#ifndef NF_TESTS_DENOISE_DAMAGE_H
#define NF_TESTS_DENOISE_DAMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "denoise_file.h"

/* Reads a file and frees what it got. */
typedef bool (*damage_reader)(const char *path, nf_message *message);
/* Makes changed bytes plausible again, e.g. their checksums; may be NULL. */
typedef void (*damage_repair)(unsigned char *bytes, size_t length);

/* The contents of a file, to be freed; the test fails if there are none. */
unsigned char *damage_load(const char *path, size_t *length);
void damage_store(const char *path, const unsigned char *bytes, size_t length);

/* Reads in a child process: true if the reader succeeded, false if it gave a message that names the file. The test
 * fails on anything else: a crash, an exit, a minute without an end. */
bool damage_try(damage_reader reader, const char *path);

/* Every proper prefix must be refused. */
void damage_truncate(damage_reader reader, const char *path, const unsigned char *bytes, size_t length);
/* Changes one to four bytes, cases times; any answer will do. */
void damage_flip(damage_reader reader, damage_repair repair, const char *path, const unsigned char *bytes,
                 size_t length, uint64_t seed, int cases);

#endif
