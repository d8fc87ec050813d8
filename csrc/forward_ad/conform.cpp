#include "forward_ad/conform.h"

namespace functx {

Dual conform(Tensor tangent, Tensor primal) {
  if (tangent.scalar_type() != primal.scalar_type()) {
    tangent = tangent.to(primal.scalar_type());
  }
  if (tangent.sym_sizes() != primal.sym_sizes()) {
    tangent = tangent.expand_symint(primal.sym_sizes());
  }
  return {std::move(primal), std::move(tangent), false};
}

}  // namespace functx
