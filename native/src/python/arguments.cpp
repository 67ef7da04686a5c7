// Arguments that several functions take; see arguments.h.
#include "arguments.h"

#include <algorithm>

namespace bptt {

[[noreturn]] void missing(Where where, const char* why) {
    throw nb::value_error((where.text() + ": needed, " + why).c_str());
}

void check_size(const CoreProgram& core, bool reverse, int64_t steps, int64_t batch) {
    if (core.program.text.reverse != reverse)
        throw nb::value_error(reverse ? "this program runs forward" : "this program runs in reverse");
    constexpr int64_t most = int64_t{1} << 40;
    if (steps < 0 || batch < 0 || steps >= most || batch >= most) throw nb::value_error("steps or batch is out of range");
}

int threads_of(int64_t threads) {
    if (threads < 1) throw nb::value_error("threads: expected at least 1");
    return static_cast<int>(std::min<int64_t>(threads, 1024));
}

void take_gradients(const Program& p, nb::handle object, const char* name, bool over_time, Use use, Arrays& arrays,
                    std::vector<Plane>& out, int64_t steps) {
    const Group group(object, name, p.text.states.size(), true);
    out.resize(group.size());
    for (size_t j = 0; j < group.size(); ++j) {
        const nb::object array = group[j];
        if (array.is_none()) continue;
        out[j] = over_time ? arrays.time_plane(array, group.where(j), steps, p.text.states[j], use)
                           : arrays.row_plane(array, group.where(j), p.text.states[j], use);
    }
}

void take_clip(nb::handle clip, Run& run) {
    if (clip.is_none()) return;
    run.clip = PyFloat_AsDouble(clip.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    if (!(run.clip >= 0)) throw nb::value_error("clip: expected a number of at least 0");
    run.has_clip = true;
}

}  // namespace bptt
