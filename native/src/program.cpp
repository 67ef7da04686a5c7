// Validation and resolution of a program; see program.h.
#include "program.h"

#include <algorithm>
#include <utility>

namespace bptt {
namespace {

constexpr int64_t most_width = int64_t{1} << 24;
constexpr size_t most_arrays = 4096, most_instructions = 65536;
constexpr int64_t chunk_bytes = 16 * 1024;  // of the rows of a pointwise run: half of a small L1

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

std::string describe(const Slot& s) {
    return std::string(space_name(s.space)) + "[" + std::to_string(s.index) + "] (columns from " +
           std::to_string(s.offset) + ", width " + std::to_string(s.width) + ")";
}

bool overlap(const Slot& a, const Slot& b) {
    return a.space == b.space && a.space != Space::constant && a.index == b.index && a.offset < b.offset + b.width &&
           b.offset < a.offset + a.width;
}

bool same(const Slot& a, const Slot& b) { return overlap(a, b) && a.offset == b.offset && a.width == b.width; }

class Builder {
public:
    explicit Builder(Description text) { program_.text = std::move(text); }

    Program take() {
        tables();
        const auto& all = program_.text.instructions;
        for (position_ = 0; position_ < all.size(); ++position_) instruction(all[position_]);
        complete();
        segments();
        program_.arrays.back().width = static_cast<int64_t>(program_.constants.size());
        return std::move(program_);
    }

private:
    Program program_;
    size_t position_ = 0;
    std::vector<std::vector<bool>> defined_;  // per array: columns written so far in the step

    void space(Space s, const std::vector<int64_t>& widths) {
        program_.first_array[static_cast<int>(s)] = static_cast<int>(program_.arrays.size());
        for (size_t i = 0; i < widths.size(); ++i) {
            if (widths[i] < 1 || widths[i] > most_width)
                fail(std::string(space_name(s)) + "[" + std::to_string(i) + "]: width " + std::to_string(widths[i]) +
                     " is not between 1 and " + std::to_string(most_width));
            program_.arrays.push_back({s, static_cast<int64_t>(i), widths[i]});
        }
    }

    void tables() {
        const Description& text = program_.text;
        std::vector<int64_t> time;
        for (const auto& t : text.time) time.push_back(t.width);
        if (text.instructions.size() > most_instructions) fail("too many instructions");
        for (size_t n : {text.states.size(), text.scratch.size(), time.size(), text.rows.size(), text.units.size(),
                         text.matrices.size()})
            if (n > most_arrays) fail("too many arrays");
        space(Space::scratch, text.scratch);
        space(Space::time, time);
        space(Space::row, text.rows);
        space(Space::unit, text.units);
        space(Space::state, text.states);
        space(Space::next, text.states);
        space(Space::grad, text.reverse ? text.states : std::vector<int64_t>{});
        space(Space::grad_in, text.reverse ? text.states : std::vector<int64_t>{});
        space(Space::constant, {1});
        for (const auto& m : text.matrices)
            if (m.k < 1 || m.n < 1 || m.k > most_width || m.n > most_width) fail("a matrix dimension is out of range");
        for (const auto& a : program_.arrays) defined_.emplace_back(writable(a) ? a.width : 0, false);
    }

    bool writable(const ArrayInfo& a) const {
        switch (a.space) {
            case Space::scratch: return true;
            case Space::time: return program_.text.time[static_cast<size_t>(a.index)].written;
            case Space::next: return !program_.text.reverse;
            case Space::grad_in: return true;
            default: return false;
        }
    }

    [[noreturn]] void wrong(const std::string& message) const {
        const Op op = program_.text.instructions[position_].op;
        fail("instruction " + std::to_string(position_) + " (" + op_name(op) + "): " + message);
    }

    ArrayInfo& find(const Slot& s) {
        const int next = static_cast<int>(s.space) + 1;
        const int first = program_.first_array[static_cast<int>(s.space)];
        if (s.index < 0 || s.index >= program_.first_array[next] - first)
            wrong("there is no array " + std::string(space_name(s.space)) + "[" + std::to_string(s.index) + "]");
        ArrayInfo& a = program_.arrays[static_cast<size_t>(first + s.index)];
        if (s.offset < 0 || s.width < 1 || s.width > a.width || s.offset > a.width - s.width)
            wrong("slot " + describe(s) + " does not fit in width " + std::to_string(a.width));
        return a;
    }

    Operand resolve(const Slot& s) {
        if (s.absent) return {};
        if (s.space == Space::constant) {
            program_.constants.push_back(s.value);
            return {program_.first_array[static_cast<int>(Space::constant)],
                    static_cast<int64_t>(program_.constants.size()) - 1};
        }
        find(s);
        return {program_.id(s.space, s.index), s.offset};
    }

    Operand read(const Slot& s, int64_t width, bool exact) {
        if (s.absent) return {};
        if (s.space != Space::constant) find(s);
        if (s.width != width && (exact || s.width != 1))
            wrong("operand of width " + std::to_string(s.width) + " where the result needs " + std::to_string(width));
        const Operand operand = resolve(s);
        if (s.space == Space::constant) return operand;
        ArrayInfo& a = find(s);
        a.read = true;
        if (writable(a)) {
            const auto& columns = defined_[static_cast<size_t>(operand.array)];
            for (int64_t i = s.offset; i < s.offset + s.width; ++i)
                if (!columns[static_cast<size_t>(i)]) wrong("reads " + describe(s) + " before it is written");
        }
        return operand;
    }

