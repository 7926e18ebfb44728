// How many OpenMP threads the calling thread's kernels use. A setting of the calling thread, as OpenMP has it.
#pragma once

namespace trireme {

void set_num_threads(int n);  // REQUIRES: n >= 1
int num_threads();
// The cores that this process may run on, shared evenly by `ranks` processes of the host; at least 1.
int threads_for(int ranks);

}  // namespace trireme
