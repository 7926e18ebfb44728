// The CUDA runtime as the files of this folder use it; devices.h is what others include. Only the runtime API is
// called, and it is linked statically, so that a program starts without a driver.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace trireme::cuda {

// Every kernel and copy goes here: the calling thread's own stream on the device it has selected. So a rank, which is
// a thread or a process, has its work in order, and ranks do not wait for each other.
inline cudaStream_t stream() { return cudaStreamPerThread; }

// Names the calling thread's streams. Not the thread's id, which a later thread may have again.
uint64_t stream_id();

// Throws CudaError("what: cudaErrorName: text") for anything but success, and clears the error where CUDA lets it be
// cleared (a kernel that failed leaves the process unable to use the device).
void check(cudaError_t result, const char* what);

// After kernel<<<...>>>(...): throws if the launch was refused. Says nothing of how the kernel ended.
void check_launch(const char* kernel);

// Of the selected device, for the sizes of grids.
int multiprocessors();

}  // namespace trireme::cuda
