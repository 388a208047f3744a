/* Settings, the books, and what every entry point does first. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock.h"

enum { MAX_CALLS = 80, MAX_RULES = 16 };

mock_settings mock = {
    .platforms = 1,
    .devices = 1,
    .local = 32768,
    .group = 256,
    .kernel_group = 256,
    .alloc = 1 << 28,
    .units = 4,
    .type = CL_DEVICE_TYPE_GPU,
    .available = 1,
    .compiler = 1,
    .fp64 = 1,
    .log = 40,
    .binary = MOCK_BINARY,
    .version = "OpenCL 1.2 mock",
    .c_version = "OpenCL C 1.2 mock",
    .name = "Mock",
    .driver = "1.0",
    .vendor = "Nobody",
    .extensions = "cl_khr_fp64",
};

static const struct {
    const char *name;
    long *number;
    char *text;
} knobs[] = {
    {"platforms", &mock.platforms, NULL},
    {"devices", &mock.devices, NULL},
    {"empty", &mock.empty, NULL},
    {"local", &mock.local, NULL},
    {"group", &mock.group, NULL},
    {"kernel_group", &mock.kernel_group, NULL},
    {"alloc", &mock.alloc, NULL},
    {"units", &mock.units, NULL},
    {"type", &mock.type, NULL},
    {"available", &mock.available, NULL},
    {"compiler", &mock.compiler, NULL},
    {"fp64", &mock.fp64, NULL},
    {"log", &mock.log, NULL},
    {"binary", &mock.binary, NULL},
    {"verdict", &mock.verdict, NULL},
    {"version", NULL, mock.version},
    {"c_version", NULL, mock.c_version},
    {"name", NULL, mock.name},
    {"driver", NULL, mock.driver},
    {"vendor", NULL, mock.vendor},
    {"extensions", NULL, mock.extensions},
};

static struct {
    char name[MOCK_TEXT];
    cl_int code;
    int first, last;
} rules[MAX_RULES];
static int rule_count;
static bool loses_device;
static atomic_bool lost;

static void fail_settings(const char *word)
{
    fprintf(stderr, "opencl_mock: MOCK_OPENCL does not know '%s'\n", word);
    abort();
}

static void read_rule(const char *text)
{
    if (rule_count == MAX_RULES)
        fail_settings(text);
    rules[rule_count].first = 1;
    rules[rule_count].last = 1 << 30;
    if (sscanf(text, "%255[^:]:%d:%d:%d", rules[rule_count].name, &rules[rule_count].code, &rules[rule_count].first,
               &rules[rule_count].last) < 2)
        fail_settings(text);
    rule_count++;
}

static void read_word(const char *word)
{
    const char *equals = strchr(word, '=');
    if (strcmp(word, "lost") == 0) {
        loses_device = true;
        return;
    }
    if (strncmp(word, "fail=", 5) == 0) {
        read_rule(word + 5);
        return;
    }
    for (size_t i = 0; equals && i < sizeof knobs / sizeof *knobs; i++) {
        if (strlen(knobs[i].name) != (size_t)(equals - word) || strncmp(word, knobs[i].name, (size_t)(equals - word)))
            continue;
        if (knobs[i].number)
            *knobs[i].number = strtol(equals + 1, NULL, 0);
        else
            snprintf(knobs[i].text, MOCK_TEXT, "%s", equals + 1);
        return;
    }
    fail_settings(word);
}

static const char *const kind_names[KINDS] = {"context", "queue", "memory", "program", "kernel", "event"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mock_handle *handles;
static struct {
    const char *name;
    int count;
} calls[MAX_CALLS];
static int misuses;
static char first_misuse[MOCK_TEXT];

void mock_misuse(const char *call, const char *what)
{
    if (!misuses++)
        snprintf(first_misuse, sizeof first_misuse, "%s: %s", call, what);
}

/* Counts a call; what it must fail with, or CL_SUCCESS. */
cl_int mock_enter(const char *name)
{
    cl_int code = CL_SUCCESS;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (calls[i].name && strcmp(calls[i].name, name) != 0)
        i++;
    calls[i].name = name;
    const int turn = ++calls[i].count;
    for (int r = 0; r < rule_count; r++)
        if (strcmp(rules[r].name, name) == 0 && turn >= rules[r].first && turn <= rules[r].last)
            code = rules[r].code;
    pthread_mutex_unlock(&lock);
    return code;
}

/* The same for a call that needs the device. */
cl_int mock_enter_device(const char *name)
{
    const cl_int code = mock_enter(name);
    return code == CL_SUCCESS && lost ? CL_DEVICE_NOT_AVAILABLE : code;
}

void *mock_make(mock_kind kind, size_t size)
{
    mock_handle *h = calloc(1, size);
    if (!h)
        abort();
    h->kind = kind;
    h->references = 1;
    pthread_mutex_lock(&lock);
    h->next = handles;
    handles = h;
    pthread_mutex_unlock(&lock);
    return h;
}

/* Whether this is a live handle of its kind. */
bool mock_is_live(const char *call, mock_kind kind, const void *pointer)
{
    pthread_mutex_lock(&lock);
    const mock_handle *h = handles;
    while (h && h != pointer)
        h = h->next;
    const bool live = h && h->kind == kind && h->references > 0;
    if (!live)
        mock_misuse(call, !h ? "no handle" : h->kind != kind ? "a handle of another kind" : "a released handle");
    pthread_mutex_unlock(&lock);
    return live;
}

cl_int mock_count_reference(const char *call, mock_kind kind, void *pointer, int change)
{
    const cl_int code = mock_enter(call);
    if (!mock_is_live(call, kind, pointer))
        return CL_INVALID_VALUE;
    if (code == CL_SUCCESS || change < 0)
        ((mock_handle *)pointer)->references += change;
    return code;
}

__attribute__((constructor)) static void read_settings(void)
{
    char *text = strdup(getenv("MOCK_OPENCL") ? getenv("MOCK_OPENCL") : ""), *rest = text;
    for (char *word = strsep(&rest, ";"); word; word = strsep(&rest, ";"))
        if (*word)
            read_word(word);
    free(text);
}

__attribute__((destructor)) static void write_report(void)
{
    const char *path = getenv("MOCK_OPENCL_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    for (int i = 0; calls[i].name; i++)
        fprintf(file, "calls %s %d\n", calls[i].name, calls[i].count);
    for (int k = 0; k < KINDS; k++) {
        int leaked = 0;
        for (const mock_handle *h = handles; h; h = h->next)
            leaked += (int)h->kind == k && h->references > 0;
        if (leaked)
            fprintf(file, "leaked %s %d\n", kind_names[k], leaked);
    }
    if (misuses)
        fprintf(file, "misuse %d, first %s\n", misuses, first_misuse);
    fclose(file);
}

/* The answer to a clGet...Info. */
cl_int mock_answer(const void *value, size_t size, size_t capacity, void *buffer, size_t *length)
{
    if (length)
        *length = size;
    if (buffer && capacity < size)
        return CL_INVALID_VALUE;
    if (buffer)
        memcpy(buffer, value, size);
    return CL_SUCCESS;
}

bool mock_is_lost(void)
{
    return lost;
}

void mock_kernel_ran(void)
{
    if (loses_device)
        lost = true;
}
