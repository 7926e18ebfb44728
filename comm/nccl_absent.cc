// Programs without NCCL: no CUDA, or NCCL's header was not found when they were configured.
#include "base/error.h"
#include "comm/nccl.h"

namespace trireme::nccl {

const Library& library() {
  static const Library none{0, "", "this program was built without NCCL; configure it where nccl.h is found, or set "
                                   "TRIREME_NCCL_INCLUDE_DIR"};
  return none;
}
std::string version_text(int) { return "none"; }
std::string device_identity() { return ""; }
std::unique_ptr<DeviceWay> make_way(std::shared_ptr<Backend>) { throw ConfigError(library().problem); }

}  // namespace trireme::nccl
