/* Neighborhood attention on a small grid: every query attends to the 3x3 neighborhood around it.
 *
 *     cc attention.c $(pkg-config --cflags --libs nearfield) -o attention
 */
#include <nearfield.h>
#include <stdio.h>
#include <stdlib.h>

static void require(nf_status status)
{
    if (status != NF_OK) {
        fprintf(stderr, "%s\n%s\n", nf_status_string(status), nf_last_error());
        exit(EXIT_FAILURE);
    }
}

static float q[8][8][2][4], k[8][8][2][4], v[8][8][2][3], out[8][8][2][3]; /* [height][width][heads][dim] */

int main(void)
{
    nf_problem problem;
    nf_context *context;
    nf_plan *plan;
    nf_tensor tensor_q, tensor_k, tensor_v, tensor_out;
    nf_io io;

    require(nf_problem_parse(&problem, "na2d f32 h2 d4/3 8x8 w3"));
    require(nf_context_create(&context, NULL));
    require(nf_plan_create(&plan, context, &problem, NULL));

    /* Keys of zero make all scores equal, so each query averages the values it sees: here, its neighbors' rows. */
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++)
            for (int h = 0; h < 2; h++)
                v[y][x][h][0] = (float)y;

    require(nf_problem_tensor(&problem, NF_Q, &tensor_q));
    require(nf_problem_tensor(&problem, NF_K, &tensor_k));
    require(nf_problem_tensor(&problem, NF_V, &tensor_v));
    require(nf_problem_tensor(&problem, NF_OUT, &tensor_out));
    tensor_q.data = q, tensor_k.data = k, tensor_v.data = v, tensor_out.data = out;
    nf_io_init(&io);
    io.q = &tensor_q, io.k = &tensor_k, io.v = &tensor_v, io.out = &tensor_out;
    require(nf_forward(plan, &io, NULL));

    /* The window never leaves the grid: at the border it shifts inwards, so the first row also averages rows 0, 1, 2. */
    printf("row 0: %.3f  row 1: %.3f  row 4: %.3f  row 7: %.3f\n", (double)out[0][0][0][0], (double)out[1][5][1][0],
           (double)out[4][3][0][0], (double)out[7][7][1][0]);
    const float error = out[0][0][0][0] - 1.0f;

    nf_plan_destroy(plan);
    nf_context_destroy(context);
    return error > -1e-6f && error < 1e-6f ? EXIT_SUCCESS : EXIT_FAILURE;
}
