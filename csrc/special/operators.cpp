#include "special/operators.h"

#include <torch/library.h>

#include <utility>

#include "batching/pointwise.h"
#include "special/derivative.h"
#include "special/kernels.h"

namespace functx {
namespace {

template <class Op, class Signature>
struct Callable;

template <class Op, class Result, class... Args>
struct Callable<Op, Result(Args...)> {
  using schema = Result(Args...);
  static constexpr const char* overload_name = "";

  static Result call(Args... args) { return handle().call(std::forward<Args>(args)...); }
  static Result redispatch(c10::DispatchKeySet keys, Args... args) {
    return handle().redispatch(keys, std::forward<Args>(args)...);
  }

 private:
  static const c10::TypedOperatorHandle<schema>& handle() {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow(Op::name, Op::overload_name)
                               .template typed<schema>();
    return op;
  }
};

struct BesselQuotient : Callable<BesselQuotient, Tensor(const Tensor&, double, bool)> {
  static constexpr const char* name = "functx::bessel_quotient";
};

struct PolynomialDerivative
    : Callable<PolynomialDerivative, Tensor(const Tensor&, const Tensor&, int64_t, int64_t)> {
  static constexpr const char* name = "functx::polynomial_derivative";
};

struct AiryAiPrime : Callable<AiryAiPrime, Tensor(const Tensor&)> {
  static constexpr const char* name = "functx::airy_ai_prime";
};

// --- their derivatives

constexpr auto slope_of_quotient = [](const Tensor& x, double order, bool modified) {
  const Tensor next = x.mul(bessel_quotient(x, order + 1, modified));
  return modified ? next : next.neg();
};

constexpr auto slope_of_derivative = [](const Tensor& x, const Tensor& n, int64_t family,
                                        int64_t times) {
  return polynomial_derivative(x, n, static_cast<Polynomial>(family), times + 1);
};

// Ai'' = x * Ai, which has a derivative of its own.
constexpr auto slope_of_airy = [](const Tensor& x) { return x.mul(ops::special_airy_ai::call(x)); };

// --- registration

TORCH_LIBRARY_FRAGMENT(functx, m) {
  m.def("bessel_quotient(Tensor x, float order, bool modified) -> Tensor");
  m.def("polynomial_derivative(Tensor x, Tensor n, int family, int times) -> Tensor");
  m.def("airy_ai_prime(Tensor x) -> Tensor");
}

TORCH_LIBRARY_IMPL(functx, CompositeExplicitAutograd, m) {
  m.impl(BesselQuotient::name, compute_bessel_quotient);
  m.impl(PolynomialDerivative::name,
         [](const Tensor& x, const Tensor& n, int64_t family, int64_t times) {
           return compute_polynomial_derivative(x, n, static_cast<Polynomial>(family), times);
         });
  m.impl(AiryAiPrime::name, compute_airy_ai_prime);
}

template <class Op, auto slope, class Signature = typename Op::schema>
struct OnTape;

template <class Op, auto slope, class... Args>
struct OnTape<Op, slope, Tensor(Args...)> {
  static Tensor run(Args... args) {
    if (std::optional<Tensor> result = detail::Sloped<Op, slope>::recorded(args...)) {
      return *std::move(result);
    }
    return below_tape([&] { return Op::call(args...); });
  }
};

TORCH_LIBRARY_IMPL(functx, Autograd, m) {
  m.impl(BesselQuotient::name, OnTape<BesselQuotient, slope_of_quotient>::run);
  m.impl(PolynomialDerivative::name, OnTape<PolynomialDerivative, slope_of_derivative>::run);
  m.impl(AiryAiPrime::name, OnTape<AiryAiPrime, slope_of_airy>::run);
}

template <class Op, auto slope>
void transform() {
  pointwise<Op>();
  partials<Op, detail::Sloped<Op, slope>::tangent>();
}

// After the operators are defined, so in the same file.
FUNCTX_RULES(special_operators) {
  transform<BesselQuotient, slope_of_quotient>();
  transform<PolynomialDerivative, slope_of_derivative>();
  transform<AiryAiPrime, slope_of_airy>();
}

}  // namespace

Tensor bessel_quotient(const Tensor& x, double order, bool modified) {
  return BesselQuotient::call(x, order, modified);
}

Tensor polynomial_derivative(const Tensor& x, const Tensor& n, Polynomial family, int64_t times) {
  return PolynomialDerivative::call(x, n, static_cast<int64_t>(family), times);
}

Tensor airy_ai_prime(const Tensor& x) { return AiryAiPrime::call(x); }

}  // namespace functx
