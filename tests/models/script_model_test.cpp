// Modules that users of torch saved (scripts/goldens/torchscript.py), against the logits that torch gave.
#include "models/torchscript/script_model.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kData = fs::path(SALIENT_SOURCE_DIR) / "tests/data/torchscript";

at::Tensor tensor_of(const std::vector<std::vector<int64_t>>& rows) {
  std::vector<at::Tensor> all;
  for (const auto& row : rows) all.push_back(at::tensor(row, at::kLong));
  return at::stack(all);
}

std::string message_of(const std::function<void()>& run, ErrorKind kind) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

class ScriptModels : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

TEST_F(ScriptModels, GiveTheLogitsOfTheirFile) {
  const Json golden = read_json_file(kData / "logits.json");
  const at::Tensor ids = tensor_of(golden.at("ids").get<std::vector<std::vector<int64_t>>>());
  ASSERT_EQ(golden.at("logits").size(), 4u);
  for (const auto& [name, rows] : golden.at("logits").items()) {
    SCOPED_TRACE(name);
    const ScriptModel model = ScriptModel::load(kData / (name + ".pt"));
    EXPECT_EQ(model.vocab_size(), 11);
    EXPECT_FALSE(model.has_step());
    EXPECT_TRUE(model.extra_files().empty());
    const bool half = name == "traced_tuple";
    EXPECT_EQ(model.dtype(), half ? at::kBFloat16 : at::kFloat);
    EXPECT_EQ(model.weight_bytes(), (11u * 6 + 6 * 11 + 11) * (half ? 2 : 4));
    const at::Tensor logits = model.logits(ids);
    ASSERT_EQ(logits.sizes(), at::IntArrayRef({2, 5, 11}));
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
    for (int64_t row = 0; row < 2; ++row) {
      for (int64_t token = 0; token < 5; ++token) {
        const auto expected = rows.at(static_cast<size_t>(row)).at(static_cast<size_t>(token)).get<std::vector<double>>();
        EXPECT_LT((logits[row][token] - at::tensor(expected, at::kFloat)).abs().max().item<double>(), 1e-6);
      }
    }
    // Another batch and length than those it was traced with.
    EXPECT_TRUE(model.logits(ids.narrow(0, 1, 1).narrow(1, 0, 3)).allclose(logits.narrow(0, 1, 1).narrow(1, 0, 3), 1e-6, 1e-6));
  }
}

TEST_F(ScriptModels, PaddingOnAnySideChangesNothing) {
  const ScriptModel model = ScriptModel::load(kData / "traced.pt");
  const at::Tensor ids = tensor_of({{7, 3, 1, 4, 7}, {7, 7, 9, 2, 6}, {5, 3, 7, 7, 7}, {1, 2, 3, 4, 5}});
  const at::Tensor real = tensor_of({{0, 1, 1, 1, 0}, {0, 0, 1, 1, 1}, {1, 1, 0, 0, 0}, {1, 1, 1, 1, 1}}).to(at::kBool);
  const at::Tensor logits = model.logits(ids, real);
  ASSERT_EQ(logits.sizes(), at::IntArrayRef({4, 5, 11}));
  for (int64_t row = 0; row < 4; ++row) {
    const at::Tensor alone = model.logits(ids[row].masked_select(real[row]).unsqueeze(0))[0];
    EXPECT_TRUE(logits[row].index_select(0, real[row].nonzero().flatten()).allclose(alone, 1e-6, 1e-6)) << "row " << row;
    EXPECT_EQ(logits[row].index_select(0, real[row].logical_not().nonzero().flatten()).abs().sum().item<double>(), 0.0);
  }
  EXPECT_THAT(message_of([&] { model.logits(ids, real.narrow(1, 0, 4)); }, ErrorKind::kInvalidArgument),
              HasSubstr("must be bool [4, 5]"));
}

TEST_F(ScriptModels, RefuseModulesThatAreNoLanguageModels) {
  EXPECT_THAT(message_of([] { ScriptModel::load(kData / "scripted_wants_more.pt"); }, ErrorKind::kUnsupported),
              HasSubstr("forward wants 'lengths'"));
  EXPECT_THAT(message_of([] { ScriptModel::load(kData / "traced_last_only.pt"); }, ErrorKind::kCheckFailed),
              HasSubstr("forward of ids [1, 1] gives Float [1, 11], expected logits [1, 1, vocabulary]"));
}

TEST_F(ScriptModels, RefuseIdsOutsideTheVocabulary) {
  const ScriptModel model = ScriptModel::load(kData / "traced.pt");
  EXPECT_THAT(message_of(
                  [&] {
                    model.logits(at::full({1, 2}, 11, at::kLong));
                  },
                  ErrorKind::kInvalidArgument),
              HasSubstr("token id 11 is outside"));
  EXPECT_THAT(message_of([&] { model.logits(at::full({2}, 1, at::kLong)); }, ErrorKind::kInvalidArgument),
              HasSubstr("found Long of [2]"));
}

TEST_F(ScriptModels, AreFoundInTheirFolder) {
  const test::TemporaryFolder work;
  EXPECT_THAT(message_of([&] { ScriptModel::load(work.path() / "none"); }, ErrorKind::kNotFound),
              HasSubstr("there is no such file or folder"));
  EXPECT_THAT(message_of([&] { ScriptModel::load(work.path()); }, ErrorKind::kNotFound), HasSubstr("0 TorchScript files"));
  write_file(work.path() / "training_args.pt", "not an archive");
  fs::copy_file(kData / "traced.pt", work.path() / "model.pt");
  EXPECT_EQ(ScriptModel::load(work.path()).path().filename(), "model.pt");
  fs::copy_file(kData / "traced.pt", work.path() / "other.pth");
  EXPECT_THAT(message_of([&] { ScriptModel::load(work.path()); }, ErrorKind::kNotFound),
              HasSubstr("2 TorchScript files (.pt, .pth, .ts): model.pt, other.pth"));
}

TEST_F(ScriptModels, RefuseBrokenFiles) {
  const test::TemporaryFolder work;
  const std::string whole = read_text_file(kData / "traced.pt");
  for (const size_t bytes : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 1}) {
    SCOPED_TRACE(bytes);
    write_file(work.path() / "cut.pt", whole.substr(0, bytes));
    EXPECT_THAT(message_of([&] { ScriptModel::load(work.path() / "cut.pt"); }, ErrorKind::kCorruption),
                HasSubstr("torch.jit.load refuses it"));
  }
}

}  // namespace
}  // namespace salient::models
