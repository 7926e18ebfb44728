// The backend of a group of one rank, which other backends use when a split leaves a rank alone.
#pragma once

#include "comm/backend.h"

namespace trireme {

std::shared_ptr<Backend> make_self_backend(GroupInfo group, std::string host);

// The name of this host up to the first dot, for messages.
std::string host_name();

}  // namespace trireme
