// `bptt._core.Unfolding`; see unfolding.h, and src/bptt/_core.pyi for what each argument means.
#include "unfolding.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "../products.h"
#include "arguments.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bptt {
namespace {

using Place = std::tuple<std::string, int64_t, int64_t, int64_t>;  // space, array, first column, width
using HeadMatrix = std::pair<int64_t, bool>;                         // head, transposed

struct Direction {
    nb::object owner;
    CoreProgram* core = nullptr;
    std::vector<HeadMatrix> matrices;
    std::vector<int64_t> units, times;
    bool saved = false;
};

// kind, head whose gradient it is part of, first row there, a, b (outer, dot), head of the matrix (multiply).
using ProductText = std::tuple<std::string, int64_t, int64_t, Place, Place, int64_t>;
using DirectionText = std::tuple<nb::object, std::vector<HeadMatrix>, std::vector<int64_t>, std::vector<int64_t>, bool>;

Direction direction(const DirectionText& text) {
    Direction d{std::get<0>(text), nullptr, std::get<1>(text), std::get<2>(text), std::get<3>(text), std::get<4>(text)};
    d.core = nb::cast<CoreProgram*>(d.owner);
    return d;
}

struct Unfolding {
    size_t heads;
    Direction ahead, behind;  // behind without a core: inference alone
    std::vector<std::pair<int64_t, std::vector<int64_t>>> projections;
    std::vector<ProductText> products;
    WorkspaceCache cache;
};

// Deltas are as large as all that is saved and live for one call: one memory serves all programs.
WorkspaceCache& deltas_cache() {
    static WorkspaceCache cache(size_t{256} << 20);
    return cache;
}

// An array over time and its columns.
struct Table {
    Plane plane;
    int64_t width = 0;
};

// The arguments of one call, checked as they are used.
struct Given {
    const Unfolding& text;
    const Direction& direction;
    int64_t steps, batch;
    Group heads, times;
    Arrays arrays;
    Run run;

    Given(const Unfolding& u, const Direction& d, int64_t t, int64_t b, nb::handle all_heads, nb::handle all_times)
        : text(u),
          direction(d),
          steps(t),
          batch(b),
          heads(all_heads, "heads", u.heads),
          times(all_times, "times", u.projections.size(), true),
          arrays(d.core->program, t, b) {
        run.steps = t;
        run.batch = b;
    }

    const Program& program() const { return direction.core->program; }
    Where head(int64_t i) const { return {"heads", i}; }

    MatrixView matrix(int64_t i, bool transposed, Shape2 shape) {
        if (!transposed) return arrays.matrix(heads[static_cast<size_t>(i)], head(i), shape);
        const MatrixView m = arrays.matrix(heads[static_cast<size_t>(i)], head(i), {shape.n, shape.k});
        return {m.data, m.column, m.row};
    }

    Table input() {
        const auto last = static_cast<int64_t>(text.heads) - 1;
        const nb::object object = heads[text.heads - 1];
        const int64_t width = arrays.shape(object, head(last)).back();
        return {arrays.time_plane(object, head(last), steps, width, Use::read), width};
    }

    void parameters() {
        const Description& p = program().text;
        for (size_t i = 0; i < direction.matrices.size(); ++i) {
            const auto& [i_head, transposed] = direction.matrices[i];
            run.matrices.push_back(matrix(i_head, transposed, p.matrices[i]));
        }
        for (size_t i = 0; i < direction.units.size(); ++i)
            run.units.push_back(
                arrays.unit_plane(heads[static_cast<size_t>(direction.units[i])], head(direction.units[i]), p.units[i]));
    }

    void context(nb::handle initial, nb::handle reset, nb::handle lengths, int64_t threads) {
        run.threads = threads_of(threads);
        const std::vector<int64_t>& widths = program().text.states;
        run.initial.resize(widths.size());
        if (!lengths.is_none()) arrays.lengths(lengths, run);
        if (reset.is_none()) return;
        arrays.reset(reset, run);
        const Group starts(initial, "initial", widths.size());
        for (size_t j = 0; j < widths.size(); ++j)
            run.initial[j] = arrays.row_plane(starts[j], starts.where(j), widths[j], Use::read);
    }

