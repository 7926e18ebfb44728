#include "parallel/mesh.h"

namespace trireme {

std::string to_string(const MeshShape& shape) {
  std::string s;
  const std::pair<const char*, int> axes[] = {
      {"pp", shape.pp}, {"dp", shape.dp}, {"cp", shape.cp}, {"ep", shape.ep}, {"tp", shape.tp}};
  for (auto [name, size] : axes)
    if (size > 1) s += (s.empty() ? "" : " ") + std::string(name) + "=" + std::to_string(size);
  return s.empty() ? "1 rank" : s;
}

Mesh::Mesh(Communicator& world, const MeshShape& shape) : shape_(shape), world_(world) {
  check<ConfigError>(shape.cp == 1, "parallel.context=", shape.cp, " is not supported; use 1");
  check<ConfigError>(shape.ep == 1, "parallel.expert=", shape.ep, " is not supported; use 1");
  check<ConfigError>(shape.pp >= 1 && shape.dp >= 1 && shape.tp >= 1, "parallel: every axis is at least 1, got ",
                     to_string(shape));
  check<ConfigError>(shape.world() == world.size(), "the layout ", to_string(shape), " wants ", shape.world(),
                     " ranks, the job has ", world.size(), "; start as many ranks or change parallel.*");
  const int rank = world.rank();
  const int tp = rank % shape.tp, dp = rank / shape.tp % shape.dp, pp = rank / (shape.tp * shape.dp);
  tp_ = world.split(pp * shape.dp + dp, tp, "tp");
  dp_ = world.split(pp * shape.tp + tp, dp, "dp");
  pp_ = world.split(dp * shape.tp + tp, pp, "pp");
  if (shape.pp > 1) {
    const bool end = pp == 0 || pp == shape.pp - 1;
    auto ends = pp_->split(end ? 0 : 1, pp, "pipeline ends");
    if (end) ends_ = std::move(ends);
  }
}

void Mesh::use(const CollectiveTable& table) const {
  for (Communicator* comm : {&world_, tp_.get(), dp_.get(), pp_.get(), ends_.get()})
    if (comm) comm->use(table);
}

}  // namespace trireme
