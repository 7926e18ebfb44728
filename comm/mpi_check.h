// MPI's error codes as exceptions. Every communicator of ours returns its errors (MPI_ERRORS_RETURN).
#pragma once

#include <mpi.h>

#include <string>
#include <string_view>

#include "base/error.h"

namespace trireme {

inline std::string mpi_error_text(int code) {
  char message[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, message, &length) != MPI_SUCCESS) return text("MPI error ", code);
  return std::string(message, length);
}

// Throws CommError "label: call: what MPI says" unless code is MPI_SUCCESS.
inline void check_mpi(int code, std::string_view call, std::string_view label = {}) {
  if (code == MPI_SUCCESS) return;
  throw CommError(text(label, label.empty() ? "" : ": ", call, ": ", mpi_error_text(code)));
}

}  // namespace trireme
