// One layer in one direction over all of time, forward and backward. Compiled once per instruction set and type of number.
//
// Threads share the work of a step by batch rows, by hidden units, or both: each owns a region of rows x units, and
// of it the gates, the cell state and the output. By rows alone they never wait for one another; by units they meet
// after every step, because a step needs the whole h of the step before.
#include "backward.hpp"
#include "forward.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "varied_backward.hpp"
#include "varied_forward.hpp"

namespace gatewise::GATEWISE_ISA {

template <class Number>
void forward(const ForwardCall<Number>& call) {
  const Layout<Number> layout(call.sizes);
  const ForwardScratch<Number> scratch(layout, call.training, call.scratch);
  in_parallel(useful_threads(layout, call.sizes.threads), [&](const Team& team) {
    const Split split = split_between(team.threads, layout, layout.B);
    const Forward<Number> f{call, layout, Steps(call.walk, call.sizes), scratch,
                            layout.T == 1 && split.row_parts == 1 && call.weights == Weights::given};
    f.pack(team);
    team.meet();
    const int64_t h_panels = Panels(layout.P, kLanes<Number>).count;
    f.run(region_of(split, f.steps, {0, layout.B}, layout.units, h_panels, team.thread), team, split.unit_parts > 1);
  });
}

// All of time, for one group of rows, which the team shares in this way.
template <class Number>
void go_back(const Backward<Number>& b, const Split& split, const Team& team) {
  const BackwardCall<Number>& call = b.call;
  const Layout<Number>& layout = b.layout;
  const bool parameters = call.d_weight_ih || call.d_weight_hh || call.d_bias || call.d_weight_hr;
  const VariedBackward<Number> varied{b};
  const bool by_units = split.unit_parts > 1;
  const Region region = region_of(split, b.steps, b.group.rows, Panels(layout.H, kLanes<Number>).count,
                                  Panels(layout.P, kLanes<Number>).count, team.thread);
  const Range inputs = {0, Panels(layout.I, kLanes<Number>).count};
  b.begin(region);
  team.meet();
  for (int64_t j = layout.back_chunks - 1; j >= 0; --j) {
    const auto chunk = b.chunk(j);
    b.run(chunk, region, team, by_units);
    if (j > 0) b.hand_on(chunk, region);
    // By rows a thread has all gates of its own rows, still in its cache; by units it needs the others', of its steps,
    // or of its part of the input if there are fewer steps than threads.
    if (call.d_x) {
      const int64_t count = chunk.times.last - chunk.times.first;
      const Range own = part(count, team.threads, team.thread);
      const Range times = {chunk.times.first + own.first, chunk.times.first + own.last};
      if (!by_units) b.input_gradient(chunk, chunk.times, region.rows, inputs);
      else if (count >= team.threads) b.input_gradient(chunk, times, b.group.rows, inputs);
      else b.input_gradient(chunk, chunk.times, b.group.rows, part(inputs.last, team.threads, team.thread));
    }
    if (j == 0) b.end(chunk, region);
    if (layout.changed) varied.parameter_gradients(chunk, team);
    if (parameters) b.parameter_gradients(chunk, team);
    else team.meet();  // before d_a is written over
  }
}

template <class Number>
void backward(const BackwardCall<Number>& call) {
  const Layout<Number> layout(call.sizes);
  Meeting meetings[2];
  in_parallel(useful_threads(layout, call.sizes.threads), [&](const Team& team) {
    const BackwardScratch<Number> scratch(layout, call.scratch);
    // Each group has half of the threads, which may pack the weights for themselves; or, where that does not work out, all
    // threads take one group after the other.
    const bool apart = layout.groups == 2 && team.threads % 2 == 0;
    const int half = team.threads / 2, number = apart && team.thread >= half;
    const Team own = apart ? Team{team.thread % half, half, &meetings[number]} : team;
    const bool copied = apart && layout.copies == 2;
    const Backward<Number> b(call, layout, copied && number == 1 ? scratch.of_second(layout) : scratch, number);
    const auto split = [&](const Group& group) {
      return split_between(own.threads, layout, group.count(), kBackwardRowBytes);
    };
    b.pack(copied ? own : team, copied, layout.groups == 1 && split(b.group).unit_parts > 1);
    if (apart && !copied) team.meet();
    go_back(b, split(b.group), own);
    if (layout.groups == 1) return;
    if (!apart) {
      const Backward<Number> second(call, layout, scratch, 1);
      go_back(second, split(second.group), team);
    }
    team.meet();
    b.join(team);
  });
}

// --------------------------------------------------------------------------------------------------------

template <class Number>
void activations(const ActivationsCall<Number>& call) {
  const Layout<Number> layout(call.sizes);
  const Steps steps(call.walk, call.sizes);
  in_parallel(useful_threads(layout, call.sizes.threads), [&](const Team& team) {
    const Range own = part(layout.steps, team.threads, team.thread);
    Cursor at(steps, Group::all(steps), own.first);
    for (int64_t row = own.first; row < own.last; ++row, at.next()) {
      const Number* gates = call.gates + row * layout.gates_row;
      const Sum<Number>* c = call.cells + (layout.B + row) * layout.cells_row;
      const int64_t to = (steps.step_of(at.t, at.b) * layout.B + steps.row_of(at.b)) * layout.H;
      for (int64_t u = 0; u < layout.units; ++u) {
        const Gates<Sum<Number>> gate = load_gates(gates + layout.gates_at(u), layout.width_of(u));
        const Vec<Number> values[] = {gate.i, gate.f, gate.g, gate.o, load(c + u * kLanes<Number>)};
        for (int n = 0; n < 5; ++n) store_first(call.to[n] + to + u * kLanes<Number>, values[n], layout.units_in(u));
      }
    }
  });
}

template <class Number>
Plan plan(const Sizes& sizes, bool training) {
  const Layout<Number> layout(sizes);
  const auto numbers = [](int64_t bytes) { return bytes / static_cast<int64_t>(sizeof(Number)); };
  constexpr int64_t sum = sizeof(Sum<Number>);
  return {
      .gates = training ? layout.steps * layout.gates_row : numbers(layout.chunk_rows * layout.gates_row * sum),
      .cells = numbers((layout.B + (training ? layout.steps : 0)) * layout.cells_row * sum),
      .unprojected = layout.projected ? (training ? layout.steps : layout.B) * layout.padded : 0,
      .normalized = layout.cell.layer_norm && training ? Normalized<Number>::numbers(layout) : 0,
      .forward_scratch = numbers(ForwardScratch<Number>(layout, training, nullptr).bytes),
      .backward_scratch = numbers(BackwardScratch<Number>(layout, nullptr).bytes),
  };
}

template Plan plan<GATEWISE_NUMBER>(const Sizes&, bool);
template void forward<GATEWISE_NUMBER>(const ForwardCall<GATEWISE_NUMBER>&);
template void backward<GATEWISE_NUMBER>(const BackwardCall<GATEWISE_NUMBER>&);
template void activations<GATEWISE_NUMBER>(const ActivationsCall<GATEWISE_NUMBER>&);

}  // namespace gatewise::GATEWISE_ISA
