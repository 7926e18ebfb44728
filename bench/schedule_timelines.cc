// Draws the pipeline schedules, simulated: schedule_timelines STAGES MICRO_BATCHES CHUNKS FOLDER writes one SVG for each
// schedule and prints their bubbles. docs/images/timeline.svg is 1f1b's of "4 8 2".
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "parallel/timeline.h"

int main(int argc, char** argv) {
  using namespace trireme;
  if (argc != 5) {
    std::fprintf(stderr, "usage: schedule_timelines STAGES MICRO_BATCHES CHUNKS FOLDER\n");
    return 2;
  }
  try {
    const std::filesystem::path folder = argv[4];
    std::filesystem::create_directories(folder);
    for (const std::string& name : schedule_names()) {
      const int chunks = name == "interleaved" ? std::atoi(argv[3]) : 1;
      const Schedule schedule = make_schedule(name, {std::atoi(argv[1]), std::atoi(argv[2]), chunks});
      const Simulation simulation = simulate(schedule);
      write_file_atomically(folder / (name + ".svg"), timeline_svg(schedule.shape, simulation, {.title = timeline_title(schedule)}));
      std::printf("%-12s bubble %5.1f %%  %s\n", name.c_str(), 100 * simulation.bubble_fraction,
                  (folder / (name + ".svg")).c_str());
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "schedule_timelines: %s\n", e.what());
    return 2;
  }
  return 0;
}
