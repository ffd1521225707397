// Every row of the table of formats, and the formats that only `export` writes: what is written, read and written again has the
// same bytes, and what it is follows from the bytes alone.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "models/decoder/decoder.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/gguf/gguf_mixture.h"
#include "models/io/detect.h"
#include "models/io/safetensors.h"
#include "pipeline/export_model.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_model.h"
#include "pipeline/search_file.h"
#include "pipeline/weight_formats.h"
#include "support/folder_bytes.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// What of a format's folder holds weights.
enum class Kind : uint8_t { kCodes, kFloats, kGguf };

Kind kind_of(const WeightFormatRow& row) {
  return row.convertible() ? Kind::kCodes : row.keeps_layout() ? Kind::kFloats : Kind::kGguf;
}

class RoundTrip : public ::testing::TestWithParam<WeightFormat> {
 protected:
  static void SetUpTestSuite() {
    at::set_num_threads(1);
    shared_ = std::make_unique<test::TemporaryFolder>();
    test::write_tiny_checkpoint(shared_->path() / "source");
  }
  static void TearDownTestSuite() { shared_.reset(); }
  static fs::path source() { return shared_->path() / "source"; }

  // The tiny model in a format, quantized once for all tests.
  static fs::path artifact(const WeightFormatRow& row) {
    const fs::path folder = shared_->path() / row.name;
    if (!fs::exists(folder)) quantize(source(), row, folder, "n_grid: 4");
    return folder;
  }
  static void quantize(const fs::path& model, const WeightFormatRow& row, const fs::path& output, const std::string& more) {
    const bool own = kind_of(row) == Kind::kGguf && row.rounds;  // it says them itself
    const std::string spec = own ? "" : ", group_size: 64, symmetric: true";
    QuantizeModelOptions options;
    options.model_folder = model;
    options.output = output;
    options.awq = make_quantization_config(
                      given_settings(ConfigNode::parse(fmt::format("{{format: {}{}, {}}}", row.name, spec, more), "test")), "test")
                      .awq;
    calibration::TokenBlocks tokens;
    at::manual_seed(3);
    tokens.ids = at::randint(test::kTinyVocab, {6, 24}, at::kLong);
    tokens.lengths = at::full({6}, 24, at::kLong);
    quantize_model(options, tokens);
  }
  static fs::path weights_in(const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".gguf" || entry.path().extension() == ".safetensors") return entry.path();
    }
    return {};
  }
  test::TemporaryFolder folder_;
  static inline std::unique_ptr<test::TemporaryFolder> shared_;
};

at::Tensor logits_of(const fs::path& model) {
  const at::NoGradGuard no_grad;
  const models::Decoder decoder = models::Decoder::load(models::Checkpoint(model), {});
  at::manual_seed(5);
  return decoder.logits(decoder.hidden_states(at::randint(decoder.config().vocab_size, {2, 11}, at::kLong)));
}

TEST_P(RoundTrip, WrittenReadAndWrittenHasTheSameBytes) {
  const WeightFormatRow& row = row_of(GetParam());
  const fs::path first = artifact(row);
  const fs::path again = folder_.path() / "again";
  switch (kind_of(row)) {
    case Kind::kCodes: {
      const WeightFormat other = row.format == WeightFormat::kAwqGemm ? WeightFormat::kCompressedTensors : WeightFormat::kAwqGemm;
      export_model({first, folder_.path() / "between", ""}, to_string(other));
      export_model({folder_.path() / "between", again, ""}, row.name);
      EXPECT_EQ(test::file_bytes(again / "config.json"), test::file_bytes(first / "config.json"));
      break;
    }
    case Kind::kFloats:  // identity: what was read is written
      quantize(first, row_of(WeightFormat::kFloat), again, "scale: false");
      break;
    case Kind::kGguf: export_model({first, again, "source"}, row.name); break;
  }
  ASSERT_FALSE(weights_in(first).empty());
  EXPECT_EQ(weights_in(again).filename(), weights_in(first).filename());
  EXPECT_TRUE(test::file_bytes(weights_in(again)) == test::file_bytes(weights_in(first)));
}

// Neither names nor files that describe the weights are needed.
TEST_P(RoundTrip, IsToldFromTheBytesAlone) {
  const WeightFormatRow& row = row_of(GetParam());
  const models::DetectedModel whole = models::detect_model(artifact(row));
  EXPECT_THAT(whole.contradictions, ::testing::IsEmpty());
  const fs::path bare = folder_.path() / "bare";
  fs::create_directories(bare);
  const fs::path weights = weights_in(artifact(row));
  fs::copy_file(weights, bare / (kind_of(row) == Kind::kGguf ? fs::path("m.gguf") : weights.filename()));
  const models::DetectedModel found = models::detect_model(bare);
  EXPECT_EQ(found.format, whole.format);
  EXPECT_EQ(found.quantized_linears, whole.quantized_linears);
  switch (kind_of(row)) {
    case Kind::kCodes: EXPECT_EQ(found.format, row.name); break;
    case Kind::kFloats: EXPECT_EQ(found.format, "float"); break;
    case Kind::kGguf:
      EXPECT_EQ(found.format, "gguf");
      EXPECT_EQ(models::GgufCheckpoint(bare / "m.gguf").summary().is_float(), !row.rounds);
      break;
  }
}

