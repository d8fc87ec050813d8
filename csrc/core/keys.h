// The dispatch keys functx lives on. Nothing else in the code base names a DispatchKey of ours.
#pragma once

#include <c10/core/DispatchKeySet.h>

namespace functx {

// Every wrapper carries it, so every operator on a wrapper reaches us before Autograd, Autocast,
// Python and Functionalize do. PyTorch reserves it for tests and registers no kernel for it.
inline constexpr auto kFrontKey = c10::DispatchKey::TESTING_ONLY_GenericWrapper;

// Included in thread-local state while a transform needs to see operators that have no wrapper
// among their arguments: random ones under vmap, factories under jvp. All others fall through.
inline constexpr auto kModeKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

// What a mode kernel masks its key set with to pass an operator on.
inline constexpr c10::DispatchKeySet kBelowModeKeys(c10::DispatchKeySet::FULL_AFTER, kModeKey);

// Included while a grad level is active. In-place operators have kernels here, and those of
// backward passes that autograd can't differentiate; all others fall through. The key was reserved
// for projects outside of PyTorch, which has no kernel for it.
inline constexpr auto kGradKey = c10::DispatchKey::DeferredInit;
inline constexpr c10::DispatchKeySet kBelowGradKey(c10::DispatchKeySet::FULL_AFTER, kGradKey);

// A spare backend with an Autograd key of its own, for which PyTorch registers its derivative
// kernels: autograd can record on a wrapper and comes back to us below.
inline constexpr auto kBackKey = c10::DispatchKey::PrivateUse3;
inline constexpr auto kTapeKey = c10::DispatchKey::AutogradPrivateUse3;

// Never dispatched to, since the front kernel of every operator redispatches to keys it names. It
// tells PyTorch's derivative formulas and its engine not to write in place into tensors of theirs
// (`at::isTensorSubclassLike` asks for it). Of all that function asks for, the backend of meta
// tensors is what no other part of PyTorch takes for a promise about the class of the TensorImpl:
// whether a tensor is a meta tensor, it reads off the device.
inline constexpr c10::DispatchKeySet kInertBackend =
    c10::DispatchKeySet(c10::BackendComponent::MetaBit);

inline constexpr c10::DispatchKeySet kWrapperKeys =
    c10::DispatchKeySet(kFrontKey) | c10::DispatchKeySet(kBackKey) | kInertBackend;

// On tensors that wrap others, as ours do, in other parts of PyTorch; what they wrap may be ours.
inline constexpr c10::DispatchKeySet kForeignWrapperKeys =
    c10::DispatchKeySet({c10::DispatchKey::Functionalize, c10::DispatchKey::FuncTorchGradWrapper,
                         c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::Python});

// A backend for which nobody registers kernels. An operator sent there runs the kernel that PyTorch
// has for any backend (CompositeExplicitAutograd), which is written in other operators.
inline constexpr auto kGenericKey = c10::DispatchKey::PrivateUse2;

// What an operator is redispatched to when autograd has to record it on the wrapper. An explicit
// key set is not masked for fallthrough, so ADInplaceOrView may only be there for operators that
// have a kernel at that key.
inline constexpr c10::DispatchKeySet kTapeKeys =
    c10::DispatchKeySet(kBackKey) | c10::DispatchKeySet(kTapeKey);
inline constexpr c10::DispatchKeySet kViewTapeKeys =
    kTapeKeys | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView);

}  // namespace functx
