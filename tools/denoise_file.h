/* Files as denoise needs them: a sentence that says what is wrong with one, and outputs that appear under their name
 * only when they are complete. */
#ifndef NF_TOOLS_DENOISE_FILE_H
#define NF_TOOLS_DENOISE_FILE_H

#include <stdbool.h>
#include <stdio.h>

/* What is wrong, one sentence without a full stop; "" if nothing is. */
typedef struct nf_message {
    char text[640];
} nf_message;

/* Sets the message, control characters of file names and libraries' messages replaced by '?'; returns false. */
bool nf_message_set(nf_message *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An output file under construction: a temporary in the same directory. */
typedef struct nf_output {
    FILE *file; /* open for writing; NULL if there is no such output */
    char *path, *temporary;
} nf_output;

/* Creates the temporary, so that an unwritable place is known before long work starts. */
bool nf_output_open(nf_output *output, const char *path, nf_message *message);
/* Closes the temporary and gives it its name; false, and nothing left behind, if that fails. */
bool nf_output_commit(nf_output *output, nf_message *message);
/* Closes and removes the temporary. Does nothing to an output that is zero or committed. */
void nf_output_discard(nf_output *output);

/* Does the name end in suffix, in any case? */
bool nf_path_ends(const char *path, const char *suffix);

#endif
