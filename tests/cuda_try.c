/* cuda_try PROBLEM - tries a problem on the cuda backend (attempt.h). */
#include <stdio.h>

#include "attempt.h"

int main(int argc, char **argv)
{
    nf_problem problem;
    bench_data data;
    if (argc != 2 || nf_problem_parse(&problem, argv[1]) != NF_OK || bench_data_create(&data, &problem, 1)) {
        fprintf(stderr, "usage: cuda_try PROBLEM\n%s\n", nf_last_error());
        return ATTEMPT_USAGE;
    }
    attempt_problem("cuda", &data, NULL);
    bench_data_destroy(&data);
    return attempt_outcome();
}
