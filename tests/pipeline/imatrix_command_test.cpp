// `salient imatrix` as a user runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "common/json.h"
#include "models/gguf/imatrix.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kData = fs::path(SALIENT_SOURCE_DIR) / "models/demo/data";

class ImatrixCommand : public ::testing::Test {
 protected:
  test::ProgramResult run(const std::string& calibration) const {
    return test::run_program({"imatrix", "--model", test::kDemoModel.string(), "--calib", calibration, "--out", out().string(),
                              "--samples", "8", "--max-seq-len", "64", "--json"},
                             folder_.path());
  }
  fs::path out() const { return folder_.path() / "demo.imatrix"; }
  test::TemporaryFolder folder_;
};

TEST_F(ImatrixCommand, NamesEveryFileThatItMeasured) {
  const std::string both = (kData / "openmath_train.jsonl").string() + ":2," + (kData / "squad_train.jsonl").string() + ":1";
  const test::ProgramResult result = run(both);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const models::Imatrix found = models::read_imatrix(out());
  EXPECT_THAT(found.datasets, ElementsAre("openmath_train.jsonl", "squad_train.jsonl"));
  const Json printed = parse_json(result.out, "output");
  EXPECT_EQ(printed.at("entries"), 28);
  EXPECT_EQ(found.entries.size(), 28u);
  EXPECT_EQ(printed.at("tokens"), static_cast<int64_t>(found.entries.at("blk.0.attn_q.weight").counts[0].item<float>()));
  EXPECT_FALSE(fs::exists(out().string() + ".partial"));
}

TEST_F(ImatrixCommand, WhatIsThereStays) {
  write_file(out(), "precious");
  const std::string calibration = (kData / "squad_train.jsonl").string();
  const test::ProgramResult exists = run(calibration);
  EXPECT_EQ(exists.exit_code, 2);
  EXPECT_THAT(exists.err, HasSubstr("exists already"));
  EXPECT_EQ(read_text_file(out()), "precious");
  fs::remove(out());
  // The hidden states of a stopped quantization, say.
  write_file(out().string() + ".partial/hidden_0.bin", "precious");
  const test::ProgramResult work = run(calibration);
  EXPECT_EQ(work.exit_code, 2);
  EXPECT_THAT(work.err, HasSubstr("hidden_0.bin"));
  EXPECT_EQ(read_text_file(out().string() + ".partial/hidden_0.bin"), "precious");
}

}  // namespace
}  // namespace salient::pipeline