// The evaluated model is the one of the weights that lie there: as floats, written out, it is the same.
TEST_P(RoundTrip, RunsAsTheWeightsThatItHolds) {
  const WeightFormatRow& row = row_of(GetParam());
  const at::Tensor found = logits_of(artifact(row));
  const at::Tensor original = logits_of(source());
  const double distance = (found - original).abs().max().item<double>() / original.abs().max().item<double>();
  EXPECT_GT(distance, row.rounds ? 1e-5 : -1.0);
  EXPECT_LT(distance, row.rounds ? 1.0 : 0.02);
  if (kind_of(row) != Kind::kGguf) return;  // codes: convert_codes_test compares formats
  export_model({artifact(row), folder_.path() / "float", ""}, "float");
  EXPECT_TRUE(at::equal(logits_of(folder_.path() / "float"), found));
  EXPECT_EQ(models::detect_model(folder_.path() / "float").format, "float");
}

std::vector<WeightFormat> all_formats() {
  std::vector<WeightFormat> formats;
  for (const WeightFormatRow& row : weight_formats()) formats.push_back(row.format);
  return formats;
}

INSTANTIATE_TEST_SUITE_P(Formats, RoundTrip, ::testing::ValuesIn(all_formats()), [](const auto& each) {
  std::string name(to_string(each.param));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// With rows of whole K-blocks, as the demo model has them.
TEST(GgufRoundTrip, EveryMixtureOfTheDemoModel) {
  const fs::path demo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";
  for (const models::GgufFormat& format : models::gguf_formats()) {
    const test::TemporaryFolder folder;
    export_model({demo, folder.path() / "first.gguf", "demo"}, format.name);
    const ExportResult result = export_model({folder.path() / "first.gguf", folder.path() / "second.gguf", "demo"}, format.name);
    EXPECT_TRUE(test::file_bytes(folder.path() / "first.gguf") == test::file_bytes(folder.path() / "second.gguf")) << format.name;
    EXPECT_THAT(result.notes, ::testing::Not(::testing::Contains(HasSubstr("quantized again")))) << format.name;
  }
}

// F16 into blocks and floats of the blocks: what has its type already is copied, the rest is not.
TEST(GgufRoundTrip, OtherTypesAreEncodedAnew) {
  const fs::path demo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";
  const test::TemporaryFolder folder;
  export_model({demo, folder.path() / "f16.gguf", "demo"}, "gguf-f16");
  export_model({folder.path() / "f16.gguf", folder.path() / "through.gguf", "demo"}, "gguf-q8_0");
  export_model({demo, folder.path() / "straight.gguf", "demo"}, "gguf-q8_0");
  EXPECT_EQ(fs::file_size(folder.path() / "through.gguf"), fs::file_size(folder.path() / "straight.gguf"));
}

TEST(TorchscriptRoundTrip, AnExportIsNotExportedAgain) {
  const test::TemporaryFolder folder;
  test::write_tiny_checkpoint(folder.path() / "source");
  export_model({folder.path() / "source", folder.path() / "script", ""}, "torchscript");
  for (const std::string& format : export_formats()) {
    const Error error = test::error_of([&] { export_model({folder.path() / "script", folder.path() / "again", ""}, format); });
    EXPECT_THAT(error.message(), AllOf(HasSubstr("TorchScript"), HasSubstr("script"))) << format;
    EXPECT_FALSE(fs::exists(folder.path() / "again"));
  }
}

TEST(SearchRoundTrip, WrittenReadAndWrittenHasTheSameBytes) {
  test::TinyQuantization tiny;
  const test::TemporaryFolder folder;
  const fs::path first = folder.path() / "first.search";
  tiny("format: compressed-tensors, save_search: " + dump_json(Json(first.string())));
  const std::string job = search_file_job(first);
  write_search(folder.path() / "second.search", read_search(first), job);
  const SearchResult second = read_search(folder.path() / "second.search");
  write_search(folder.path() / "third.search", second, job);
  EXPECT_TRUE(test::file_bytes(folder.path() / "second.search") == test::file_bytes(folder.path() / "third.search"));
  const models::SafetensorsFile joined(first),
      whole(folder.path() / "second.search");  // the job joins parts of blocks: another order
  ASSERT_EQ(joined.tensors().size(), whole.tensors().size());
  for (const auto& [name, info] : joined.tensors()) EXPECT_TRUE(at::equal(joined.view(name), whole.view(name))) << name;
  EXPECT_EQ(joined.metadata(), whole.metadata());
}

}  // namespace
}  // namespace salient::pipeline
