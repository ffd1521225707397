// Quantization works on one block at a time: its peak memory must not grow with the number of blocks, and must stay below its own
// estimate.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <functional>
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

struct RandomLlama {
  int64_t blocks = 2;
  int64_t hidden = 512;
  int64_t intermediate = 1024;
  int64_t vocabulary = 4096;  // the demo tokenizer's
  int64_t block_parameters() const { return 4 * hidden * hidden + 3 * hidden * intermediate; }
};

at::Tensor random(int64_t rows, int64_t columns) { return at::randn({rows, columns}) * 0.02; }

// A float32 Llama with random weights, one file a block, so that this process never holds the model either.
void write_random_llama(const fs::path& folder, const RandomLlama& llama) {
  fs::create_directories(folder);
  const Json config = {{"model_type", "llama"},
                       {"architectures", {"LlamaForCausalLM"}},
                       {"hidden_size", llama.hidden},
                       {"intermediate_size", llama.intermediate},
                       {"num_hidden_layers", llama.blocks},
                       {"num_attention_heads", llama.hidden / 64},
                       {"num_key_value_heads", llama.hidden / 64},
                       {"vocab_size", llama.vocabulary},
                       {"max_position_embeddings", 1024},
                       {"rms_norm_eps", 1e-6},
                       {"rope_theta", 10000.0},
                       {"hidden_act", "silu"},
                       {"tie_word_embeddings", true},
                       {"torch_dtype", "float32"}};
  write_text(folder / "config.json", dump_json(config, 2));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) fs::copy_file(kDemoModel / name, folder / name);

  Json weight_map = Json::object();
  const auto write = [&](int64_t shard, const std::vector<models::NamedTensor>& tensors) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, llama.blocks + 1);
    models::write_safetensors(folder / file, tensors);
    for (const models::NamedTensor& tensor : tensors) weight_map[tensor.name] = file;
  };
  for (int64_t block = 0; block < llama.blocks; ++block) {
    const std::string prefix = fmt::format("model.layers.{}.", block);
    write(block, {{prefix + "self_attn.q_proj.weight", random(llama.hidden, llama.hidden)},
                  {prefix + "self_attn.k_proj.weight", random(llama.hidden, llama.hidden)},
                  {prefix + "self_attn.v_proj.weight", random(llama.hidden, llama.hidden)},
                  {prefix + "self_attn.o_proj.weight", random(llama.hidden, llama.hidden)},
                  {prefix + "mlp.gate_proj.weight", random(llama.intermediate, llama.hidden)},
                  {prefix + "mlp.up_proj.weight", random(llama.intermediate, llama.hidden)},
                  {prefix + "mlp.down_proj.weight", random(llama.hidden, llama.intermediate)},
                  {prefix + "input_layernorm.weight", at::ones({llama.hidden})},
                  {prefix + "post_attention_layernorm.weight", at::ones({llama.hidden})}});
  }
  write(llama.blocks,
        {{"model.embed_tokens.weight", random(llama.vocabulary, llama.hidden)}, {"model.norm.weight", at::ones({llama.hidden})}});
  write_text(folder / "model.safetensors.index.json", dump_json({{"metadata", Json::object()}, {"weight_map", weight_map}}));
}

