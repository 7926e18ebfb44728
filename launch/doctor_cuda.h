// The CUDA devices of a job, for `trireme doctor`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "comm/communicator.h"
#include "launch/host_facts.h"
#include "tensor/cuda/devices.h"
#include "tensor/memory_rate.h"
#include "trainer/machine_rates.h"

namespace trireme {

struct CudaFacts {
  std::string unavailable;  // why rank 0 has no device; what follows is then empty
  struct Device {
    cuda::DeviceProperties properties;
    size_t free_bytes = 0;
  };
  std::vector<Device> devices;  // that rank 0's process sees
  struct Link {
    int from = 0, to = 0;
    cuda::PeerLink link;
  };
  std::vector<Link> links;  // between each two of them
  cuda::Versions versions;
  std::string nccl;          // "2.28.9 (/usr/lib/libnccl.so.2)", or why there is none
  bool has_nccl = false;
  std::string exchange;      // how the job's ranks exchange tensors on devices; "" for a rank alone
  std::string shared;        // ranks that share a device, or ""
  // Of rank 0's device, all ranks at work at once.
  double gemm_bf16 = 0, gemm_f32 = 0;  // FLOP/s
  double copy = 0;                     // bytes/s on the device, read and written together
  HostLinkRate host_link;
  std::optional<GroupRates> group;     // collectives of tensors on devices, over all ranks
};

// Facts of rank 0, on all ranks measured. Collective.
CudaFacts measure_cuda(Communicator& world);

void print_text(const CudaFacts& facts);
boost::json::object to_json_object(const CudaFacts& facts);
std::vector<Finding> find_problems(const CudaFacts& facts);

}  // namespace trireme
