// What dispatch.cpp knows of an instruction set. Compiled once for each; sequence.cpp, compiled for each type of
// number, has the rest.
#include "draw.hpp"
#include "kernels.hpp"
#include "math.hpp"

// Of an instruction set that differs from another one only in what it does with bfloat16, GATEWISE_REST names the
// other.
#if !defined(GATEWISE_REST)
#define GATEWISE_REST GATEWISE_ISA
#endif

#define GATEWISE_STRING_(x) #x
#define GATEWISE_STRING(x) GATEWISE_STRING_(x)

namespace gatewise {

#define GATEWISE_DECLARE(isa)                    \
  namespace isa {                                \
  template <class Number>                        \
  Plan plan(const Sizes&, bool training);        \
  template <class Number>                        \
  void forward(const ForwardCall<Number>&);      \
  template <class Number>                        \
  void backward(const BackwardCall<Number>&);    \
  template <class Number>                        \
  void activations(const ActivationsCall<Number>&);\
  }
GATEWISE_DECLARE(GATEWISE_ISA)
GATEWISE_DECLARE(GATEWISE_REST)

namespace GATEWISE_ISA {
namespace {

template <class From, class To, class Function>
void map(const From* x, To* y, int64_t n, const Function& function) {
  for (int64_t j = 0; j < n; j += kLanes<From>) {
    Vec<From> v[] = {load_first(x + j, n - j)};
    function(v);
    store_first(y + j, v[0], n - j);
  }
}

template <class Real>
void sigmoid_of(const Real* x, Real* y, int64_t n) {
  map(x, y, n, [](Vec<Real>(&v)[1]) { sigmoid<Real, 1>(v); });
}

template <class Real>
void tanh_of(const Real* x, Real* y, int64_t n) {
  map(x, y, n, [](Vec<Real>(&v)[1]) { tanh<Real, 1>(v); });
}

template <class Real>
void exp_of_negative_of(const Real* x, Real* y, int64_t n) {
  map(x, y, n, [](Vec<Real>(&v)[1]) { exp_of_negative<Real, 1>(v); });
}

template <class Real>
void log_sigmoid_of(const Real* x, Real* y, int64_t n) {
  map(x, y, n, [](Vec<Real>(&v)[1]) { v[0] = log_sigmoid<Real>(v[0]); });
}

template <class From, class To>
void converted(const From* x, To* y, int64_t n) {
  map(x, y, n, [](Vec<From>(&)[1]) {});
}

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
#if defined(__AVX512BF16__)
         __builtin_cpu_supports("avx512bf16") &&
#endif
         __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

extern const Kernels table;
const Kernels table = {
    .name = GATEWISE_STRING(GATEWISE_ISA),
    .supported = supported,
    .for_float = {GATEWISE_REST::plan<float>, GATEWISE_REST::forward<float>, GATEWISE_REST::backward<float>,
                  GATEWISE_REST::activations<float>},
    .for_double = {GATEWISE_REST::plan<double>, GATEWISE_REST::forward<double>, GATEWISE_REST::backward<double>,
                   GATEWISE_REST::activations<double>},
    .for_bfloat16 = {plan<bfloat16>, forward<bfloat16>, backward<bfloat16>, activations<bfloat16>},
    .sigmoid_float = sigmoid_of<float>,
    .sigmoid_double = sigmoid_of<double>,
    .tanh_float = tanh_of<float>,
    .tanh_double = tanh_of<double>,
    .exp_of_negative_float = exp_of_negative_of<float>,
    .exp_of_negative_double = exp_of_negative_of<double>,
    .log_sigmoid_float = log_sigmoid_of<float>,
    .log_sigmoid_double = log_sigmoid_of<double>,
    .to_bfloat16 = converted<float, bfloat16>,
    .from_bfloat16 = converted<bfloat16, float>,
    .draw_float = draw<float>,
    .draw_double = draw<double>,
};

}  // namespace GATEWISE_ISA
}  // namespace gatewise