    void states(nb::handle all, Use use) {
        const std::vector<int64_t>& widths = program().text.states;
        const Group group(all, "states", widths.size());
        for (size_t j = 0; j < widths.size(); ++j)
            run.states.push_back(arrays.time_plane(group[j], group.where(j), steps + 1, widths[j], use));
    }
};

template <class T>
void copy_rows(const MatrixView& from, const Plane& to, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r) {
        const T* in = static_cast<const T*>(from.data) + r * from.row;
        T* out = static_cast<T*>(to.data) + r * to.row;
        for (int64_t c = 0; c < width; ++c) out[c] = in[c * from.column];
    }
}

void copy_rows(const MatrixView& from, const Plane& to, int64_t rows, int64_t width, Dtype dtype) {
    if (dtype == Dtype::float32) copy_rows<float>(from, to, rows, width);
    else copy_rows<double>(from, to, rows, width);
}

void take_projections(Given& in) {
    const Unfolding& u = in.text;
    const Table input = in.input();
    for (size_t i = 0; i < u.projections.size(); ++i) {
        const auto& [weight, biases] = u.projections[i];
        const int64_t width = in.program().text.time[i].width;
        Projection p{i, input.plane, {}, input.width, in.matrix(weight, true, {input.width, width}), {}};
        if (in.times.size()) p.kept = in.arrays.time_plane(in.times[i], in.times.where(i), in.steps, width, Use::write);
        for (int64_t b : biases)
            p.biases.push_back(in.arrays.unit_plane(in.heads[static_cast<size_t>(b)], in.head(b), width).data);
        in.run.projections.push_back(p);
    }
    in.run.time.resize(u.projections.size());
}

void forward(Unfolding& u, int64_t steps, int64_t batch, nb::handle heads, nb::handle start, nb::handle states,
             nb::handle last, nb::handle times, nb::handle saved, nb::handle initial, nb::handle reset,
             nb::handle lengths, int64_t threads) {
    check_size(*u.ahead.core, false, steps, batch);
    Given in(u, u.ahead, steps, batch, heads, times);
    const Program& p = in.program();
    in.context(initial, reset, lengths, threads);
    in.states(states, Use::write);
    in.parameters();
    take_projections(in);
    if (u.ahead.saved)
        in.run.time.push_back(in.arrays.time_plane(saved, {"saved"}, steps, p.text.time.back().width, Use::write));
    const size_t leaves = p.text.states.size();
    const Group starts(start, "start", leaves), lasts(last, "last", leaves);
    std::vector<MatrixView> from;
    std::vector<Plane> to;
    for (size_t j = 0; j < leaves; ++j) {
        from.push_back(in.arrays.matrix(starts[j], starts.where(j), {batch, p.text.states[j]}));
        to.push_back(in.arrays.row_plane(lasts[j], lasts.where(j), p.text.states[j], Use::write));
    }
    in.arrays.refuse_overlaps();
    nb::gil_scoped_release unlocked;
    const auto bytes = static_cast<ptrdiff_t>(size_of(p.text.dtype));
    const auto fresh = [&](const Plane& array, int64_t t) { wish_for_huge_pages(array.data, static_cast<size_t>(t * array.time * bytes)); };
    for (const Plane& s : in.run.states) fresh(s, steps + 1);
    if (u.ahead.saved) fresh(in.run.time.back(), steps);
    for (size_t j = 0; j < leaves; ++j) copy_rows(from[j], in.run.states[j], batch, p.text.states[j], p.text.dtype);
    execute(p, in.run, u.ahead.core->cache);
    for (size_t j = 0; j < leaves; ++j) {
        const Plane& s = in.run.states[j];
        copy_rows({static_cast<char*>(s.data) + steps * s.time * bytes, s.row, 1}, to[j], batch, p.text.states[j],
                  p.text.dtype);
    }
}

