// Tensors on devices by NCCL. Needs no toolkit header to include; programs without NCCL's header have nccl_absent.cc in
// place of nccl.cc (see trireme_backend in tensor/CMakeLists.txt and comm/CMakeLists.txt).
//
// The library itself is looked for when a run first asks, so that a program starts, and computes, where there is none.
#pragma once

#include <memory>
#include <string>

#include "comm/device_way.h"

namespace trireme::nccl {

struct Library {
  int version = 0;      // 22809 is 2.28.9; 0: not usable
  std::string path;     // of the file that was loaded
  std::string problem;  // why it is not usable
};
// Loads libnccl.so.2: from $NCCL_ROOT or $NCCL_HOME (lib, lib64, or the folder itself), where the system's loader finds it,
// or where it was when the program was configured. Never downloads. The same answer at every call.
const Library& library();
std::string version_text(int version);  // "2.28.9"

// What tells the selected device from all others that NCCL can tell it from: NCCL_HOSTID or the host's name, and the bus.
std::string device_identity();

// REQUIRES: library() is usable on all ranks of `host`, and their device_identity() differ. Not a collective: NCCL's
// communicator is for the device that is selected now, is made in the first call of run(), and destroyed with this, which
// waits for the device; after an error it is aborted and left.
//
// Calls are enqueued and run() returns. Calls from several threads' streams run one after another, in the order of run().
// The first call of each kind, dtype, operation and shape is compared over the ranks by `host`; later ones are not: ranks
// that differ then hang, and the watchdog says what each of them called.
// Sums are NCCL's own: orders, and for bf16 and f16 the number of roundings, depend on its algorithm, size, links and
// number of ranks; two runs with all of these alike give the same bits, and all ranks get the same. kMax and kMin may
// give the number where some ranks have NaN.
// Messages go through host memory.
std::unique_ptr<DeviceWay> make_way(std::shared_ptr<Backend> host);

}  // namespace trireme::nccl
