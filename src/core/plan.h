/* A plan: a problem, a layout, the algorithms chosen for them, and a workspace. */
#ifndef NF_CORE_PLAN_H
#define NF_CORE_PLAN_H

#include "core/context.h"
#include "core/problem_text.h"
#include "core/select.h"

/* An algorithm and what it prepared for one direction or both. */
typedef struct nf_plan_part {
    nf_problem problem; /* the plan's, naming the part's directions alone */
    nf_request request;
    const nf_algorithm *algo;
    double seconds; /* predicted */
    void *prepared;
} nf_plan_part;

struct nf_plan {
    nf_context context; /* the creator's, with the pool below: all that this plan allocates */
    nf_pool pool;
    nf_problem problem;
    char text[NF_PROBLEM_CAPACITY]; /* the problem string */
    nf_grid grid;
    nf_tensor layout[NF_ROLES];
    nf_request request;
    nf_selection selection;
    nf_plan_part part[NF_DIRECTIONS]; /* forward's first, if there are two */
    int parts;
    size_t workspace_bytes; /* for any part: they share it */
    void *workspace;
    atomic_flag busy; /* the workspace is in use */
};

/* The part that runs a direction that the plan includes. */
const nf_plan_part *nf_plan_find_part(const nf_plan *plan, nf_direction direction);

/* What holds of every exec: its size, and that the array of events is there. */
nf_status nf_exec_check(const nf_exec *exec);

/* Figures of a plan without regard to the caller's struct size. */
void nf_plan_figures(const nf_plan *plan, nf_plan_info *info);

#endif