    Operand write(const Slot& s) {
        ArrayInfo& a = find(s);
        if (!writable(a)) wrong("writes " + describe(s) + ", which is only read here");
        a.written = true;
        const Operand operand = resolve(s);
        auto& columns = defined_[static_cast<size_t>(operand.array)];
        std::fill_n(columns.begin() + s.offset, s.width, true);
        return operand;
    }

    void refuse_overlap(const Slot& dst, const Slot& operand, bool same_is_fine) const {
        if (operand.absent || !overlap(dst, operand) || (same_is_fine && same(dst, operand))) return;
        wrong("destination " + describe(dst) + " overlaps its operand " + describe(operand));
    }

    void instruction(const InstructionText& text) {
        if (text.dst.absent || text.dst.space == Space::constant) wrong("the destination is no slot");
        find(text.dst);
        Instruction out{text.op, 0, {}, {}, {}, {}, text.dst.width, -1};
        if (text.op == Op::matmul) {
            multiply(text, out);
        } else if (op_is_reduction(text.op)) {
            if (text.dst.width != 1) wrong("a reduction's destination has width 1");
            out.width = text.operands[0].width;
            Operand* slots[] = {&out.a, &out.b};
            for (int i = 0; i < op_operands(text.op); ++i) {
                *slots[i] = read(text.operands[i], out.width, true);
                refuse_overlap(text.dst, text.operands[i], out.width == 1);
            }
        } else {
            pointwise(text, out);
        }
        out.dst = write(text.dst);
        program_.instructions.push_back(out);
    }

    void pointwise(const InstructionText& text, Instruction& out) {
        Operand* slots[] = {&out.a, &out.b, &out.c};
        const int n = op_operands(text.op);
        for (int i = 0; i < n; ++i) {
            const Slot& s = text.operands[i];
            *slots[i] = read(s, out.width, false);
            if (s.width == 1 && out.width != 1) out.scalars |= 1 << i;
            refuse_overlap(text.dst, s, true);
        }
        program_.flops_per_row += static_cast<double>(out.width) * 4;
    }

    void multiply(const InstructionText& text, Instruction& out) {
        const auto& matrices = program_.text.matrices;
        if (text.matrix < 0 || text.matrix >= static_cast<int64_t>(matrices.size()))
            wrong("there is no matrix " + std::to_string(text.matrix));
        const Shape2 m = matrices[static_cast<size_t>(text.matrix)];
        if (out.width != m.n) wrong("result of width " + std::to_string(out.width) + " from a matrix of " + std::to_string(m.n) + " columns");
        if (text.operands[1].absent || text.operands[1].space == Space::constant) wrong("multiplies no slot");
        out.matrix = static_cast<int>(text.matrix);
        out.a = read(text.operands[1], m.k, true);
        refuse_overlap(text.dst, text.operands[1], false);
        refuse_overlap(text.dst, text.operands[0], true);
        out.b = read(text.operands[0], out.width, false);
        if (!text.operands[0].absent && text.operands[0].width == 1 && out.width != 1) {
            // A broadcast init is spread over the destination first; the product then adds to it.
            const Operand dst = write(text.dst);
            program_.instructions.push_back({Op::copy, 1, dst, out.b, {}, {}, out.width, -1});
            out.b = dst;
        }
        program_.flops_per_row += 2.0 * static_cast<double>(m.k) * static_cast<double>(m.n);
    }

    void complete() const {
        const Space s = program_.text.reverse ? Space::grad_in : Space::next;
        for (size_t j = 0; j < program_.text.states.size(); ++j) {
            const auto& columns = defined_[static_cast<size_t>(program_.id(s, static_cast<int64_t>(j)))];
            if (std::find(columns.begin(), columns.end(), false) != columns.end())
                fail(std::string(space_name(s)) + "[" + std::to_string(j) + "] is not written in full");
        }
    }

    void segments() {
        const int count = static_cast<int>(program_.instructions.size());
        const auto is_matmul = [&](int i) { return program_.instructions[static_cast<size_t>(i)].op == Op::matmul; };
        for (int i = 0; i < count;) {
            Segment s{i, i + 1, is_matmul(i), 0};
            if (!s.matmul)
                while (s.last < count && !is_matmul(s.last)) ++s.last;
            s.chunk_rows = std::max<int64_t>(1, chunk_bytes / std::max<int64_t>(1, bytes_per_row(s)));
            program_.segments.push_back(s);
            i = s.last;
        }
    }

    // Bytes of one row that a run of instructions touches: each distinct slot once.
    int64_t bytes_per_row(const Segment& s) const {
        std::vector<std::pair<int, int64_t>> seen;
        int64_t columns = 0;
        for (int i = s.first; i < s.last; ++i) {
            const Instruction& x = program_.instructions[static_cast<size_t>(i)];
            for (const Operand* o : {&x.dst, &x.a, &x.b, &x.c}) {
                const std::pair<int, int64_t> key{o->array, o->offset};
                if (o->array < 0 || std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
                seen.push_back(key);
                columns += x.width;
            }
        }
        return columns * static_cast<int64_t>(size_of(program_.text.dtype));
    }
};

}  // namespace

const char* space_name(Space space) {
    static const char* const names[space_count] = {"scratch", "time", "row",     "unit",    "state",
                                                   "next",    "grad", "grad_in", "constant"};
    return names[static_cast<int>(space)];
}

Program build(Description text) { return Builder(std::move(text)).take(); }

}  // namespace bptt
