#include "trainer/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>

#include "tests/test_data.h"
#include "tests/trainer/event_reader.h"
#include "tests/trainer/metrics_samples.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

TEST(Crc32c, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, HoldsTheVersionThenARestartThenTheScalars) {
  TempDir dir;
  std::ostringstream out;
  {
    Reporter reporter(dir.path(), only(true, false), 1000, 0, &out);
    reporter.step(step_at(3), true);
    reporter.step(step_at(4), false);
    reporter.evaluation({300, 2.5, true});
  }
  ASSERT_EQ(event_files(dir.path()).size(), 1u);
  const std::vector<ParsedEvent> events = parse_event_file(event_files(dir.path())[0]);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[1].session_status, 1);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[2].step, 3);
  EXPECT_GT(events[2].wall_time, 1.6e9);
  const std::map<std::string, float> want = {{"train/loss", 5.0625f},
                                             {"train/learning_rate", 3e-4f},
                                             {"train/grad_norm", 1.25f},
                                             {"train/tokens_per_s", 12345.f},
                                             {"train/mfu", 0.4125f}};
  EXPECT_EQ(events[2].scalars, want);
  EXPECT_EQ(events[3].step, 300);  // a varint of two bytes
  EXPECT_EQ(events[3].scalars, (std::map<std::string, float>{{"validation/loss", 2.5f},
                                                             {"validation/perplexity", std::exp(2.5f)}}));
}

TEST(EventFile, AResumedRunWritesANewFileThatVoidsLaterSteps) {
  TempDir dir;
  std::ostringstream out;
  { Reporter reporter(dir.path(), only(true, false), 1000, 0, &out); }
  { Reporter reporter(dir.path(), only(true, false), 1000, 40, &out); }
  const std::vector<fs::path> files = event_files(dir.path());
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(parse_event_file(files[1]).at(1).session_status, 1);
  EXPECT_EQ(parse_event_file(files[1]).at(1).step, 41);
}

}  // namespace
}  // namespace trireme::testing
