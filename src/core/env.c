/* The table of environment variables. */
#include "core/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/check.h"
#include "core/context.h"
#include "core/log.h"
#include "core/status.h"
#include "core/text.h"

static const struct {
    const char *name, *value, *fallback, *manual;
    int64_t least, most; /* of a number */
} variables[NF_ENVS] = {
    [NF_ENV_BACKEND] =
        {
            .name = "NEARFIELD_BACKEND",
            .value = "NAME[,NAME]...",
            .fallback = "cuda, opencl if its device is a GPU, cpu",
            .manual = "Backends in order of preference: the first that supports a problem runs it, and one that is not "
                      "named\n"
                      "    runs only what asks for it by name. A leading '-' excludes a backend; where all names have "
                      "one, the\n"
                      "    others keep their default order. A name that stands alone must be available.",
        },
    [NF_ENV_DEVICE] =
        {
            .name = "NEARFIELD_DEVICE",
            .value = "INDEX|NAME",
            .fallback = "the backend's first GPU, else its first device",
            .manual =
                "The device of a backend that has several: its number, or a part of its name, in `nearfield info`.",
        },
    [NF_ENV_ISA] =
        {
            .name = "NEARFIELD_ISA",
            .value = "NAME",
            .fallback = "the best this processor and operating system have",
            .manual = "The highest instruction set the cpu backend may use. `nearfield info` lists the names.",
        },
    [NF_ENV_NUM_THREADS] =
        {
            .name = "NEARFIELD_NUM_THREADS",
            .value = "N",
            .fallback = "the cores this process may run on",
            .manual = "Threads one execution may use. Results are bitwise equal for every number.",
            .least = 1,
            .most = NF_MAX_THREADS,
        },
    [NF_ENV_CACHE_DIR] =
        {
            .name = "NEARFIELD_CACHE_DIR",
            .value = "FOLDER",
            .fallback = "nearfield in $XDG_CACHE_HOME, else in ~/.cache",
            .manual = "Where the opencl backend keeps built programs. Set but empty: nowhere.",
        },
    [NF_ENV_VERBOSE] =
        {
            .name = "NEARFIELD_VERBOSE",
            .value = "0|1|2",
            .fallback = "0",
            .manual =
                "0: warnings only. 1: also one line per execution with backend, algorithm, direction and milliseconds\n"
                "    that ends in the problem string that reproduces it. 2: also what was chosen for each plan and "
                "why.",
            .least = NF_LOG_WARNING,
            .most = NF_LOG_PLANS,
        },
};

const char *nf_env_name(nf_env variable)
{
    return variables[variable].name;
}

const char *nf_env_text(nf_env variable)
{
    const char *value = getenv(variables[variable].name);
    return value && *value ? value : NULL;
}

nf_status nf_env_number(nf_env variable, int64_t *value)
{
    const char *text = nf_env_text(variable);
    if (!text)
        return NF_OK;
    int64_t number = 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9' && number <= variables[variable].most; c++)
        number = 10 * number + (*c - '0');
    if (*c || number < variables[variable].least || number > variables[variable].most)
        return nf_fail(NF_ERR_ARGUMENT, "%s '%.40s' must be a number in %" PRId64 "..%" PRId64,
                       variables[variable].name, text, variables[variable].least, variables[variable].most);
    *value = number;
    return NF_OK;
}

/* A folder named by a variable, and what follows it. */
static bool folder_in(char path[NF_PATH_CAPACITY], const char *variable, const char *rest)
{
    const char *folder = getenv(variable);
    if (!folder || *folder != '/')
        return false;
    return snprintf(path, NF_PATH_CAPACITY, "%s%s", folder, rest) < NF_PATH_CAPACITY;
}

bool nf_env_cache_folder(char path[NF_PATH_CAPACITY])
{
    const char *given = getenv(variables[NF_ENV_CACHE_DIR].name);
    const bool found =
        given ? snprintf(path, NF_PATH_CAPACITY, "%s", given) < NF_PATH_CAPACITY && *given
              : folder_in(path, "XDG_CACHE_HOME", "/nearfield") || folder_in(path, "HOME", "/.cache/nearfield");
    if (!found)
        *path = '\0';
    return found;
}

void nf_env_warn_unknown(const nf_context *context)
{
    static const char prefix[] = "NEARFIELD_";
    const char *known[NF_ENVS + 1] = {NULL};
    for (int i = 0; i < NF_ENVS; i++)
        known[i] = variables[i].name;
    for (char **entry = environ; entry && *entry; entry++) {
        if (strncmp(*entry, prefix, sizeof prefix - 1) != 0)
            continue;
        const size_t length = strcspn(*entry, "=");
        size_t unlike;
        const char *nearest = nf_nearest(*entry, length, known, &unlike);
        if (unlike)
            nf_log(context, NF_LOG_WARNING, "environment variable %.*s is unknown; the nearest is %s",
                   length > 60 ? 60 : (int)length, *entry, nearest);
    }
}

nf_status nf_environment_describe(char *buffer, size_t capacity, size_t *length)
{
    nf_text text;
    const nf_status status = nf_text_init(&text, buffer, capacity);
    if (status != NF_OK)
        return status;
    for (int i = 0; i < NF_ENVS; i++) {
        const char *value = nf_env_text((nf_env)i);
        nf_text_printf(&text, "%s%s=%s\n    %s\n    Default: %s. Now: %s.\n", i ? "\n" : "", variables[i].name,
                       variables[i].value, variables[i].manual, variables[i].fallback, value ? value : "unset");
    }
    return nf_text_finish(&text, length);
}
