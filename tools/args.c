/* Command lines from tables: parses, refuses with the rule, and prints the help text. */
#include "args.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 64, HELP_COLUMN = 28 };

static int count_options(const nf_tool_command *command)
{
    int count = 0;
    while (command->options[count].name)
        count++;
    return count;
}

bool nf_tool_read_int(const char *text, int64_t *value)
{
    if (!(*text == '-' || (*text >= '0' && *text <= '9')))
        return false;
    char *end;
    errno = 0;
    const long long parsed = strtoll(text, &end, 10);
    if (end == text || *end || errno == ERANGE)
        return false;
    *value = parsed;
    return true;
}

bool nf_tool_read_double(const char *text, double *value)
{
    if (!*text || !strchr("+-.0123456789", *text))
        return false;
    char *end;
    const double parsed = strtod(text, &end);
    if (end == text || *end || !isfinite(parsed))
        return false;
    *value = parsed;
    return true;
}

static int print_help(const nf_tool_command *command)
{
    printf("usage: nearfield %s [OPTION...]%s%s\n%s\n\noptions:\n", command->name, *command->words ? " " : "",
           command->words, command->summary);
    for (const nf_tool_option *o = command->options; o->name; o++) {
        const int written = printf("  --%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("%*s%s\n", written < HELP_COLUMN ? HELP_COLUMN - written : 1, "", o->help);
    }
    printf("  --help%*sprint this text\n", HELP_COLUMN - 8, "");
    return nf_tool_finish(command->name, NF_TOOL_OK);
}

static int refuse_unknown(const nf_tool_command *command, const char *word)
{
    const char *names[MAX_OPTIONS];
    const int count = count_options(command);
    for (int i = 0; i < count; i++)
        names[i] = command->options[i].name;
    const char *nearest = nf_tool_nearest(word, names, (size_t)count);
    if (nearest)
        return nf_tool_error(command->name, "unknown option --%s; did you mean --%s?", word, nearest);
    return nf_tool_error(command->name, "unknown option --%s; see nearfield help %s", word, command->name);
}

static int refuse_range(const nf_tool_command *command, const nf_tool_option *o, const char *text)
{
    if (o->maximum == HUGE_VAL)
        return nf_tool_error(command->name, "--%s %s: must be at least %g", o->name, text, o->minimum);
    return nf_tool_error(command->name, "--%s %s: must be between %g and %g", o->name, text, o->minimum, o->maximum);
}

/* Stores one value; NF_TOOL_CONTINUE or the exit status. */
static int store(const nf_tool_command *command, const nf_tool_option *o, const char *text)
{
    double number;
    if (o->kind == NF_TOOL_STRING) {
        if (!*text)
            return nf_tool_error(command->name, "--%s: the %s must not be empty", o->name, o->value);
        *(const char **)o->target = text;
        return NF_TOOL_CONTINUE;
    }
    if (o->kind == NF_TOOL_INT) {
        int64_t value;
        if (!nf_tool_read_int(text, &value))
            return nf_tool_error(command->name, "--%s %s: not a whole number", o->name, text);
        number = (double)value;
        *(int64_t *)o->target = value;
    } else {
        if (!nf_tool_read_double(text, &number))
            return nf_tool_error(command->name, "--%s %s: not a finite number", o->name, text);
        *(double *)o->target = number;
    }
    if ((o->minimum != 0 || o->maximum != 0) && (number < o->minimum || number > o->maximum))
        return refuse_range(command, o, text);
    return NF_TOOL_CONTINUE;
}

/* Index of the option that word (without dashes, up to length) names, or -1. */
static int find(const nf_tool_command *command, const char *word, size_t length)
{
    for (int i = 0; command->options[i].name; i++)
        if (strlen(command->options[i].name) == length && memcmp(command->options[i].name, word, length) == 0)
            return i;
    return -1;
}

/* Takes argv[*index], which begins with two dashes, and its value. */
static int take_option(const nf_tool_command *command, int argc, char **argv, int *index, uint64_t *given)
{
    const char *word = argv[*index] + 2, *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    if (length == 4 && memcmp(word, "help", 4) == 0)
        return print_help(command);
    const int found = find(command, word, length);
    if (found < 0)
        return refuse_unknown(command, word);
    const nf_tool_option *o = &command->options[found];
    if (*given & (uint64_t)1 << found)
        return nf_tool_error(command->name, "--%s is given twice", o->name);
    *given |= (uint64_t)1 << found;
    if (o->kind == NF_TOOL_FLAG) {
        if (equals)
            return nf_tool_error(command->name, "--%s takes no value", o->name);
        *(bool *)o->target = true;
        return NF_TOOL_CONTINUE;
    }
    if (equals)
        return store(command, o, equals + 1);
    if (*index + 1 >= argc || strncmp(argv[*index + 1], "--", 2) == 0)
        return nf_tool_error(command->name, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    return store(command, o, argv[++*index]);
}

static int check_words(const nf_tool_command *command, int words, char **argv)
{
    if (words < command->min_words)
        return nf_tool_error(command->name, "%s expected; usage: nearfield %s [OPTION...] %s",
                             words ? "another word is" : command->words, command->name, command->words);
    if (command->max_words >= 0 && words > command->max_words)
        return nf_tool_error(command->name, "unexpected word \"%s\"%s", argv[command->max_words + 1],
                             strcmp(command->words, "PROBLEM") == 0 ? "; quote the problem as one word" : "");
    return NF_TOOL_CONTINUE;
}

int nf_tool_parse(const nf_tool_command *command, int *argc, char **argv)
{
    uint64_t given = 0;
    int words = 0;
    bool options_end = false;
    for (int i = 1; i < *argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (!options_end && strcmp(argv[i], "-h") == 0) {
            return print_help(command);
        } else if (!options_end && strncmp(argv[i], "--", 2) == 0) {
            const int stop = take_option(command, *argc, argv, &i, &given);
            if (stop != NF_TOOL_CONTINUE)
                return stop;
        } else if (!options_end && argv[i][0] == '-' && argv[i][1]) {
            return nf_tool_error(command->name, "unknown option %s; options begin with two dashes", argv[i]);
        } else {
            argv[++words] = argv[i];
        }
    }
    *argc = words + 1;
    return check_words(command, words, argv);
}