// Arrays over time by name, for the products that read them.
struct Sources {
    const Given& in;
    std::vector<Plane> before;  // states before each step with resets applied, where there are any
    Table saved, deltas, input;

    Table array(const std::string& space, size_t i) const {
        if (space == "delta") return deltas;
        if (space == "saved") return saved;
        if (space == "input") return input;
        Table states{space == "state" && !before.empty() ? before[i] : in.run.states[i], in.program().text.states[i]};
        if (space == "next") states.plane.data = static_cast<char*>(states.plane.data) + states.plane.time * bytes();
        return states;
    }

    ptrdiff_t bytes() const { return static_cast<ptrdiff_t>(size_of(in.program().text.dtype)); }

    // The rows of all steps and lanes must follow each other.
    StridedRows rows(const Place& place) const {
        const auto& [space, index, offset, width] = place;
        const auto [plane, columns] = array(space, static_cast<size_t>(index));
        if (plane.time != in.batch * plane.row && in.steps > 1 && in.batch > 1)
            throw nb::value_error((space + ": expected rows that follow each other").c_str());
        if (plane.data == nullptr || offset < 0 || width < 1 || offset + width > columns)
            throw nb::value_error((space + ": a product reads columns that are not there").c_str());
        return {static_cast<char*>(plane.data) + offset * bytes(), in.batch > 1 ? plane.row : plane.time};
    }
};

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};

// The products whose results are asked for; a sum asked for twice is copied.
std::vector<Contraction> take_products(Given& in, const Sources& sources, nb::handle gradients, std::vector<Copy>& copies) {
    const Group all(gradients, "gradients", in.text.heads);
    std::vector<Contraction> products;
    std::vector<std::pair<const Place*, void*>> sums;
    for (const auto& [kind, head, first, a, b, weight] : in.text.products) {
        const nb::object gradient = all[static_cast<size_t>(head)];
        if (gradient.is_none()) continue;
        const Where where = all.where(static_cast<size_t>(head));
        Contraction p{Contraction::Kind::sum, sources.rows(a), {}, std::get<3>(a)};
        const int64_t size = kind == "multiply" ? first + p.m : in.arrays.shape(gradient, where).front();
        if (first < 0 || first + p.m > size) throw nb::value_error((where.text() + ": has too few rows").c_str());
        if (kind == "dot") {
            p.kind = Contraction::Kind::dot;
            p.b = sources.rows(b);
            if (std::get<3>(b) != p.m) throw nb::value_error((where.text() + ": a product of two widths").c_str());
            p.dst = static_cast<char*>(in.arrays.unit_plane(gradient, where, size, Use::write).data) + first * sources.bytes();
        } else if (kind == "sum") {
            p.dst = static_cast<char*>(in.arrays.unit_plane(gradient, where, size, Use::write).data) + first * sources.bytes();
            const void* same = nullptr;
            for (const auto& [place, dst] : sums) same = *place == a ? dst : same;
            if (same != nullptr) {
                copies.push_back({p.dst, same, static_cast<size_t>(p.m * sources.bytes())});
                continue;
            }
            sums.emplace_back(&a, p.dst);
        } else if (kind == "outer") {
            p.kind = Contraction::Kind::outer;
            p.b = sources.rows(b);
            p.n = std::get<3>(b);
            const MatrixView to = in.arrays.matrix(gradient, where, {size, p.n}, Use::write);
            if (to.column != 1 && p.n > 1) throw nb::value_error((where.text() + ": columns are not contiguous").c_str());
            p.dst = static_cast<char*>(to.data) + first * to.row * sources.bytes();
            p.dst_stride = to.row;
        } else {
            p.kind = Contraction::Kind::multiply;
            p.n = in.arrays.shape(gradient, where).back();
            p.matrix = in.matrix(weight, false, {p.m, p.n});
            const Plane to = in.arrays.time_plane(gradient, where, in.steps, p.n, Use::write);
            if (to.time != in.batch * to.row && in.steps > 1) throw nb::value_error((where.text() + ": is not contiguous").c_str());
            p.dst = to.data;
            p.dst_stride = to.row;
        }
        products.push_back(p);
    }
    return products;
}