double peak_mb(const fs::path& folder, int64_t blocks) {
  const std::string model = fmt::format("llama{}", blocks);
  write_random_llama(folder / model, {.blocks = blocks});
  const ProgramResult result = run_program({"quantize", "--model", model, "--calib", "calibration.jsonl", "--out", model + "-awq",
                                            "--n-grid", "2", "--no-clip", "--max-seq-len", "128", "--threads", "1", "--json"},
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
  // Six fill what the model's own rows may keep loaded while it writes them (calibration/self_generation.h): 64 MB of weights here.
  const double few = peak_mb(folder.path(), 6);
  const double many = peak_mb(folder.path(), 16);
  std::cout << "peak memory: " << few << " MB with 6 blocks, " << many << " MB with 16\n";
  EXPECT_GT(few, 20);  // it is measured at all
  // The ten blocks more are 105 MB of float32: holding, or leaving mapped, even half of them would be seen.
  const double more_weights_mb = 10.0 * 4 * static_cast<double>(RandomLlama().block_parameters()) / 1e6;
  const double allowed = 0.10 * few + 16;
  ASSERT_GT(more_weights_mb, 2 * allowed);
  EXPECT_LT(many, few + allowed);
}

struct Growth {
  uint64_t before = 0;  // bytes that were resident before the job
  uint64_t peak = 0;
  uint64_t estimate = 0;  // of what quantizing needs at most
};

// How much the peak of a process grows by quantizing, against what was foretold. The job runs in a child of this process; "5" in
// clear_refs makes Linux forget the peak so far.
Growth growth_of(const fs::path& folder, const RandomLlama& llama, const std::function<void(pipeline::QuantizeJob& job)>& set) {
  write_calibration(folder);
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  EXPECT_GE(child, 0);
  if (child == 0) {
    const fs::path model = folder / "llama";
    write_random_llama(model, llama);
    pipeline::QuantizeJob job;
    job.calibration_file = folder / "calibration.jsonl";
    job.max_seq_len = 128;
    job.model.awq.scale_search.grid = 2;
    set(job);
    job.model.model_folder = kDemoModel;  // first a small one: pages in the code
    job.model.output = folder / "small";
    pipeline::run_quantize_job(job);
    std::ofstream("/proc/self/clear_refs") << "5" << std::flush;
    Growth found;
    found.before = peak_memory_bytes();
    job.model.model_folder = model;
    job.model.output = folder / "out";
    const pipeline::QuantizeJobResult result = pipeline::run_quantize_job(job);
    found.peak = peak_memory_bytes();
    const models::DecoderConfig config = models::parse_decoder_config(read_json_file(model / "config.json"), "config.json");
    found.estimate =
        pipeline::estimate_quantize(config, job.model.awq, result.tokens.tokens, job.model.batch_tokens).peak_memory_bytes;
    ::_exit(::write(ends[1], &found, sizeof(found)) == sizeof(found) ? 0 : 1);
  }
  ::close(ends[1]);
  Growth found;
  const ssize_t count = ::read(ends[0], &found, sizeof(found));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(count, static_cast<ssize_t>(sizeof(found)));
  const auto megabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  std::cout << "resident before " << megabytes(found.before) << " MB, peak " << megabytes(found.peak) << " MB, estimate "
            << megabytes(found.estimate) << " MB\n";
  return found;
}

void expect_bounded(const Growth& growth) {
  EXPECT_GT(growth.peak, growth.before);
  EXPECT_LE(growth.peak - growth.before, growth.estimate);
  EXPECT_LT(growth.estimate, 20 * (growth.peak - growth.before)) << "an estimate that turns jobs away for nothing";
}

TEST_F(MemoryBound, EstimateIsNotBelowTheGrowth) {
  const TemporaryFolder folder;
  expect_bounded(growth_of(folder.path(), {}, [](pipeline::QuantizeJob&) {}));
}

void choose_bits(pipeline::QuantizeJob& job) {
  job.model.awq.format = pipeline::WeightFormat::kCompressedTensors;
  job.model.awq.target_bits = 4.5;
  job.model.awq.bit_choices = {4, 8};
}

TEST_F(MemoryBound, NorWhileBitsAreChosen) {
  const TemporaryFolder folder;
  expect_bounded(growth_of(folder.path(), {}, choose_bits));
}

// A small model with many tokens: what counts is the logits that are compared.
TEST_F(MemoryBound, NorWhileTheLogitsOfALargeVocabularyAreCompared) {
  const TemporaryFolder folder;
  const RandomLlama llama{.blocks = 1, .hidden = 128, .intermediate = 256, .vocabulary = 65536};
  const Growth growth = growth_of(folder.path(), llama, choose_bits);
  expect_bounded(growth);
  EXPECT_GT(growth.peak - growth.before, 300'000'000u) << "the logits are not what is measured";
}

}  // namespace
}  // namespace salient::test
