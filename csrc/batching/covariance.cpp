// The covariance matrix, whose weights PyTorch checks by looking at the values.
#include "batching/rewrite.h"
#include "batching/value_checks.h"

namespace functx {
namespace {

void check_weights(const char* name, const Tensor& weights, const Tensor& observations) {
  TORCH_CHECK(weights.dim() <= 1, "cov(): expected ", name, " to have one or fewer dimensions but ",
              "got ", name, " with ", weights.dim(), " dimensions");
  TORCH_CHECK(weights.sym_numel() == observations.sym_size(1), "cov(): expected ", name,
              " to have the same numel as there are observations in the input but got ",
              weights.sym_numel(), " != ", observations.sym_size(1));
  TORCH_CHECK(holds_everywhere(weights.ge(0)), "cov(): ", name, " cannot be negative");
}

// How often and by how much each observation counts; undefined if all are equal.
Tensor product_of(const std::optional<Tensor>& frequencies, const std::optional<Tensor>& weights,
                  const Tensor& observations) {
  Tensor product;
  if (frequencies.has_value()) {
    TORCH_CHECK(at::isIntegralType(frequencies->scalar_type(), /*includeBool=*/false),
                "cov(): expected fweights to have integral dtype but got fweights with ",
                frequencies->scalar_type(), " dtype");
    check_weights("fweights", *frequencies, observations);
    product = *frequencies;
  }
  if (weights.has_value()) {
    TORCH_CHECK(at::isFloatingType(weights->scalar_type()),
                "cov(): expected aweights to have floating point dtype but got aweights with ",
                weights->scalar_type(), " dtype");
    check_weights("aweights", *weights, observations);
    product = product.defined() ? product.mul(*weights) : *weights;
  }
  return product;
}

std::optional<Tensor> cov(const LevelPtr&, bool, const Tensor& self, int64_t correction,
                          const std::optional<Tensor>& fweights,
                          const std::optional<Tensor>& aweights) {
  TORCH_CHECK(self.dim() <= 2, "cov(): expected input to have two or fewer dimensions but got an ",
              "input with ", self.dim(), " dimensions");
  TORCH_CHECK(self.scalar_type() != at::kBool, "cov(): bool dtype is not supported for input");
  const Tensor observations = self.dim() < 2 ? self.reshape_symint({1, self.sym_numel()}) : self;
  const Tensor weights = product_of(fweights, aweights, observations);
  const auto weighted = [&](const Tensor& x) { return weights.defined() ? x.mul(weights) : x; };

  const Tensor total = weights.defined()
                           ? weights.sum()
                           : self.new_full_symint({}, observations.sym_size(1), at::kLong);
  TORCH_CHECK(!weights.defined() || holds_everywhere(total.ne(0)),
              "cov(): weights sum to zero, can't be normalized");
  const Tensor centered = observations.sub(weighted(observations).sum(1).div(total).unsqueeze(1));
  const Tensor lost = aweights.has_value() && correction != 0
                          ? weights.mul(*aweights).sum().mul(correction).div(total)
                          : total.new_full({}, correction);
  Tensor freedom = total.sub(lost);
  if (!holds_everywhere(freedom.gt(0))) {
    TORCH_WARN("cov(): degrees of freedom is <= 0. Correction should be strictly less than the ",
               "number of observations.");
    freedom = freedom.clamp_min(0);
  }
  return centered.mm(weighted(centered).t().conj()).div(freedom).squeeze();
}

}  // namespace

FUNCTX_RULES(covariance) { rewritten<ops::cov, cov>(); }

}  // namespace functx
