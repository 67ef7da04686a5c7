// What remains after a backward loop: products and sums over the rows of all steps and lanes.
#pragma once

#include <cstdint>
#include <vector>

#include "run.h"

namespace bptt {

// Rows over all steps and lanes; columns are contiguous, `stride` counts elements.
struct StridedRows {
    const void* data = nullptr;
    ptrdiff_t stride = 0;
};

// outer: dst[m, n] = a^T b; sum: dst[m] = the columns' sums of a; dot: of a times b, element by element; multiply: dst[rows, n] = a @ matrix.
struct Contraction {
    enum class Kind { outer, sum, dot, multiply } kind;
    StridedRows a, b;
    int64_t m = 0, n = 0;
    MatrixView matrix;  // multiply: [m, n]
    void* dst = nullptr;
    ptrdiff_t dst_stride = 0;
};

// Columns of a result, or its rows, are split among threads; no sum is: the result does not depend on their number.
void multiply_all(const std::vector<Contraction>& products, int64_t rows, Dtype dtype, int threads, WorkspaceCache& cache);

}  // namespace bptt
