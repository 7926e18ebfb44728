#include "trainer/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "tests/test_data.h"
#include "tests/trainer/metrics_samples.h"

namespace trireme::testing {
namespace {

TEST(Progress, PlainLinesAreOneALoggedStep) {
  TempDir dir;
  std::ostringstream out;
  Reporter reporter(dir.path(), only(false, false), 100, 0, &out);
  StepMetrics skipped = step_at(3);
  skipped.mfu = 0;
  skipped.skipped = true;
  reporter.step(step_at(1), true);
  reporter.step(step_at(2), false);
  reporter.step(skipped, true);
  reporter.evaluation({3, 2.5, true});
  reporter.note("saved");
  reporter.warning("slow");
  EXPECT_EQ(out.str(),
            "step 1/100  loss 5.1875  lr 3.00e-04  grad 1.25  12.3k tok/s  MFU 41.2%  1.50 GiB  ETA 0:12:03\n"
            "step 3/100  loss 5.0625  lr 3.00e-04  grad 1.25  12.3k tok/s  1.50 GiB  ETA 0:12:03  skipped\n"
            "step 3  validation loss 2.5000  perplexity 12.18  best so far\n"
            "saved\n"
            "warning: slow\n");
}

TEST(Progress, TheBarIsRedrawnInPlaceWithNotesAboveIt) {
  std::ostringstream out;
  {
    Progress progress(out, ProgressStyle::kBar, 10, 60);
    progress.step(step_at(5), true);
    const std::string bar = "\r\033[K[==========          ] 5/10  loss 4.9375  lr 3.00e-04  grad";
    EXPECT_EQ(out.str(), bar.substr(0, 4 + 59));
    progress.line("a note");
    EXPECT_EQ(out.str(), bar.substr(0, 63) + "\r\033[Ka note\n" + bar.substr(0, 63));
    out.str("");
    progress.step(step_at(10), true);
    EXPECT_TRUE(out.str().starts_with("\r\033[K[====================] 10/10"));
    EXPECT_EQ(count(out.str(), "\n"), 0u);
  }
  EXPECT_TRUE(out.str().ends_with("\n"));  // what comes next starts a line of its own
}

TEST(Progress, NoneShowsNotesAlone) {
  std::ostringstream out;
  Progress progress(out, ProgressStyle::kNone, 10, 60);
  progress.step(step_at(5), true);
  progress.evaluation({5, 2.5, true});
  progress.line("a note");
  EXPECT_EQ(out.str(), "a note\n");
}

TEST(Progress, TextOfAModelCannotSteerTheTerminal) {
  EXPECT_EQ(printable("a\033[2Jb\r\n\tc\x7f\xc2\x9b \xc3\xa9\xc2"), "a?[2Jb?\n\tc?? \xc3\xa9\xc2");
}

TEST(Progress, FormatsCountsBytesAndTimes) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999.4), "999");
  EXPECT_EQ(format_count(999.6), "1.00k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(999600), "1.00M");
  EXPECT_EQ(format_count(7.891e9), "7.89G");
  EXPECT_EQ(format_count(5e15), "5000T");
  EXPECT_EQ(format_bytes(size_t{512} << 20), "512 MiB");
  EXPECT_EQ(format_bytes(size_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(format_duration(65), "0:01:05");
  EXPECT_EQ(format_duration(97200), "27:00:00");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

}  // namespace
}  // namespace trireme::testing
