#include "trainer/device.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "tensor/cuda/devices.h"
#include "trainer/agreed.h"
#include "trainer/machine_rates.h"

namespace trireme {
namespace {

std::string gibibytes(size_t bytes) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f GiB", static_cast<double>(bytes) / (size_t{1} << 30));
  return out;
}

// Whether each rank has a device. What is wrong with a driver, other than that there is none, is an error of kCuda alone.
bool all_have_cuda(DeviceChoice choice, const char* option, Communicator& world, std::string& why_not) {
  if (choice == DeviceChoice::kCuda) {
    agreed(world, [&] {
      check<ConfigError>(cuda::device_count() > 0, option, "=cuda: ", cuda::unavailable_reason(), "; use ", option, "=cpu");
    });
    return true;
  }
  try {
    if (cuda::device_count() == 0) why_not = cuda::unavailable_reason();
  } catch (const cuda::CudaError& e) {
    why_not = e.what();
  }
  const std::vector<std::string> all = world.all_gather_strings(why_not);
  const auto without = std::find_if(all.begin(), all.end(), [](const std::string& s) { return !s.empty(); });
  if (without == all.end()) return true;
  why_not = *without;
  return false;
}

}  // namespace

ChosenDevice choose_device(DeviceChoice choice, const char* option, Communicator& world) {
  if (choice == DeviceChoice::kCpu) return {Device::cpu(), "cpu", "", 0};
  std::string why_not;
  if (!all_have_cuda(choice, option, world, why_not)) return {Device::cpu(), text("cpu (", why_not, ")"), "", 0};

  const HostPlace place = host_place(world);
  ChosenDevice chosen;
  std::string uuid;
  agreed(world, [&] {
    const int index = place.rank_on_host % cuda::device_count();
    cuda::select_device(index);
    const cuda::DeviceProperties properties = cuda::device_properties(index);
    chosen.device = {DeviceKind::kCuda, index, nullptr};
    chosen.memory_bytes = properties.memory_bytes;
    chosen.description = text(chosen.device, " (", properties.name, ", ", gibibytes(properties.memory_bytes), ")");
    uuid = properties.uuid;
  });
  // Not by their number: a launcher may show each process a device of its own.
  const std::vector<std::string> uuids = world.all_gather_strings(uuid);
  const size_t devices = std::set<std::string>(uuids.begin(), uuids.end()).size();
  if (devices < uuids.size())
    chosen.warning = text(uuids.size(), " ranks share ", devices, devices == 1 ? " CUDA device" : " CUDA devices",
                          ", which compute for one after another; start one rank a device");
  if (world.size() > 1) chosen.description += text("; ranks exchange tensors by ", world.connect_devices());
  return chosen;
}

void require_precision(MatmulPrecision precision, Device device) {
  if (available(precision, device.kind)) return;
  check<ConfigError>(device.kind == DeviceKind::kCpu, "run.matmul_precision=", name_of(precision), " is for the cpu, and this "
                     "run computes on ", device, "; use run.matmul_precision=f32 or tf32, or run.device=cpu");
  throw ConfigError(text("run.matmul_precision=", name_of(precision),
                         precision == MatmulPrecision::kTf32 ? " needs " : " needs a processor with ", hardware_for(precision),
                         ", which this host has not (or its system withholds it, or TRIREME_ISA hides it); use "
                         "run.matmul_precision=f32"));
}

}  // namespace trireme
