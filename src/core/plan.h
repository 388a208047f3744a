/* A plan: a problem, a layout, the algorithm chosen for them, and its workspace. */
#ifndef NF_CORE_PLAN_H
#define NF_CORE_PLAN_H

#include "core/context.h"
#include "core/problem_text.h"
#include "core/select.h"

struct nf_plan {
    nf_context context; /* the creator's, with the pool below: all that this plan allocates */
    nf_pool pool;
    nf_problem problem;
    char text[NF_PROBLEM_CAPACITY]; /* the problem string */
    nf_grid grid;
    nf_request request;
    nf_selection selection;
    void *prepared; /* by the chosen algorithm */
    size_t workspace_bytes;
    void *workspace;
    atomic_flag busy; /* the workspace is in use */
};

/* What holds of every exec: its size, and that the array of events is there. */
nf_status nf_exec_check(const nf_exec *exec);

/* Figures of a plan without regard to the caller's struct size. */
void nf_plan_figures(const nf_plan *plan, nf_plan_info *info);

#endif
