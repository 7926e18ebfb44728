// How the ranks of a group lie on hosts.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace trireme {

struct HostLayout {
  std::vector<std::vector<int>> hosts;  // the group's ranks on each, in order; hosts in the order of their first ranks
  int host = 0, index = 0;              // this rank is hosts[host][index]

  static HostLayout of(const std::vector<std::string>& host_of_rank, int rank) {
    HostLayout layout;
    std::vector<std::string> names;
    for (size_t r = 0; r < host_of_rank.size(); ++r) {
      const size_t h = std::find(names.begin(), names.end(), host_of_rank[r]) - names.begin();
      if (h == names.size()) {
        names.push_back(host_of_rank[r]);
        layout.hosts.emplace_back();
      }
      if (static_cast<int>(r) == rank) {
        layout.host = static_cast<int>(h);
        layout.index = static_cast<int>(layout.hosts[h].size());
      }
      layout.hosts[h].push_back(static_cast<int>(r));
    }
    return layout;
  }

  const std::vector<int>& here() const { return hosts[host]; }
  size_t fewest() const { return std::min_element(hosts.begin(), hosts.end(), fewer)->size(); }
  size_t most() const { return std::max_element(hosts.begin(), hosts.end(), fewer)->size(); }

 private:
  static bool fewer(const std::vector<int>& a, const std::vector<int>& b) { return a.size() < b.size(); }
};

}  // namespace trireme