void backward(Unfolding& u, int64_t steps, int64_t batch, nb::handle heads, nb::handle states, nb::handle times,
              nb::handle saved, nb::handle initial, nb::handle before, nb::handle reset, nb::handle lengths,
              int64_t threads, nb::handle clip, nb::handle final_grads, nb::handle step_grads, nb::handle start_grads,
              nb::handle initial_grads, nb::handle gradients) {
    if (u.behind.core == nullptr) throw nb::value_error("there is no backward program");
    check_size(*u.behind.core, true, steps, batch);
    Given in(u, u.behind, steps, batch, heads, times);
    const Program& p = in.program();
    const Dtype dtype = p.text.dtype;
    in.context(initial, reset, lengths, threads);
    in.states(states, Use::read);
    in.parameters();
    take_clip(clip, in.run);
    take_gradients(p, final_grads, "final_grads", false, Use::read, in.arrays, in.run.final_grads, steps);
    take_gradients(p, step_grads, "step_grads", true, Use::read, in.arrays, in.run.step_grads, steps);
    take_gradients(p, start_grads, "start_grads", false, Use::write, in.arrays, in.run.start_grads, steps);
    take_gradients(p, initial_grads, "initial_grads", false, Use::write, in.arrays, in.run.initial_grads, steps);
    for (int64_t i : u.behind.times)
        in.run.time.push_back(in.arrays.time_plane(in.times[static_cast<size_t>(i)], in.times.where(static_cast<size_t>(i)),
                                                   steps, p.text.time[in.run.time.size()].width, Use::read));
    Sources sources{in, {}, {}, {}, {}};
    if (!saved.is_none()) {
        const int64_t width = in.arrays.shape(saved, {"saved"}).back();
        sources.saved = {in.arrays.time_plane(saved, {"saved"}, steps, width, Use::read), width};
        if (u.behind.saved) in.run.time.push_back(sources.saved.plane);
    }
    std::unique_ptr<Workspace> workspace;
    if (in.run.time.size() < p.text.time.size()) {
        const int64_t width = p.text.time.back().width;
        workspace = deltas_cache().take();
        std::byte* memory = workspace->reserve(static_cast<size_t>(steps * batch * width) * size_of(dtype));
        sources.deltas = {{memory, batch * width, width}, width};
        in.run.time.push_back(sources.deltas.plane);
    }
    if (in.run.time.size() != p.text.time.size()) missing({"saved"}, "the program reads it");
    const Group masked(before, "before", p.text.states.size(), true);
    for (size_t j = 0; j < masked.size(); ++j) {
        const nb::object rows = masked[j];
        sources.before.push_back(rows.is_none() ? Plane{} : in.arrays.time_plane(rows, masked.where(j), steps, p.text.states[j], Use::read));
    }
    sources.input = in.input();
    std::vector<Copy> copies;
    const std::vector<Contraction> products = take_products(in, sources, gradients, copies);
    in.arrays.refuse_overlaps();
    {
        nb::gil_scoped_release unlocked;
        execute(p, in.run, u.behind.core->cache);
        if (!products.empty()) multiply_all(products, steps * batch, dtype, in.run.threads, u.cache);
        for (const Copy& c : copies) std::memcpy(c.to, c.from, c.bytes);
    }
    if (workspace) deltas_cache().give(std::move(workspace));
}

void check_index(int64_t i, size_t count, const char* what) {
    if (i < 0 || static_cast<size_t>(i) >= count) throw nb::value_error((std::string("there is no such ") + what).c_str());
}

