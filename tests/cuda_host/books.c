/* Settings, the books, and what every entry point does first. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock.h"

enum { MAX_NAMES = 80, MAX_RULES = 16 };

mock_settings mock = {
    .devices = 1,
    .driver = 13000,
    .capability = 90,
    .units = 4,
    .threads = 1024,
    .shared = 48 << 10,
    .memory = 1L << 30,
    .name = "Mock",
};
bool mock_early;

static const struct {
    const char *name;
    long *number;
    char *text;
} knobs[] = {
    {"devices", &mock.devices, NULL}, {"driver", &mock.driver, NULL},   {"capability", &mock.capability, NULL},
    {"units", &mock.units, NULL},     {"threads", &mock.threads, NULL}, {"shared", &mock.shared, NULL},
    {"memory", &mock.memory, NULL},   {"order", &mock.order, NULL},     {"prohibited", &mock.prohibited, NULL},
    {"verdict", &mock.verdict, NULL}, {"name", NULL, mock.name},
};

static struct {
    char name[MOCK_TEXT];
    CUresult code;
    int first, last;
} rules[MAX_RULES];
static int rule_count;
static bool loses_device;
static atomic_bool lost;

static void fail_settings(const char *word)
{
    fprintf(stderr, "cuda_host: MOCK_CUDA does not know '%s'\n", word);
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

static void read_knob(const char *word)
{
    const char *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : 0;
    for (size_t i = 0; equals && i < sizeof knobs / sizeof *knobs; i++) {
        if (strlen(knobs[i].name) != length || strncmp(word, knobs[i].name, length) != 0)
            continue;
        if (knobs[i].number)
            *knobs[i].number = strtol(equals + 1, NULL, 0);
        else
            snprintf(knobs[i].text, MOCK_TEXT, "%s", equals + 1);
        return;
    }
    fail_settings(word);
}

static void read_word(const char *word)
{
    if (strcmp(word, "lost") == 0)
        loses_device = true;
    else if (strcmp(word, "early") == 0)
        mock_early = true;
    else if (strncmp(word, "fail=", 5) == 0)
        read_rule(word + 5);
    else
        read_knob(word);
}

/* ---- Books ------------------------------------------------------------------------------------------------------- */

static const char *const kind_names[KINDS] = {"context", "stream", "event", "module", "memory", "host memory"};

typedef struct tally {
    const char *name;
    int count;
} tally;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mock_handle *handles;
static tally calls[MAX_NAMES], kernels[MAX_NAMES];
static int misuses;
static char first_misuse[MOCK_TEXT];

static int count_one(tally *tallies, const char *name)
{
    int i = 0;
    while (tallies[i].name && strcmp(tallies[i].name, name) != 0)
        i++;
    tallies[i].name = name;
    return ++tallies[i].count;
}

void mock_misuse(const char *call, const char *what)
{
    if (!misuses++)
        snprintf(first_misuse, sizeof first_misuse, "%s: %s", call, what);
}

CUresult mock_enter(const char *name)
{
    CUresult code = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    const int turn = count_one(calls, name);
    for (int r = 0; r < rule_count; r++)
        if (strcmp(rules[r].name, name) == 0 && turn >= rules[r].first && turn <= rules[r].last)
            code = rules[r].code;
    pthread_mutex_unlock(&lock);
    return code;
}

CUresult mock_enter_device(const char *name)
{
    const CUresult code = mock_enter(name);
    if (!mock_current()) {
        mock_misuse(name, "no context is current");
        return INVALID_CONTEXT;
    }
    return code == CUDA_SUCCESS && lost ? LAUNCH_FAILED : code;
}

void mock_kernel_enqueued(void)
{
    if (loses_device)
        lost = true;
}

void mock_kernel_ran(const char *name)
{
    pthread_mutex_lock(&lock);
    count_one(kernels, name);
    pthread_mutex_unlock(&lock);
}

/* ---- Handles ----------------------------------------------------------------------------------------------------- */

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

mock_memory *mock_find_memory(mock_kind kind, const void *address)
{
    mock_memory *found = NULL;
    pthread_mutex_lock(&lock);
    for (mock_handle *h = handles; h && !found; h = h->next) {
        mock_memory *memory = (mock_memory *)h;
        if (h->kind == kind && h->references > 0 && (uintptr_t)address - (uintptr_t)memory->bytes < memory->size)
            found = memory;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void mock_drop(void *handle)
{
    pthread_mutex_lock(&lock);
    ((mock_handle *)handle)->references--;
    pthread_mutex_unlock(&lock);
}

void mock_each(mock_kind kind, void (*visit)(void *handle))
{
    for (mock_handle *h = handles; h; h = h->next)
        if (h->kind == kind && h->references > 0)
            visit(h);
}

/* ---- Begin and end ----------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void read_settings(void)
{
    char *text = strdup(getenv("MOCK_CUDA") ? getenv("MOCK_CUDA") : ""), *rest = text;
    for (char *word = strsep(&rest, ";"); word; word = strsep(&rest, ";"))
        if (*word)
            read_word(word);
    free(text);
}

__attribute__((destructor)) static void write_report(void)
{
    const char *path = getenv("MOCK_CUDA_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    for (int i = 0; calls[i].name; i++)
        fprintf(file, "calls %s %d\n", calls[i].name, calls[i].count);
    for (int i = 0; kernels[i].name; i++)
        fprintf(file, "kernel %s %d\n", kernels[i].name, kernels[i].count);
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
