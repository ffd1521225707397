// Quantization works on one block at a time: its peak memory must not grow with the number of blocks, and must stay below its own estimate.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>

#include "common/json.h"
#include "common/memory.h"
#include "models/decoder/decoder_config.h"
#include "models/io/safetensors.h"
#include "pipeline/quantize_job.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kHidden = 512;
constexpr int64_t kIntermediate = 1024;
constexpr int64_t kVocabulary = 4096;  // the demo tokenizer's
constexpr int64_t kBlockParameters = 4 * kHidden * kHidden + 3 * kHidden * kIntermediate;

at::Tensor random(int64_t rows, int64_t columns) { return at::randn({rows, columns}) * 0.02; }

// A float32 Llama with random weights, one file a block, so that this process never holds the model either.
void write_random_llama(const fs::path& folder, int64_t blocks) {
  fs::create_directories(folder);
  const Json config = {{"model_type", "llama"},       {"architectures", {"LlamaForCausalLM"}}, {"hidden_size", kHidden},
                       {"intermediate_size", kIntermediate}, {"num_hidden_layers", blocks},    {"num_attention_heads", 8},
                       {"num_key_value_heads", 8},    {"vocab_size", kVocabulary},             {"max_position_embeddings", 1024},
                       {"rms_norm_eps", 1e-6},        {"rope_theta", 10000.0},                 {"hidden_act", "silu"},
                       {"tie_word_embeddings", true}, {"torch_dtype", "float32"}};
  write_text(folder / "config.json", dump_json(config, 2));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) fs::copy_file(kDemoModel / name, folder / name);

  Json weight_map = Json::object();
  const auto write = [&](int64_t shard, const std::vector<models::NamedTensor>& tensors) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, blocks + 1);
    models::write_safetensors(folder / file, tensors);
    for (const models::NamedTensor& tensor : tensors) weight_map[tensor.name] = file;
  };
  for (int64_t block = 0; block < blocks; ++block) {
    const std::string prefix = fmt::format("model.layers.{}.", block);
    write(block, {{prefix + "self_attn.q_proj.weight", random(kHidden, kHidden)},
                  {prefix + "self_attn.k_proj.weight", random(kHidden, kHidden)},
                  {prefix + "self_attn.v_proj.weight", random(kHidden, kHidden)},
                  {prefix + "self_attn.o_proj.weight", random(kHidden, kHidden)},
                  {prefix + "mlp.gate_proj.weight", random(kIntermediate, kHidden)},
                  {prefix + "mlp.up_proj.weight", random(kIntermediate, kHidden)},
                  {prefix + "mlp.down_proj.weight", random(kHidden, kIntermediate)},
                  {prefix + "input_layernorm.weight", at::ones({kHidden})},
                  {prefix + "post_attention_layernorm.weight", at::ones({kHidden})}});
  }
  write(blocks, {{"model.embed_tokens.weight", random(kVocabulary, kHidden)}, {"model.norm.weight", at::ones({kHidden})}});
  write_text(folder / "model.safetensors.index.json", dump_json({{"metadata", Json::object()}, {"weight_map", weight_map}}));
}

double peak_mb(const fs::path& folder, int64_t blocks) {
  const std::string model = fmt::format("llama{}", blocks);
  write_random_llama(folder / model, blocks);
  const ProgramResult result = run_program({"quantize", "--model", model, "--calib", "calibration.jsonl", "--out", model + "-awq", "--n-grid", "2",
                                            "--no-clip", "--max-seq-len", "128", "--threads", "1", "--json"},
                                           folder);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const Json report = parse_json(result.out, "quantize --json");
  EXPECT_EQ(report.at("summary").at("linears"), 7 * blocks);
  return report.at("peak_memory_mb").get<double>();
}

// One thread in this process: OpenMP threads do not survive a fork, the child would wait for them for ever.
class MemoryBound : public testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

TEST_F(MemoryBound, PeakDoesNotGrowWithTheNumberOfBlocks) {
  const TemporaryFolder folder;
  write_calibration(folder.path());
  const double few = peak_mb(folder.path(), 2);
  const double many = peak_mb(folder.path(), 12);
  std::cout << "peak memory: " << few << " MB with 2 blocks, " << many << " MB with 12\n";
  EXPECT_GT(few, 20);  // it is measured at all
  // The ten blocks more are 105 MB of float32: holding, or leaving mapped, even half of them would be seen.
  const double more_weights_mb = 10.0 * 4 * kBlockParameters / 1e6;
  const double allowed = 0.10 * few + 16;
  ASSERT_GT(more_weights_mb, 2 * allowed);
  EXPECT_LT(many, few + allowed);
}

// How much the peak of a process grows by quantizing, against what was foretold. The job runs in a child of this process; "5" in
// clear_refs makes Linux forget the peak so far.
TEST_F(MemoryBound, EstimateIsNotBelowTheGrowth) {
  const TemporaryFolder folder;
  write_calibration(folder.path());
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const fs::path model = folder.path() / "llama";
    write_random_llama(model, 2);
    pipeline::QuantizeJob job;
    job.calibration_file = folder.path() / "calibration.jsonl";
    job.max_seq_len = 128;
    job.model.model_folder = kDemoModel;  // first a small one: pages in the code
    job.model.output = folder.path() / "small";
    job.model.awq.scale_search.grid = 2;
    pipeline::run_quantize_job(job);
    std::ofstream("/proc/self/clear_refs") << "5" << std::flush;
    const uint64_t before = peak_memory_bytes();
    job.model.model_folder = model;
    job.model.output = folder.path() / "out";
    const pipeline::QuantizeJobResult result = pipeline::run_quantize_job(job);
    const models::DecoderConfig config = models::parse_decoder_config(read_json_file(model / "config.json"), "config.json");
    const uint64_t figures[3] = {
        before, peak_memory_bytes(),
        pipeline::estimate_quantize(config, job.model.awq, result.tokens.tokens, job.model.batch_tokens).peak_memory_bytes};
    const bool whole = ::write(ends[1], figures, sizeof(figures)) == sizeof(figures);
    ::_exit(whole ? 0 : 1);
  }
  ::close(ends[1]);
  uint64_t figures[3] = {};
  const ssize_t count = ::read(ends[0], figures, sizeof(figures));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(count, static_cast<ssize_t>(sizeof(figures)));
  const auto [before, peak, estimate] = figures;
  std::cout << "resident before " << before / 1e6 << " MB, peak " << peak / 1e6 << " MB, estimate " << estimate / 1e6 << " MB\n";
  EXPECT_GT(peak, before);
  EXPECT_LE(peak - before, estimate);
  EXPECT_LT(estimate, 20 * (peak - before)) << "an estimate that turns jobs away for nothing";
}

}  // namespace
}  // namespace salient::test