void check_direction(const Direction& d, bool reverse, size_t heads, size_t projections) {
    const Description& text = d.core->program.text;
    if (text.reverse != reverse) throw nb::value_error(reverse ? "backward: runs forward" : "forward: runs in reverse");
    for (const auto& [head, _] : d.matrices) check_index(head, heads, "head");
    for (int64_t head : d.units) check_index(head, heads, "head");
    for (int64_t i : d.times) check_index(i, projections, "projection");
    if (d.matrices.size() != text.matrices.size() || d.units.size() != text.units.size())
        throw nb::value_error("expected a head for each matrix and unit of the program");
    if (!text.rows.empty()) throw nb::value_error("a program with rows cannot run here");
    const size_t given = d.times.size() + (d.saved ? 1 : 0), own = text.time.size();
    if (given != own && !(reverse && given + 1 == own && text.time.back().written))
        throw nb::value_error("expected all arrays over time of the program");
}

// All numbers that later are used as indices.
void check(size_t heads, const Direction& ahead, const Direction& back,
           const std::vector<std::pair<int64_t, std::vector<int64_t>>>& projections,
           const std::vector<ProductText>& products) {
    if (heads < 1) throw nb::value_error("heads: expected at least the input");
    check_direction(ahead, false, heads, projections.size());
    for (const auto& [weight, biases] : projections) {
        check_index(weight, heads, "head");
        for (int64_t b : biases) check_index(b, heads, "head");
    }
    if (ahead.times.size() != projections.size()) throw nb::value_error("expected a projection for each array over time");
    if (back.core != nullptr) check_direction(back, true, heads, projections.size());
    else if (!products.empty()) throw nb::value_error("products: there is no backward program");
    for (const auto& [kind, head, first, a, b, weight] : products) {
        if (kind != "outer" && kind != "sum" && kind != "dot" && kind != "multiply")
            throw nb::value_error("a product is outer, sum, dot or multiply");
        check_index(head, heads, "head");
        if (kind == "multiply") check_index(weight, heads, "head");
        for (const Place* place : {&a, &b}) {
            const std::string& space = std::get<0>(*place);
            if (space == "state" || space == "next") check_index(std::get<1>(*place), back.core->program.text.states.size(), "state");
            else if (space != "delta" && space != "saved" && space != "input") throw nb::value_error("a product reads no such array");
        }
    }
}

}  // namespace

void bind_unfolding(nb::module_& m) {
    const nb::object none = nb::none(), empty = nb::tuple();
    nb::class_<Unfolding>(m, "Unfolding")
        .def(
            "__init__",
            [](Unfolding* self, size_t heads, const DirectionText& ahead, nb::handle behind,
               const std::vector<std::pair<int64_t, std::vector<int64_t>>>& projections,
               const std::vector<ProductText>& products) {
                Direction back;
                if (!behind.is_none()) back = direction(nb::cast<DirectionText>(behind));
                check(heads, direction(ahead), back, projections, products);
                new (self) Unfolding{heads, direction(ahead), back, projections, products, {}};
            },
            nb::kw_only(), "heads"_a, "forward"_a, "backward"_a.none() = none, "projections"_a, "products"_a)
        .def_prop_ro("workspace", [](const Unfolding& u) { return u.cache.latest(); })
        .def("forward", &forward, "steps"_a, "batch"_a, "heads"_a, "start"_a, "states"_a, "last"_a, "times"_a, "saved"_a.none(),
             "initial"_a, "reset"_a.none(), "lengths"_a.none(), "threads"_a)
        .def("backward", &backward, "steps"_a, "batch"_a, "heads"_a, "states"_a, "times"_a, "saved"_a.none(), "initial"_a,
             "before"_a, "reset"_a.none(), "lengths"_a.none(), "threads"_a, "clip"_a.none(), "final_grads"_a,
             "step_grads"_a, "start_grads"_a, "initial_grads"_a, "gradients"_a);
}

}  // namespace bptt
