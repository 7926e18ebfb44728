// Optimizer steps over flat arrays; contracts as in tensor/cpu/adamw.h and tensor/ops/adamw.h, pointers to device
// memory, enqueued on stream().
#pragma once

#include <span>

#include "tensor/cpu/adamw.h"

namespace trireme::cuda {

// Moves 28 bytes an element, and those of the copy.
void adamw(const cpu::AdamwArgs& a);
// Moves 20 bytes an element with momentum, 12 without, and those of the copy.
void sgd(const cpu::SgdArgs& a);

// The same for many arrays that do not overlap, up to 32 of them in one launch: a bucket of small weights costs one.
void adamw_spans(std::span<const cpu::AdamwArgs> spans);
void sgd_spans(std::span<const cpu::SgdArgs> spans);

}  // namespace trireme::cuda
