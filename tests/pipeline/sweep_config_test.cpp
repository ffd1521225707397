#include "pipeline/sweep/sweep_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class SweepConfigTest : public testing::Test {
 protected:
  SweepConfigTest() {
    write_file(run(), "model: {path: " SALIENT_SOURCE_DIR
                      "/models/demo}\ncalibration: {samples: 16}\noutput: {folder: out, store: my.db}\n");
  }

  fs::path run() const { return folder_.path() / "run.yaml"; }
  SweepConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    write_file(folder_.path() / "mine.yaml", "run: " + run().string() + "\n" + text);
    return load_sweep_config(folder_.path() / "mine.yaml", overrides);
  }
  static std::vector<std::string> names(const SweepConfig& config) {
    std::vector<std::string> names;
    for (const SweepPoint& point : config.points) names.push_back(point.name);
    return names;
  }
  std::string error(const std::string& text) const {
    try {
      load(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.message();
      return error.message();
    }
    ADD_FAILURE() << "no error: " << text;
    return "";
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(SweepConfigTest, AGridIsEveryCombination) {
  const SweepConfig config = load(
      "set: {quantization.propagate_error: false}\n"
      "grid: {quantization.group_size: [32, 64], calibration.samples: [8, auto, 24]}\n");
  EXPECT_EQ(config.name, "mine");
  EXPECT_THAT(names(config), ElementsAre("group_size=32,samples=8", "group_size=32,samples=auto", "group_size=32,samples=24",
                                         "group_size=64,samples=8", "group_size=64,samples=auto", "group_size=64,samples=24"));
  EXPECT_THAT(config.keys, ElementsAre("quantization.group_size", "calibration.samples"));
  EXPECT_EQ(config.folder, "out/sweeps/mine");
  EXPECT_EQ(config.store, "my.db");
  for (const SweepPoint& point : config.points) {
    EXPECT_EQ(point.run.name, "mine/" + point.name);
    EXPECT_EQ(point.run.output_folder, config.folder / point.name);
    EXPECT_EQ(point.run.store, "my.db");
    EXPECT_FALSE(point.run.quantization.awq.propagate_error);
    EXPECT_FALSE(point.seed.has_value());
  }
  EXPECT_EQ(config.points[2].run.quantization.awq.spec.group_size, 32);
  EXPECT_EQ(config.points[2].run.calibration.samples, 24);
  EXPECT_EQ(config.points[1].run.calibration.samples, std::nullopt);
  EXPECT_EQ(config.points[5].run.quantization.awq.spec.group_size, 64);
}

TEST_F(SweepConfigTest, PointsStandBesideTheGridAndSeedsRepeatAll) {
  const SweepConfig config = load(
      "grid: {quantization.group_size: [32, 64]}\n"
      "points:\n  - {quantization.bits: 8, quantization.clip: false}\n  - {quantization.overrides: [{pattern: down_proj, bits: "
      "8}]}\n"
      "seeds: [1, 2]\noutput: {folder: here, store: other.db}\n");
  ASSERT_EQ(config.points.size(), 8u);
  EXPECT_EQ(config.points[0].name, "group_size=32,seed=1");
  EXPECT_EQ(config.points[5].name, "bits=8,clip=false,seed=2");
  EXPECT_THAT(config.points[6].name, testing::MatchesRegex("overrides=[0-9a-f]{8},seed=1"));
  EXPECT_EQ(config.points[6].run.quantization.awq.overrides.size(), 1u);
  EXPECT_EQ(config.points[5].run.calibration.seed, 2u);
  EXPECT_EQ(config.points[5].seed, 2u);
  EXPECT_EQ(config.folder, "here");
  EXPECT_EQ(config.store, "other.db");
  const std::set<std::string> different = [&] {
    std::set<std::string> found;
    for (const std::string& name : names(config)) found.insert(name);
    return found;
  }();
  EXPECT_EQ(different.size(), 8u);
}

TEST_F(SweepConfigTest, EqualPointsAreOne) {
  const SweepConfig config =
      load("grid: {quantization.group_size: [128, 64, 128]}\npoints: [{quantization.bits: 4}, {calibration.samples: 16}]\n");
  // 128, 4 bits and 16 rows are what the run has anyway.
  EXPECT_THAT(names(config), ElementsAre("group_size=128", "group_size=64"));
  EXPECT_THAT(config.duplicates, ElementsAre("group_size=128", "bits=4", "samples=16"));
}

TEST_F(SweepConfigTest, KeysOfTheSameLastPartStayWhole) {
  const SweepConfig config =
      load("points: [{dataset.name: a}, {quantization.bits: 8}]\ngrid: {calibration.file: [x, y]}\n", {"loss=retention"});
  EXPECT_EQ(config.loss, "retention");
  EXPECT_EQ(short_key("a.name", {"a.name", "b.name", "c.bits"}), "a.name");
  EXPECT_EQ(short_key("c.bits", {"a.name", "b.name", "c.bits"}), "bits");
}

TEST_F(SweepConfigTest, NamesStayShortEnoughForFolders) {
  const std::string key = "model.base_model";
  const SweepConfig config =
      load("grid: {" + key + ": [" + std::string(200, 'a') + ", " + std::string(199, 'a') + "b, 'with/slash and space']}\n");
  ASSERT_EQ(config.points.size(), 3u);
  for (const std::string& name : names(config)) {
    EXPECT_LE(name.size(), 120u);
    EXPECT_EQ(name.find('/'), std::string::npos);
  }
  EXPECT_EQ(config.points[2].name, "base_model=with_slash_and_space");
}

TEST_F(SweepConfigTest, ErrorsNameThePlaceAndThePoint) {
  EXPECT_THAT(error("grdi: {}\n"), HasSubstr("grid"));
  EXPECT_THAT(error(""), HasSubstr("found no points"));
  EXPECT_THAT(error("grid: {quantization.group_size: []}\n"), HasSubstr("a list of values"));
  EXPECT_THAT(error("grid: {quantization.group_size: 64}\n"), HasSubstr("a list of values"));
  EXPECT_THAT(error("grid: {quantization.group_sise: [64]}\n"),
              testing::AllOf(HasSubstr("point group_sise=64"), HasSubstr("did you mean 'group_size'")));
  EXPECT_THAT(error("grid: {quantization.bits: [4, four]}\n"), testing::AllOf(HasSubstr("point bits=four"), HasSubstr("four")));
  EXPECT_THAT(error("grid: {output.folder: [a]}\n"), HasSubstr("sweep's own"));
  EXPECT_THAT(error("grid: {calibration.seed: [1]}\nseeds: [2]\n"), HasSubstr("calibration.seed"));
  std::string many = "grid: {";
  for (const char* key : {"calibration.seed", "calibration.samples", "calibration.max_seq_len"}) {
    many += std::string(key) + ": [1";
    for (int i = 2; i < 40; ++i) many += ", " + std::to_string(i);
    many += "], ";
  }
  EXPECT_THAT(error(many + "}\n"), HasSubstr("10000"));
  write_file(run(), "model: {}\n");
  EXPECT_THAT(error("grid: {quantization.bits: [4]}\n"), HasSubstr("path"));
}

}  // namespace
}  // namespace salient::pipeline
