/* Fuzz target: problem strings. Whatever parses has a canonical string that parses back to itself, and what is also
 * valid hashes and has tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "nearfield.h"

const char nf_fuzz_corpus[] = "problem";

enum { TEXT_SIZE = 4096 };

static void require(int condition, const char *what, const char *text)
{
    if (condition)
        return;
    fprintf(stderr, "%s: \"%s\": %s\n", what, text, nf_last_error());
    abort();
}

static void round_trip(const nf_problem *problem, const char *text)
{
    char canonical[TEXT_SIZE], again[TEXT_SIZE];
    nf_problem parsed;
    size_t length = 0;
    const nf_status status = nf_problem_format(problem, canonical, sizeof canonical, &length);
    require(status == NF_OK && length == strlen(canonical), "a parsed problem has no string", text);
    require(nf_problem_parse(&parsed, canonical) == NF_OK, "the canonical string does not parse", canonical);
    require(nf_problem_format(&parsed, again, sizeof again, NULL) == NF_OK, "no string again", canonical);
    require(strcmp(canonical, again) == 0, "the canonical string changes", canonical);
    require(nf_problem_check(problem) == nf_problem_check(&parsed), "validity changes", canonical);
}

static void use_valid(const nf_problem *problem, const char *text)
{
    uint64_t hash;
    require(nf_problem_hash(problem, &hash) == NF_OK, "a valid problem has no hash", text);
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor tensor;
        const nf_status status = nf_problem_tensor(problem, (nf_role)role, &tensor);
        require(status == NF_OK || status == NF_ERR_ARGUMENT, "a valid problem has no tensor", text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = malloc(length + 1);
    if (!text)
        return 0;
    if (length)
        memcpy(text, bytes, length);
    text[length] = '\0';
    nf_problem problem;
    if (nf_problem_parse(&problem, text) == NF_OK) {
        round_trip(&problem, text);
        if (nf_problem_check(&problem) == NF_OK)
            use_valid(&problem, text);
    } else {
        require(nf_last_error()[0] != '\0', "refused without a reason", text);
    }
    free(text);
    return 0;
}
