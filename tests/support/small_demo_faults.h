// The beginning of every fault test: the small demo as what is read, and a scenario that reads it.
#pragma once

#include <gtest/gtest.h>

#include "support/fault_campaign.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {

// Skips, with the reason, where faults cannot be injected (builds with sanitizers).
class SmallDemoFaults : public testing::Test {
 protected:
  void SetUp() override {
    if (!FaultProgram::missing().empty()) GTEST_SKIP() << FaultProgram::missing();
    write_small_demo(inputs_.path());
    scenario_.inputs = inputs_.path();
  }

  TemporaryFolder inputs_;
  FaultScenario scenario_;
};

}  // namespace salient::test
