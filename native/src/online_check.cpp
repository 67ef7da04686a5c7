// Whether a plan of the online loop holds together.
#include <stdexcept>
#include <string>

#include "online_memory.h"

namespace bptt::online {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("online plan: " + what); }

class Checker {
public:
    explicit Checker(const Plan& plan) : plan_(plan) {}

    void all() const {
        if (plan_.steps < 1 || plan_.lanes < 1) fail("steps and lanes must be at least 1");
        if (plan_.sources < 0 || static_cast<size_t>(plan_.sources) > plan_.buffers.size()) fail("sources out of range");
        for (const int64_t size : plan_.buffers)
            if (size < 0) fail("a buffer of negative size");
        for (const Array& a : plan_.arrays)
            if (a.width < 1) fail("an array without columns");
        for (const Matrix& m : plan_.matrices) view(m.view, "a matrix");
        for (const Leaf& leaf : plan_.leaves) {
            for (const int index : {leaf.states, leaf.entered, leaf.carries}) {
                array(index, "a leaf");
                if (plan_.arrays[static_cast<size_t>(index)].width != leaf.width) fail("a leaf of another width");
            }
            buffer(leaf.initial, leaf.width * (leaf.initial_is_shared ? 1 : plan_.lanes), "an initial state");
            if (leaf.initial_gradient >= 0) buffer(leaf.initial_gradient, leaf.width, "an initial state's gradient");
        }
        if (plan_.leaves.empty()) fail("a state without leaves");
        if (plan_.output < 0 || static_cast<size_t>(plan_.output) >= plan_.leaves.size()) fail("output out of range");
        for (const int index : {plan_.inputs, plan_.outputs, plan_.prediction, plan_.slope, plan_.upstream})
            array(index, "a special array");
        const int64_t out = plan_.leaves[static_cast<size_t>(plan_.output)].width;
        if (width(plan_.outputs) != out || width(plan_.upstream) != out) fail("outputs of another width");
        if (width(plan_.slope) != width(plan_.prediction)) fail("a slope of another width");
        for (const int index : plan_.deltas) array(index, "a delta");
        for (const auto* ops : {&plan_.ahead, &plan_.back_ahead, &plan_.behind}) rows(*ops, Domain::window, false);
        for (const auto* ops : {&plan_.forward, &plan_.backward}) rows(*ops, Domain::window, true);
        for (const auto* ops : {&plan_.read_forward, &plan_.read_backward}) rows(*ops, Domain::counted, false);
        for (const auto* ops : {&plan_.prepare, &plan_.after})
            for (const FixedOp& op : *ops) fixed(op);
    }

private:
    const Plan& plan_;

