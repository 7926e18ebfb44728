// Pictures of a schedule: a row for each stage, a box for each action, gaps for the bubble. From the
// simulator's times or from those of a run (summarize() in simulator.h), as SVG or for the terminal.
#pragma once

#include <string>

#include "parallel/simulator.h"

namespace trireme {

struct TimelineOptions {
  std::string title;  // empty: the shape
  std::string time_unit = "ticks";
  double width_px = 0;  // of the SVG; 0: from the number of boxes, at most 1700
};

// Boxes coloured by pass, lighter for later chunks, with the micro-batch's number inside where there is room,
// and what it is as a tooltip. Bubble and activations held stand at the right of each row, those of the whole
// under the title. Throws ConfigError above 50000 actions, or for a width outside 300 .. 20000 other than 0.
std::string timeline_svg(const ScheduleShape& shape, const Simulation& times,
                         const TimelineOptions& options = {});

// The same in at most about `columns` characters a row: F forward, B backward (of the inputs, where W, of the
// weights, is apart), then the micro-batch's number and, with several chunks, the chunk's letter from a; dots
// where the stage waits. Plain ASCII. Ends with a new line. `columns` below 40 is raised to 40.
std::string timeline_text(const ScheduleShape& shape, const Simulation& times,
                          const TimelineOptions& options = {}, int columns = 120);

// "1f1b, 4 stages, 8 micro-batches": a title for a schedule's timeline.
std::string timeline_title(const Schedule& schedule);

}  // namespace trireme
