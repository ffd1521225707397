// Exported TorchScript against the decoder that transformers' logits check (architecture_golden_test.cpp), every architecture.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/decoder/architecture.h"
#include "models/decoder/decoder.h"
#include "models/decoder/wrappers.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/model_file_probe.h"
#include "models/torchscript/export.h"
#include "models/torchscript/script_model.h"
#include "quant/affine.h"
#include "quant/awq_gemm.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Case = test::GoldenCase;

constexpr double kTolerance = 1e-4;

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

at::Tensor decoder_logits(const Checkpoint& checkpoint, const at::Tensor& ids, at::ScalarType dtype = at::kFloat) {
  const Decoder decoder = Decoder::load(checkpoint, {.dtype = dtype});
  return decoder.logits(decoder.hidden_states(ids));
}

at::Tensor some_ids(int64_t vocabulary, int64_t rows, int64_t tokens) {
  return (at::arange(rows * tokens, at::kLong) * 37 + 11).remainder(vocabulary).view({rows, tokens});
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

// Rows read in one piece, in two, and id by id, give the last logits of forward.
void expect_steps(const ScriptModel& model, const at::Tensor& ids, const at::Tensor& logits) {
  const int64_t tokens = ids.size(1);
  ASSERT_TRUE(model.has_step());
  const auto run = [&](const std::vector<int64_t>& pieces) {
    const std::vector<at::Tensor> cache = model.make_cache(ids.size(0), tokens);
    int64_t position = 0;
    for (const int64_t count : pieces) {
      const at::Tensor found = model.step(ids.narrow(1, position, count), cache, position);
      position += count;
      const double far = distance(found, logits.select(1, position - 1));
      EXPECT_TRUE(far < kTolerance) << "after " << position << " tokens, the last " << count << " at once: " << far;
    }
  };
  run({tokens});
  run({tokens - 3, 1, 2});
  run(std::vector<int64_t>(static_cast<size_t>(tokens), 1));
}

class TorchscriptExports : public ::testing::Test {
 protected:
  // The models are so small that threads cost more than they bring.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

class TorchscriptExport : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
  // Whether how far a row has come changes the rotation of its earlier keys, which a cache has already rotated.
  bool rope_follows_length() const {
    const std::string config = dump_json(GetParam().golden.at("config"));
    return config.find("\"dynamic\"") != std::string::npos || config.find("\"longrope\"") != std::string::npos;
  }
};

TEST_P(TorchscriptExport, GivesTheLogitsOfTheDecoder) {
  const test::TemporaryFolder work;
  test::write_golden_checkpoint(GetParam().golden, work.path() / "model");
  const Checkpoint checkpoint(work.path() / "model");
  const DecoderConfig config = load_decoder_config(checkpoint);
  const fs::path file = work.path() / "model.pt";
  if (const auto reason = torchscript_supports(config)) {
    const std::string text = message_of([&] { export_torchscript(checkpoint, file); }, ErrorKind::kUnsupported);
    EXPECT_THAT(text, HasSubstr(*reason));
    EXPECT_FALSE(fs::exists(file));
    return;
  }
  const TorchscriptFile written = export_torchscript(checkpoint, file);
  EXPECT_EQ(written.bytes, fs::file_size(file));
  EXPECT_EQ(written.quantized_linears, 0);
  const ScriptModel model = ScriptModel::load(file);
  EXPECT_EQ(model.vocab_size(), config.vocab_size);
  // 19 tokens are beyond all windows, chunks and original lengths of the cases.
  for (const auto& [rows, tokens] : {std::pair<int64_t, int64_t>{2, 19}, {3, 7}, {1, 1}}) {
    const at::Tensor ids = some_ids(config.vocab_size, rows, tokens);
    const at::Tensor logits = model.logits(ids);
    const double far = distance(logits, decoder_logits(checkpoint, ids));
    EXPECT_TRUE(far < kTolerance) << rows << " rows of " << tokens << " tokens: " << far;
    if (tokens == 19 && !rope_follows_length()) expect_steps(model, ids, logits);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, TorchscriptExport, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& param_info) { return test::golden_test_name(param_info.param); });

// What is refused is known, so that a new refusal is seen.
TEST_F(TorchscriptExports, CoverAllButLinearAttention) {
  std::set<std::string> refused;
  for (const Case& golden : test::golden_cases()) {
    const DecoderConfig config = parse_decoder_config(golden.golden.at("config"), golden.name());
    if (const auto reason = torchscript_supports(config)) {
      refused.insert(golden.model_type);
      EXPECT_THAT(*reason, HasSubstr("linear attention (gated delta rule)"));
    }
  }
  EXPECT_EQ(refused, (std::set<std::string>{"qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text"}));
}

const Json& llama_case() {
  static const std::vector<Case> cases = test::golden_cases();
  return std::find_if(cases.begin(), cases.end(), [](const Case& c) { return c.model_type == "llama"; })->golden;
}

// The llama case with all linears of blocks in AutoAWQ's GEMM format, groups of 32.
void write_awq_checkpoint(const fs::path& folder) {
  std::map<std::string, at::Tensor> tensors;
  for (const Json& tensor : llama_case().at("tensors")) {
    const auto name = tensor.at(0).get<std::string>();
    const at::Tensor weight =
        test::golden_tensor(name, tensor.at(1).get<std::vector<int64_t>>(), tensor.at(2).get<double>(), tensor.at(3).get<double>());
    if (name.find("_proj.weight") == std::string::npos) {
      tensors[name] = weight;
      continue;
    }
    const int64_t out = weight.size(0);
    const int64_t groups = weight.size(1) / 32;
    const at::Tensor parts = weight.view({out, groups, 32});
    quant::QuantizedWeight quantized;
    quantized.scales = ((parts.amax(2) - parts.amin(2)) / 15).to(at::kHalf).to(at::kFloat);
    quantized.zeros = (-parts.amin(2) / quantized.scales).round().clamp(0, 15).to(at::kByte);
    quantized.codes =
        (parts / quantized.scales.unsqueeze(2) + quantized.zeros.unsqueeze(2)).round().clamp(0, 15).to(at::kByte).view({out, -1});
    const quant::PackedGemm packed = quant::pack_awq_gemm(quantized);
    const std::string module = name.substr(0, name.size() - 7);
    tensors[module + ".qweight"] = packed.qweight;
    tensors[module + ".qzeros"] = packed.qzeros;
    tensors[module + ".scales"] = packed.scales;
  }
  std::vector<PlannedTensor> planned;
  for (const auto& [name, tensor] : tensors) planned.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  CheckpointWriter writer(folder, plan_shards(planned, uint64_t{1} << 30));
  for (const auto& [name, tensor] : tensors) writer.put(name, tensor);
  writer.finish();
  Json config = llama_case().at("config");
  config["quantization_config"] = {
      {"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", "gemm"}, {"zero_point", true}};
  write_file(folder / "config.json", dump_json(config, 2) + "\n");
}

void expect_packed_export(const fs::path& folder, const fs::path& file) {
  const Checkpoint checkpoint(folder);
  const TorchscriptFile written = export_torchscript(checkpoint, file);
  EXPECT_GT(written.quantized_linears, 0);
  const ScriptModel model = ScriptModel::load(file);
  const at::Tensor ids = some_ids(model.vocab_size(), 2, 19);
  const at::Tensor logits = model.logits(ids);
  EXPECT_LT(distance(logits, decoder_logits(checkpoint, ids)), kTolerance);
  expect_steps(model, ids, logits);
}

TEST_F(TorchscriptExports, AwqGemm) {
  const test::TemporaryFolder work;
  write_awq_checkpoint(work.path() / "model");
  expect_packed_export(work.path() / "model", work.path() / "model.pt");
  const auto extra = ScriptModel::load(work.path() / "model.pt").extra_files();
  const Json metadata = Json::parse(extra.at("salient.json"));
  EXPECT_EQ(metadata.at("quantization"), "awq");
  EXPECT_EQ(metadata.at("source"), "model");
  EXPECT_EQ(Json::parse(extra.at("config.json")).at("model_type"), "llama");
  EXPECT_TRUE(is_torchscript(work.path() / "model.pt"));
}

TEST_F(TorchscriptExports, CompressedTensors) {
  for (const char* name : {"w3_sym", "w4_asym", "w4_sym_channel", "mixed_head"}) {
    SCOPED_TRACE(name);
    const test::TemporaryFolder work;
    const fs::path folder = fs::path(SALIENT_SOURCE_DIR) / "tests/data/compressed" / name;
    expect_packed_export(folder, work.path() / "model.pt");
    // The tool that wrote the checkpoint says what its logits are.
    const Json golden = read_json_file(folder / "logits.json");
    const at::Tensor ids = at::tensor(golden.at("ids").get<std::vector<int64_t>>(), at::kLong).unsqueeze(0);
    const at::Tensor logits = ScriptModel::load(work.path() / "model.pt").logits(ids)[0];
    for (int64_t row = 0; row < logits.size(0); ++row) {
      const auto reference = golden.at("logits").at(static_cast<size_t>(row)).get<std::vector<double>>();
      EXPECT_LT(distance(logits[row], at::tensor(reference, at::kFloat)), kTolerance) << "position " << row;
    }
  }
}

TEST_F(TorchscriptExports, WeightsStayPackedAndAsStored) {
  const test::TemporaryFolder work;
  write_awq_checkpoint(work.path() / "model");
  test::write_golden_checkpoint(llama_case(), work.path() / "float");
  export_torchscript(Checkpoint(work.path() / "model"), work.path() / "packed.pt");
  export_torchscript(Checkpoint(work.path() / "float"), work.path() / "float.pt");
  const ScriptModel packed = ScriptModel::load(work.path() / "packed.pt");
  const ScriptModel plain = ScriptModel::load(work.path() / "float.pt");
  // Rotary frequencies are all that is added to what the checkpoint holds.
  const uint64_t stored = Checkpoint(work.path() / "float").total_bytes();
  EXPECT_GE(plain.weight_bytes(), stored);
  EXPECT_LT(plain.weight_bytes(), stored + 256);
  // 4 bits, a float16 scale and a byte of zero point a group of 32 are 4.75 bits a weight.
  uint64_t linears = 0;
  for (const Json& tensor : llama_case().at("tensors")) {
    if (tensor.at(0).get<std::string>().find("_proj.weight") != std::string::npos)
      linears += tensor.at(1).at(0).get<uint64_t>() * tensor.at(1).at(1).get<uint64_t>();
  }
  EXPECT_EQ(plain.weight_bytes() - packed.weight_bytes(), linears * 4 - linears * 19 / 32);
}

TEST_F(TorchscriptExports, RunInBfloat16) {
  const test::TemporaryFolder work;
  test::write_golden_checkpoint(llama_case(), work.path() / "model");
  const Checkpoint checkpoint(work.path() / "model");
  export_torchscript(checkpoint, work.path() / "model.pt", {.dtype = at::kBFloat16, .source = "llama"});
  const at::Tensor ids = some_ids(96, 2, 19);
  const at::Tensor logits = ScriptModel::load(work.path() / "model.pt").logits(ids);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  // Both round, but not in the same places: compare with how far rounding goes.
  const at::Tensor exact = decoder_logits(checkpoint, ids);
  const double rounding = distance(decoder_logits(checkpoint, ids, at::kBFloat16), exact);
  EXPECT_GT(distance(logits, exact), 0.0);
  EXPECT_LT(distance(logits, exact), 3 * rounding);
}

TEST_F(TorchscriptExports, AreTheSameBytesTwice) {
  const test::TemporaryFolder work;
  write_awq_checkpoint(work.path() / "model");
  const Checkpoint checkpoint(work.path() / "model");
  for (const char* name : {"a.pt", "b.pt"}) export_torchscript(checkpoint, work.path() / name);
  EXPECT_EQ(read_text_file(work.path() / "a.pt"), read_text_file(work.path() / "b.pt"));
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(work.path())) ++files;
  EXPECT_EQ(files, 3u) << "something was left beside the files";
}

TEST_F(TorchscriptExports, RefuseOtherTypesToRunIn) {
  const test::TemporaryFolder work;
  test::write_golden_checkpoint(llama_case(), work.path() / "model");
  const std::string text = message_of(
      [&] {
        export_torchscript(Checkpoint(work.path() / "model"), work.path() / "model.pt", {.dtype = at::kDouble, .source = {}});
      },
      ErrorKind::kUnsupported);
  EXPECT_THAT(text, HasSubstr("cannot run in Double"));
}

}  // namespace
}  // namespace salient::models
