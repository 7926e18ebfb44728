// A line of a benchmark's output for programs, which bench/run_all makes its table of:
//   row|bench|what|ours|floor|time over floor|peer|peer's figure|peer's time over ours
// Figures are text with their unit; a ratio of times is above 1 where the first is slower. What is not known is "-".
#pragma once

#include <cstdio>
#include <string>

namespace trireme {

struct BenchRow {
  std::string bench = {}, what = {};
  double ours_s = 0;    // seconds of one call
  double floor_s = 0;   // 0: none
  std::string peer = {};  // "": none
  double peer_s = 0;
  std::string ours = {}, floor = {};  // "" : the seconds; else another figure, e.g. "310 GF/s"
};

inline std::string bench_time(double seconds) {
  char out[32];
  const double us = seconds * 1e6;
  std::snprintf(out, sizeof out, us < 1000 ? "%.1f us" : us < 1e6 ? "%.2f ms" : "%.3f s",
                us < 1000 ? us : us < 1e6 ? us / 1e3 : seconds);
  return out;
}

inline void print_row(const BenchRow& r) {
  const auto ratio = [](double a, double b) {
    char out[32];
    std::snprintf(out, sizeof out, "%.2f", a / b);
    return a > 0 && b > 0 ? std::string(out) : std::string("-");
  };
  std::printf("row|%s|%s|%s|%s|%s|%s|%s|%s\n", r.bench.c_str(), r.what.c_str(),
              (r.ours.empty() ? bench_time(r.ours_s) : r.ours).c_str(),
              (r.floor_s <= 0 ? "-" : r.floor.empty() ? bench_time(r.floor_s) : r.floor).c_str(),
              ratio(r.ours_s, r.floor_s).c_str(), r.peer.empty() ? "-" : r.peer.c_str(),
              r.peer.empty() ? "-" : bench_time(r.peer_s).c_str(), ratio(r.peer_s, r.ours_s).c_str());
  std::fflush(stdout);
}

}  // namespace trireme
