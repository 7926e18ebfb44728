#include "comm/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

namespace trireme::nccl {
namespace {

constexpr int kOldestVersion = 21300;  // the first with ncclGetLastError

std::vector<std::string> places() {
  std::vector<std::string> files;
  for (const char* name : {"NCCL_ROOT", "NCCL_HOME"})
    if (const char* folder = std::getenv(name); folder && *folder)
      for (const char* below : {"/lib/", "/lib64/", "/"}) files.push_back(std::string(folder) + below + "libnccl.so.2");
  files.push_back("libnccl.so.2");
#ifdef TRIREME_NCCL_LIBRARY
  files.push_back(TRIREME_NCCL_LIBRARY);
#endif
  return files;
}

template <class F>
bool find(void* handle, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  return function != nullptr;
}

Loaded load() {
  Loaded result;
  Library& library = result.library;
  void* handle = nullptr;
  std::string why;
  for (const std::string& file : places()) {
    handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle) break;
    if (why.empty() || file == "libnccl.so.2") why = dlerror();
  }
  if (!handle) {
    library.problem = "NCCL was not loaded (" + why + "); set NCCL_HOME to the folder whose lib has libnccl.so.2";
    return result;
  }
  Functions& f = result.functions;
  const char* lacks = nullptr;
  const auto need = [&](const char* name, auto& function) {
    if (!find(handle, name, function) && !lacks) lacks = name;
  };
  need("ncclGetVersion", f.get_version);
  need("ncclGetErrorString", f.error_string);
  need("ncclGetLastError", f.last_error);
  need("ncclGetUniqueId", f.unique_id);
  need("ncclCommInitRank", f.init_rank);
  need("ncclCommDestroy", f.destroy);
  need("ncclCommAbort", f.abort);
  need("ncclCommGetAsyncError", f.async_error);
  need("ncclAllReduce", f.all_reduce);
  need("ncclAllGather", f.all_gather);
  need("ncclReduceScatter", f.reduce_scatter);
  need("ncclBroadcast", f.broadcast);
  need("ncclSend", f.send);
  need("ncclRecv", f.recv);
  need("ncclGroupStart", f.group_start);
  need("ncclGroupEnd", f.group_end);
  Dl_info place;
  if (f.get_version && dladdr(reinterpret_cast<void*>(f.get_version), &place) && place.dli_fname)
    library.path = place.dli_fname;
  if (lacks) {
    library.problem = library.path + " has no " + lacks + "; NCCL 2.13 or later is needed";
    return result;
  }
  int version = 0;
  if (f.get_version(&version) != ncclSuccess || version < kOldestVersion) {
    library.problem = library.path + " is version " + version_text(version) + "; NCCL 2.13 or later is needed";
    return result;
  }
  library.version = version;
  return result;  // the handle is never closed: communicators may outlive whoever asked
}

}  // namespace

const Loaded& loaded() {
  static const Loaded result = load();
  return result;
}

}  // namespace trireme::nccl
