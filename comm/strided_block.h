// Blocks of `bytes` that stand `stride` bytes apart, as an MPI type: strides need not fit an int.
#pragma once

#include <mpi.h>

#include <string>

#include "comm/mpi_check.h"

namespace trireme {

class StridedBlock {
 public:
  StridedBlock(size_t bytes, size_t stride, const std::string& label) {
    MPI_Datatype block;
    check_mpi(MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &block), "MPI_Type_contiguous", label);
    const int code = MPI_Type_create_resized(block, 0, static_cast<MPI_Aint>(stride), &type_);
    MPI_Type_free(&block);
    check_mpi(code, "MPI_Type_create_resized", label);
    check_mpi(MPI_Type_commit(&type_), "MPI_Type_commit", label);
  }
  ~StridedBlock() {
    if (type_ != MPI_DATATYPE_NULL) MPI_Type_free(&type_);
  }
  StridedBlock(const StridedBlock&) = delete;
  MPI_Datatype get() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

}  // namespace trireme
