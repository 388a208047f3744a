/* Settings, the books, and what every entry point does first. */
#include "mock_books.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 512, MAX_RULES = 16 };

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

static struct {
    char name[MOCK_TEXT];
    int code, first, last;
} rules[MAX_RULES];
static int rule_count;
static bool loses_device;
static atomic_bool lost;

static void fail_settings(const char *word)
{
    fprintf(stderr, "%s does not know '%s'\n", mock_self.variable, word);
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
    for (int i = 0; equals && i < mock_self.knob_count; i++) {
        const mock_knob *knob = &mock_self.knobs[i];
        if (strlen(knob->name) != length || strncmp(word, knob->name, length) != 0)
            continue;
        if (knob->number)
            *knob->number = strtol(equals + 1, NULL, 0);
        else
            snprintf(knob->text, MOCK_TEXT, "%s", equals + 1);
        return;
    }
    fail_settings(word);
}

static void read_word(const char *word)
{
    if (strcmp(word, "lost") == 0)
        loses_device = true;
    else if (strncmp(word, "fail=", 5) == 0)
        read_rule(word + 5);
    else
        read_knob(word);
}

/* ---- Books ------------------------------------------------------------------------------------------------------- */

typedef struct tally {
    char *name;
    int count;
} tally;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mock_handle *handles;
static tally calls[MAX_NAMES], kernels[MAX_NAMES];
static int misuses;
static char first_misuse[MOCK_TEXT];

static tally *find_tally(tally *tallies, const char *name)
{
    int i = 0;
    while (i < MAX_NAMES && tallies[i].name && strcmp(tallies[i].name, name) != 0)
        i++;
    if (i == MAX_NAMES)
        abort();
    if (!tallies[i].name)
        tallies[i].name = strdup(name);
    return &tallies[i];
}

void mock_misuse(const char *call, const char *what)
{
    if (!misuses++)
        snprintf(first_misuse, sizeof first_misuse, "%s: %s", call, what);
}

int mock_enter(const char *name)
{
    int code = 0;
    pthread_mutex_lock(&lock);
    const int turn = ++find_tally(calls, name)->count;
    for (int r = 0; r < rule_count; r++)
        if (strcmp(rules[r].name, name) == 0 && turn >= rules[r].first && turn <= rules[r].last)
            code = rules[r].code;
    pthread_mutex_unlock(&lock);
    return code;
}

bool mock_is_lost(void)
{
    return lost;
}

void mock_kernel_enqueued(void)
{
    if (loses_device)
        lost = true;
}

void mock_kernel_loaded(const char *name)
{
    pthread_mutex_lock(&lock);
    find_tally(kernels, name);
    pthread_mutex_unlock(&lock);
}

void mock_kernel_ran(const char *name)
{
    pthread_mutex_lock(&lock);
    find_tally(kernels, name)->count++;
    pthread_mutex_unlock(&lock);
}

/* ---- Handles ----------------------------------------------------------------------------------------------------- */

void *mock_make(int kind, size_t size)
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

bool mock_is_live(const char *call, int kind, const void *pointer)
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

void mock_refer(void *handle, int change)
{
    pthread_mutex_lock(&lock);
    ((mock_handle *)handle)->references += change;
    pthread_mutex_unlock(&lock);
}

void *mock_find(int kind, bool (*is)(const void *handle, const void *what), const void *what)
{
    pthread_mutex_lock(&lock);
    mock_handle *h = handles;
    while (h && !(h->kind == kind && h->references > 0 && is(h, what)))
        h = h->next;
    pthread_mutex_unlock(&lock);
    return h;
}

void mock_each(int kind, void (*visit)(void *handle))
{
    for (mock_handle *h = handles; h; h = h->next)
        if (h->kind == kind && h->references > 0)
            visit(h);
}

/* ---- Begin and end ----------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void read_settings(void)
{
    const char *set = getenv(mock_self.variable);
    char *text = strdup(set ? set : ""), *rest = text;
    for (char *word = strsep(&rest, ";"); word; word = strsep(&rest, ";"))
        if (*word)
            read_word(word);
    free(text);
}

static void write_tallies(FILE *file, const char *what, const tally *tallies)
{
    for (int i = 0; tallies[i].name; i++)
        fprintf(file, "%s %s %d\n", what, tallies[i].name, tallies[i].count);
}

__attribute__((destructor)) static void write_report(void)
{
    const char *path = getenv(mock_self.report);
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    write_tallies(file, "calls", calls);
    write_tallies(file, "kernel", kernels);
    for (int k = 0; k < mock_self.kind_count; k++) {
        int leaked = 0;
        for (const mock_handle *h = handles; h; h = h->next)
            leaked += h->kind == k && h->references > 0;
        if (leaked)
            fprintf(file, "leaked %s %d\n", mock_self.kinds[k], leaked);
    }
    if (misuses)
        fprintf(file, "misuse %d, first %s\n", misuses, first_misuse);
    fclose(file);
}
