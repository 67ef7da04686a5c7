// Python arrays to checked memory: dtype, device, shape, strides, overlap. Nothing is copied.
//
// Tensors are read through DLPack's C exchange table (some tens of nanoseconds each); other arrays through nanobind's
// general import. References to all of them are held until the run is over.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>
#include <vector>

#include "../run.h"
#include "dlpack.h"

namespace bptt {

namespace nb = nanobind;

// Which argument is looked at, for messages: group[index] or the group alone.
struct Where {
    const char* group;
    int64_t index = -1;
    std::string text() const { return index < 0 ? group : std::string(group) + "[" + std::to_string(index) + "]"; }
};

enum class Use { read, write };

class Arrays {
public:
    Arrays(const Program& program, int64_t steps, int64_t batch);

    // [steps, batch, width], [batch, width], [width], [k, n].
    Plane time_plane(nb::handle object, Where where, int64_t steps, int64_t width, Use use);
    Plane row_plane(nb::handle object, Where where, int64_t width, Use use);
    Plane unit_plane(nb::handle object, Where where, int64_t width, Use use = Use::read);
    MatrixView matrix(nb::handle object, Where where, Shape2 shape, Use use = Use::read);
    // Unchecked, to know what to expect; at least one dimension.
    std::vector<int64_t> shape(nb::handle object, Where where);
    void reset(nb::handle object, Run& run);
    void lengths(nb::handle object, Run& run);
    // ValueError if something written overlaps anything else.
    void refuse_overlaps() const;

private:
    struct Extent {
        Where where;
        const char *low, *high;  // first byte and one past the last
        int64_t time, row, columns;  // bytes
        int64_t times, rows;
        bool written;
    };

    const Program& program_;
    int64_t steps_, batch_;
    dlpack::DataType dtype_;
    std::vector<nb::object> kept_;
    std::vector<nb::ndarray<>> imported_;
    std::vector<nb::ndarray<nb::ro>> imported_read_;
    std::vector<Extent> extents_;

    dlpack::Tensor import(nb::handle object, Where where, Use use);
    dlpack::Tensor checked(nb::handle object, Where where, Use use, dlpack::DataType dtype, int ndim,
                           const int64_t* shape);
    void note(Where where, const dlpack::Tensor& tensor, Use use);
    void check_output(Where where, const dlpack::Tensor& tensor) const;
    static bool disjoint(const Extent& a, const Extent& b);
};

// Any array by the general road, unchecked, to look at its dtype and shape.
dlpack::Tensor import_array(nb::handle object, Where where, std::vector<nb::ndarray<nb::ro>>& kept);

// The same by the fast road where there is one; the caller holds the object.
dlpack::Tensor import_quickly(nb::handle object, Where where, std::vector<nb::ndarray<nb::ro>>& kept);

// The fast road alone: false where there is none.
bool look_quickly(nb::handle object, dlpack::Tensor& out);

}  // namespace bptt
