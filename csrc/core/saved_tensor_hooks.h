// Saved-tensor hooks, of a checkpoint around us for example, are not for tapes of our own.
#pragma once

#include <ATen/SavedTensorHooks.h>

namespace functx {

// While it lives no hooks get what a tape saves.
class NoSavedTensorHooks {
 public:
  NoSavedTensorHooks() : outside_(at::SavedTensorDefaultHooks::get_tls_state()) {
    at::SavedTensorDefaultHooks::set_tls_state({});
  }
  ~NoSavedTensorHooks() { at::SavedTensorDefaultHooks::set_tls_state(outside_); }
  NoSavedTensorHooks(const NoSavedTensorHooks&) = delete;
  NoSavedTensorHooks& operator=(const NoSavedTensorHooks&) = delete;

 private:
  at::impl::SavedTensorDefaultHooksTLS outside_;
};

}  // namespace functx