    int64_t width(int index) const { return plan_.arrays[static_cast<size_t>(index)].width; }
    void array(int index, const char* what) const {
        if (index < 0 || static_cast<size_t>(index) >= plan_.arrays.size()) fail(std::string(what) + ": no such array");
    }
    void buffer(int index, int64_t size, const char* what) const {
        if (index < 0 || static_cast<size_t>(index) >= plan_.buffers.size()) fail(std::string(what) + ": no such buffer");
        if (plan_.buffers[static_cast<size_t>(index)] < size) fail(std::string(what) + ": the buffer is too small");
    }
    void view(const View& v, const char* what) const {
        if (v.offset < 0 || v.rows < 0 || v.columns < 0 || v.row_stride < 0 || v.column_stride < 0)
            fail(std::string(what) + ": negative");
        const bool empty = v.rows == 0 || v.columns == 0;
        const int64_t last = v.offset + (v.rows - 1) * v.row_stride + (v.columns - 1) * v.column_stride;
        buffer(v.buffer, empty ? 0 : last + 1, what);
    }
    void place(const Place& p, Domain domain, bool loop, bool may_be_absent) const {
        if (p.kind == Place::none) {
            if (!may_be_absent) fail("an operand is missing");
            return;
        }
        if (p.kind == Place::constant) return;
        if (p.offset < 0 || p.width < 1) fail("an operand's columns");
        if (p.kind == Place::buffer) return buffer(p.index, p.offset + p.width, "an operand");
        array(p.index, "an operand");
        if (p.offset + p.width > width(p.index)) fail("an operand passes the end of its array");
        const Domain own = plan_.arrays[static_cast<size_t>(p.index)].domain;
        const bool fits = own == domain || (loop && own == Domain::step);
        if (!fits) fail("an operand's array does not belong here");
        if (p.shift < 0 || p.shift > (own == Domain::window ? 1 : 0)) fail("an operand's shift");
    }
    void rows(const std::vector<RowOp>& ops, Domain domain, bool loop) const {
        for (const RowOp& x : ops) {
            if (x.dst.kind != Place::array) fail("a result must be an array");
            place(x.dst, domain, loop, false);
            const int count = x.op == Op::matmul ? 1 : op_operands(x.op);
            place(x.a, domain, loop, false);
            place(x.b, domain, loop, x.op == Op::matmul || count < 2);
            place(x.c, domain, loop, count < 3 || x.op == Op::matmul);
            if (x.op == Op::matmul) {
                if (x.matrix < 0 || static_cast<size_t>(x.matrix) >= plan_.matrices.size()) fail("no such matrix");
                const View& m = plan_.matrices[static_cast<size_t>(x.matrix)].view;
                if (x.a.kind == Place::constant || x.a.width != m.rows || x.dst.width != m.columns)
                    fail("a product's sizes");
                if (x.b.kind == Place::constant || (x.b.kind != Place::none && x.b.width != m.columns))
                    fail("a product's first summand");
                continue;
            }
            if (op_is_reduction(x.op)) {
                if (x.dst.width != 1) fail("a reduction's result");
                if (x.op == Op::dot && x.b.width != x.a.width) fail("a reduction's operands");
                continue;
            }
            for (const Place* p : {&x.a, &x.b, &x.c})
                if (p->kind != Place::none && p->width != 1 && p->width != x.dst.width) fail("an operand's width");
        }
    }
    void fixed(const FixedOp& x) const {
        view(x.dst, "a result");
        if (x.kind == FixedOp::cross) {
            place(x.left, x.rows, false, false);
            place(x.right, x.rows, false, true);
            if (x.left.kind != Place::array || (x.right.kind != Place::none && x.right.kind != Place::array))
                fail("a sum over rows reads arrays");
            if (x.dst.rows != x.left.width || x.dst.columns != (x.right.kind == Place::none ? 1 : x.right.width))
                fail("a sum over rows: sizes");
            if (x.dst.columns > 1 && x.dst.column_stride != 1) fail("a sum over rows: columns");
            return;
        }
        if (x.kind == FixedOp::product) {
            view(x.a, "a factor");
            view(x.b, "a factor");
            if (x.a.columns != x.b.rows || x.dst.rows != x.a.rows || x.dst.columns != x.b.columns) fail("a product's sizes");
            return;
        }
        const View* operands[] = {&x.a, &x.b, &x.c};
        const int count = x.kind == FixedOp::sum ? 1 : op_operands(x.op);
        if (x.kind == FixedOp::sum && x.op != Op::sum && x.op != Op::amax) fail("no reduction");
        for (int i = 0; i < count; ++i) {
            if (operands[i]->buffer < 0) continue;
            view(*operands[i], "an operand");
            const bool sized = operands[i]->rows == x.dst.rows && operands[i]->columns == x.dst.columns;
            if (x.kind == FixedOp::pointwise && !sized) fail("an operand's shape");
        }
        if (x.kind == FixedOp::sum && (x.a.buffer < 0 || x.dst.rows != x.a.rows || x.dst.columns != 1)) fail("a sum's shape");
    }
};

}  // namespace

void check_plan(const Plan& plan) { Checker(plan).all(); }

}  // namespace bptt::online
