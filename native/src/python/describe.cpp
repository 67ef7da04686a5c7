// Python lists to the description of a program; see describe.h. Sizes and widths are checked later, by build().
#include "describe.h"

#include <nanobind/stl/string.h>

#include <string>

#include "sequence.h"

namespace nb = nanobind;

namespace bptt {
namespace {

[[noreturn]] void wrong(const std::string& message) { throw nb::value_error(message.c_str()); }

std::vector<nb::object> items(nb::handle object, const std::string& what) {
    PyObject* fast = PySequence_Fast(object.ptr(), "");
    if (fast == nullptr) {
        PyErr_Clear();
        throw nb::type_error((what + ": expected a sequence").c_str());
    }
    const nb::object owner = nb::steal(fast);
    std::vector<nb::object> out;
    for (Py_ssize_t i = 0; i < size_of_fast(fast); ++i) out.push_back(nb::borrow(item_of_fast(fast, i)));
    return out;
}

std::vector<nb::object> items(nb::handle object, const std::string& what, size_t count) {
    auto out = items(object, what);
    if (out.size() != count)
        wrong(what + ": expected " + std::to_string(count) + " entries, got " + std::to_string(out.size()));
    return out;
}

int64_t integer(nb::handle object, const std::string& what) {
    int64_t value = 0;
    if (!PyLong_Check(object.ptr()) || PyBool_Check(object.ptr()) || !nb::try_cast(object, value, false))
        throw nb::type_error((what + ": expected an int").c_str());
    return value;
}

std::string text(nb::handle object, const std::string& what) {
    std::string value;
    if (!PyUnicode_Check(object.ptr()) || !nb::try_cast(object, value, false))
        throw nb::type_error((what + ": expected a str").c_str());
    return value;
}

std::vector<int64_t> widths(nb::handle object, const std::string& what) {
    std::vector<int64_t> out;
    for (const auto& item : items(object, what)) out.push_back(integer(item, what));
    return out;
}

Space space_of(const std::string& name, const std::string& what) {
    for (int i = 0; i < static_cast<int>(Space::constant); ++i)
        if (name == space_name(static_cast<Space>(i))) return static_cast<Space>(i);
    wrong(what + ": there is no space '" + name + "'");
}

Slot slot(nb::handle object, const std::string& what) {
    const auto parts = items(object, what, 4);
    Slot out;
    out.space = space_of(text(parts[0], what), what);
    out.index = integer(parts[1], what);
    out.offset = integer(parts[2], what);
    out.width = integer(parts[3], what);
    return out;
}

Slot operand(nb::handle object, const std::string& what) {
    const bool number = PyFloat_Check(object.ptr()) || (PyLong_Check(object.ptr()) && !PyBool_Check(object.ptr()));
    if (!number) return slot(object, what);
    Slot out;
    out.value = PyFloat_AsDouble(object.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return out;
}

Op op_of(const std::string& name, const std::string& what) {
    for (int i = 0; i < op_count; ++i)
        if (name == op_name(static_cast<Op>(i))) return static_cast<Op>(i);
    wrong(what + ": there is no instruction '" + name + "'");
}

InstructionText instruction(nb::handle object, size_t position) {
    std::string what = "instruction " + std::to_string(position);
    const auto parts = items(object, what);
    if (parts.empty()) wrong(what + ": empty");
    InstructionText out;
    const std::string name = text(parts[0], what);
    out.op = op_of(name, what);
    what += " (" + name + ")";
    const auto expected = static_cast<size_t>(op_operands(out.op));
    if (parts.size() != expected + 2)
        wrong(what + ": expected a destination and " + std::to_string(expected) + " operands, got " +
              std::to_string(parts.size() - 1) + " entries");
    out.dst = slot(parts[1], what);
    if (out.op != Op::matmul) {
        for (size_t i = 0; i < expected; ++i) out.operands[i] = operand(parts[i + 2], what);
        return out;
    }
    if (parts[2].is_none()) out.operands[0].absent = true;
    else out.operands[0] = operand(parts[2], what);
    out.operands[1] = operand(parts[3], what);
    out.matrix = integer(parts[4], what);
    return out;
}

TimeArray time_array(nb::handle object) {
    const auto parts = items(object, "time", 2);
    const std::string mode = text(parts[1], "time");
    if (mode != "r" && mode != "w") wrong("time: mode is '" + mode + "', expected 'r' or 'w'");
    return {integer(parts[0], "time"), mode == "w"};
}

}  // namespace

Description describe_program(nb::handle dtype, bool reverse, nb::handle states, nb::handle scratch, nb::handle time,
                             nb::handle rows, nb::handle units, nb::handle matrices, nb::handle instructions) {
    Description out;
    const std::string name = text(dtype, "dtype");
    if (name != "float32" && name != "float64") wrong("dtype is '" + name + "', expected 'float32' or 'float64'");
    out.dtype = name == "float32" ? Dtype::float32 : Dtype::float64;
    out.reverse = reverse;
    out.states = widths(states, "states");
    out.scratch = widths(scratch, "scratch");
    out.rows = widths(rows, "rows");
    out.units = widths(units, "units");
    for (const auto& item : items(time, "time")) out.time.push_back(time_array(item));
    for (const auto& item : items(matrices, "matrices")) {
        const auto parts = items(item, "matrices", 2);
        out.matrices.push_back({integer(parts[0], "matrices"), integer(parts[1], "matrices")});
    }
    for (const auto& item : items(instructions, "instructions"))
        out.instructions.push_back(instruction(item, out.instructions.size()));
    return out;
}

}  // namespace bptt
