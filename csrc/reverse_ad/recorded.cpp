#include "reverse_ad/recorded.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include "core/keys.h"

namespace functx {
namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// An intrusive pointer from torch 2.13 on, a shared one before.
using NodePtr = decltype(torch::autograd::Edge::function);

class PullbackNode final : public Node {
 public:
  PullbackNode(const char* name, const std::vector<Tensor>& saved, Pullback pullback)
      : name_(name), pullback_(std::move(pullback)) {
    for (const Tensor& tensor : saved) {
      saved_.emplace_back(tensor, /*is_output=*/false);
    }
  }

  std::string name() const override { return std::string("functx::Backward of ") + name_; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& variable : saved_) {
      variable.reset_data();
    }
  }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) {
      return variable_list(num_outputs());
    }
    std::vector<Tensor> saved;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const SavedVariable& variable : saved_) {
        saved.push_back(variable.unpack());
      }
    }
    // Whoever records this pass may have left the grad level, or be outside of any.
    const c10::impl::IncludeDispatchKeyGuard see_what_is_recorded(kGradKey);
    return pullback_(gradients[0], saved);
  }

 private:
  const char* name_;
  std::mutex mutex_;
  std::vector<SavedVariable> saved_;
  const Pullback pullback_;
};

template <class Kind, class... Args>
NodePtr make_node(Args&&... args) {
  if constexpr (std::is_constructible_v<NodePtr, std::shared_ptr<Kind>>) {
    return std::make_shared<Kind>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<Kind>(std::forward<Args>(args)...);
  }
}

}  // namespace

bool needs_tape(const Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad() && c10::GradMode::is_enabled();
}

Tensor record(const char* name, Tensor result, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& saved, Pullback pullback) {
  const NodePtr node = make_node<PullbackNode>(name, saved, std::move(pullback));
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(result, node);
  return result;
}

}  // namespace functx
