/* The environment variables: one table that reads, checks, prints and documents them. Nothing else in the library reads
 * the environment. */
#ifndef NF_CORE_ENV_H
#define NF_CORE_ENV_H

#include <stdbool.h>

#include "nearfield.h"

enum { NF_PATH_CAPACITY = 4096 };

typedef enum nf_env {
    NF_ENV_BACKEND,
    NF_ENV_DEVICE,
    NF_ENV_ISA,
    NF_ENV_NUM_THREADS,
    NF_ENV_CACHE_DIR,
    NF_ENV_VERBOSE,
    NF_ENVS
} nf_env;

/* "NEARFIELD_BACKEND", ... */
const char *nf_env_name(nf_env variable);

/* The value; NULL if unset or empty. */
const char *nf_env_text(nf_env variable);

/* Sets *value to the number a variable holds, and leaves it alone where the variable is unset or empty. NF_ERR_ARGUMENT
 * names the allowed range. */
nf_status nf_env_number(nf_env variable, int64_t *value);

/* The folder for what is worth keeping between runs: NEARFIELD_CACHE_DIR, else the user's cache folder as the XDG base
 * directory specification has it. False, and "", if there is to be none: the variable is set but empty, or nothing says
 * where. */
bool nf_env_cache_folder(char path[NF_PATH_CAPACITY]);

/* Logs a warning for each variable that begins with NEARFIELD_ and is not in the table. */
void nf_env_warn_unknown(const nf_context *context);

#endif
