// The Python module `bptt._core`. What each function means is told in src/bptt/_core.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "../isa.h"
#include "arguments.h"
#include "describe.h"
#include "feed.h"
#include "learner.h"
#include "measure.h"
#include "unfolding.h"
#include "watch.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bptt {
namespace {

// The arguments that forward and reverse share, as Python gives them.
struct Common {
    int64_t steps, batch;
    nb::handle states, time, rows, units, matrices, initial, reset, lengths;
    int64_t threads;
};

void take_states(const Program& p, const Common& in, Arrays& arrays, Run& run) {
    const size_t leaves = p.text.states.size();
    const Group states(in.states, "states", leaves), initial(in.initial, "initial", leaves, true);
    const Use use = p.text.reverse ? Use::read : Use::write;
    run.states.resize(leaves);
    run.initial.resize(leaves);
    for (size_t j = 0; j < leaves; ++j) {
        const auto index = static_cast<int64_t>(j);
        const bool read = p.info(Space::state, index).read;
        const nb::object state = states[j];
        if (!state.is_none())
            run.states[j] = arrays.time_plane(state, states.where(j), run.steps + 1, p.text.states[j], use);
        else if (!p.text.reverse || read || p.info(Space::next, index).read)
            missing(states.where(j), "the program uses it");
        const nb::object start = initial.size() ? initial[j] : nb::none();
        if (!start.is_none())
            run.initial[j] = arrays.row_plane(start, {"initial", index}, p.text.states[j], Use::read);
        else if (run.reset != nullptr && read)
            missing({"initial", index}, "since reset is given");
    }
}

Run take_common(const Program& p, const Common& in, Arrays& arrays) {
    Run run;
    run.steps = in.steps;
    run.batch = in.batch;
    run.threads = threads_of(in.threads);
    if (!in.reset.is_none()) arrays.reset(in.reset, run);
    if (!in.lengths.is_none()) arrays.lengths(in.lengths, run);
    take_states(p, in, arrays, run);
    const Group time(in.time, "time", p.text.time.size()), rows(in.rows, "rows", p.text.rows.size());
    const Group units(in.units, "units", p.text.units.size()), matrices(in.matrices, "matrices", p.text.matrices.size());
    for (size_t i = 0; i < time.size(); ++i) {
        const TimeArray& t = p.text.time[i];
        run.time.push_back(arrays.time_plane(time[i], time.where(i), run.steps, t.width, t.written ? Use::write : Use::read));
    }
    for (size_t i = 0; i < rows.size(); ++i)
        run.rows.push_back(arrays.row_plane(rows[i], rows.where(i), p.text.rows[i], Use::read));
    for (size_t i = 0; i < units.size(); ++i)
        run.units.push_back(arrays.unit_plane(units[i], units.where(i), p.text.units[i]));
    for (size_t i = 0; i < matrices.size(); ++i)
        run.matrices.push_back(arrays.matrix(matrices[i], matrices.where(i), p.text.matrices[i]));
    return run;
}

void go(CoreProgram& core, const Arrays& arrays, const Run& run) {
    arrays.refuse_overlaps();
    nb::gil_scoped_release unlocked;
    execute(core.program, run, core.cache);
}

void forward(CoreProgram& core, int64_t steps, int64_t batch, nb::handle states, nb::handle time, nb::handle rows,
             nb::handle units, nb::handle matrices, nb::handle initial, nb::handle reset, nb::handle lengths,
             int64_t threads) {
    check_size(core, false, steps, batch);
    Arrays arrays(core.program, steps, batch);
    const Run run = take_common(
        core.program, {steps, batch, states, time, rows, units, matrices, initial, reset, lengths, threads}, arrays);
    go(core, arrays, run);
}

void reverse(CoreProgram& core, int64_t steps, int64_t batch, nb::handle states, nb::handle time, nb::handle rows,
             nb::handle units, nb::handle matrices, nb::handle initial, nb::handle reset, nb::handle lengths,
             int64_t threads, nb::handle clip, nb::handle final_grads, nb::handle step_grads, nb::handle start_grads,
             nb::handle initial_grads) {
    check_size(core, true, steps, batch);
    const Program& p = core.program;
    Arrays arrays(p, steps, batch);
    Run run = take_common(p, {steps, batch, states, time, rows, units, matrices, initial, reset, lengths, threads}, arrays);
    take_gradients(p, final_grads, "final_grads", false, Use::read, arrays, run.final_grads, steps);
    take_gradients(p, step_grads, "step_grads", true, Use::read, arrays, run.step_grads, steps);
    take_gradients(p, start_grads, "start_grads", false, Use::write, arrays, run.start_grads, steps);
    take_gradients(p, initial_grads, "initial_grads", false, Use::write, arrays, run.initial_grads, steps);
    take_clip(clip, run);
    go(core, arrays, run);
}

nb::tuple space_names() {
    nb::list names;
    for (int i = 0; i < static_cast<int>(Space::constant); ++i) names.append(space_name(static_cast<Space>(i)));
    return nb::tuple(names);
}

nb::dict opcode_table() {
    nb::dict table;
    for (int i = 0; i < op_count; ++i) table[op_name(static_cast<Op>(i))] = op_operands(static_cast<Op>(i));
    return table;
}

nb::dict variant_table() {
    nb::dict table;
    for (const auto& [name, usable] : variants()) table[name.c_str()] = usable;
    return table;
}

void bind_program(nb::module_& m) {
    const nb::object none = nb::none(), empty = nb::tuple();
    nb::class_<CoreProgram>(m, "Program")
        .def(
            "__init__",
            [](CoreProgram* self, nb::handle dtype, bool is_reverse, nb::handle states, nb::handle scratch, nb::handle time,
               nb::handle rows, nb::handle units, nb::handle matrices, nb::handle instructions) {
                new (self) CoreProgram{
                    build(describe_program(dtype, is_reverse, states, scratch, time, rows, units, matrices, instructions)), {}};
            },
            nb::kw_only(), "dtype"_a, "reverse"_a, "states"_a, "scratch"_a = empty, "time"_a = empty, "rows"_a = empty,
            "units"_a = empty, "matrices"_a = empty, "instructions"_a = empty)
        .def("forward", &forward, "steps"_a, "batch"_a, "states"_a, "time"_a = empty, "rows"_a = empty, "units"_a = empty,
             "matrices"_a = empty, "initial"_a = empty, "reset"_a.none() = none, "lengths"_a.none() = none, "threads"_a = 1)
        .def("reverse", &reverse, "steps"_a, "batch"_a, "states"_a, "time"_a = empty, "rows"_a = empty, "units"_a = empty,
             "matrices"_a = empty, "initial"_a = empty, "reset"_a.none() = none, "lengths"_a.none() = none, "threads"_a = 1,
             "clip"_a.none() = none, "final_grads"_a = empty, "step_grads"_a = empty, "start_grads"_a = empty,
             "initial_grads"_a = empty)
        .def_prop_ro("workspace", [](const CoreProgram& core) { return core.cache.latest(); });
}

}  // namespace
}  // namespace bptt

NB_MODULE(_core, m) {
    // Programs live as long as the cells they belong to, which may be until the process ends: that
    // is no leak worth a message to the user.
    nb::set_leak_warnings(false);
    m.attr("SPACES") = bptt::space_names();
    m.attr("OPCODES") = bptt::opcode_table();
    m.def("variants", &bptt::variant_table);
    m.def("isa", &bptt::current_isa);
    m.def("use_isa", [](nb::handle name) { bptt::use_isa(name.is_none() ? std::string() : nb::cast<std::string>(name)); },
          "name"_a.none());
    m.def("elementwise", &bptt::elementwise, "name"_a, "x"_a, "out"_a);
    m.def("multiply", &bptt::multiply, "a"_a, "matrix"_a, "out"_a, "threads"_a = 1, "repeat"_a = 1);
    m.def("multiply_adds", &bptt::multiply_adds, "rounds"_a);
    bptt::bind_program(m);
    bptt::bind_unfolding(m);
    bptt::bind_watch(m);
    bptt::bind_learner(m);
    bptt::bind_feed(m);
}
