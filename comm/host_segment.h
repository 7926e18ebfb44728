// A piece of memory shared by processes of one host. It has no name in the file system, and ends with the last of them.
#pragma once

#include <mpi.h>

#include <memory>

namespace trireme {

// Maps num_bytes of zeroed memory into every process of `comm`. Collective. Null, on all of them, where they do not all
// run on one host or the system refuses.
std::shared_ptr<void> map_host_segment(MPI_Comm comm, size_t num_bytes);

}  // namespace trireme
