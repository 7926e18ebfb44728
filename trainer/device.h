// Which device a rank computes on: run.device, and generate's --device.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "tensor/device.h"
#include "trainer/run_config.h"

namespace trireme {

struct ChosenDevice {
  Device device;
  // For people: "cuda:0 (NVIDIA H100 80GB HBM3, 79.1 GiB); ranks exchange tensors by NCCL ...", or "cpu" and why not cuda.
  std::string description;
  std::string warning;       // one line, or empty: ranks that share a device
  size_t memory_bytes = 0;   // of a CUDA device
};

// The CPU, or the CUDA device of this rank, which the calling thread selects: one a rank, by the rank's index on its host,
// and in turn where a host has more ranks than devices. kAuto is CUDA if every rank's host has a device.
// Throws ConfigError, the same on all ranks, if CUDA is asked for (by `option`, for the message: "run.device") and some rank
// has none, with the reason. Connects `world`, and what is split off it later, for the devices. Collective over `world`.
ChosenDevice choose_device(DeviceChoice choice, const char* option, Communicator& world);

// Throws ConfigError, with what to do, unless products on `device` can be computed so here (run.matmul_precision).
void require_precision(MatmulPrecision precision, Device device);

}  // namespace trireme
