// Sensitivities against mixtures that are built by hand: checkpoints on disk in which some weights are the quantized model's, run
// in the ordinary way, their distributions compared in float64. Single projections are put back into the base's units with the
// scales that the search saved.
#include "eval/sensitivity.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/round.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "common/error.h"
#include "eval/divergence.h"
#include "eval/sensitivity_report.h"
#include "models/decoder/block_layout.h"
#include "pipeline/search_file.h"
#include "pipeline/sensitivity_records.h"
#include "support/bare_language_model.h"
#include "support/demo_run.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using eval::DistributionDistance;
using eval::Sensitivity;
using eval::SensitivityBy;
using eval::SensitivityOptions;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kBlocks = 2, kHeads = 4, kKvHeads = 2, kHeadDim = 32;
constexpr int64_t kWindow = 24, kWindows = 5;
const std::vector<std::string> kProjections = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                               "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

using Tensors = std::map<std::string, at::Tensor>;

eval::TokenWindows random_windows() {
  eval::TokenWindows windows{kWindow, {}};
  for (int64_t i = 0; i < kWindow * kWindows; ++i)
    windows.ids.push_back(static_cast<models::TokenId>(test::splitmix64(static_cast<uint64_t>(i)) % test::kTinyVocab));
  return windows;
}

// Mean and standard error over windows, in float64.
struct Reference {
  double kl = 0;
  double stderr_of_mean = 0;
  double same_top = 0;
};

class SensitivityTest : public ::testing::Test {
 protected:
  static const test::TinyQuantization& tiny() { return shared().tiny; }
  static const test::TinyArtifact& artifact() { return *shared().artifact; }
  static const SearchResult& search() { return shared().search; }

  static eval::LanguageModel base() { return test::bare_language_model(tiny().source()); }
  static eval::LanguageModel model() { return test::bare_language_model(artifact().folder); }

  static Sensitivity measure(SensitivityOptions options) {
    return eval::measure_sensitivity(model(), base(), random_windows(), options);
  }
  static SensitivityOptions by(SensitivityBy by) {
    SensitivityOptions options;
    options.by = by;
    options.batch_tokens = 2 * kWindow;  // several batches, the last one not full
    options.known_scales = [](const models::ScalingGroup& group) { return find_scales(search(), group.smooth_name)->scales; };
    return options;
  }

  static Tensors base_tensors() { return tensors_of(tiny().source()); }
  static Tensors tensors_of(const fs::path& folder) {
    const models::Checkpoint checkpoint(folder);
    Tensors tensors;
    for (const std::string& name : checkpoint.names()) tensors[name] = checkpoint.view(name).to(at::kFloat).clone();
    return tensors;
  }
  // As the codes stand for.
  static Tensors model_tensors() {
    const models::Checkpoint checkpoint(artifact().folder);
    const models::Decoder decoder = models::Decoder::load(checkpoint, {});
    Tensors tensors = base_tensors();
    for (auto& [name, tensor] : tensors) {
      if (checkpoint.contains(name)) tensor = checkpoint.view(name).to(at::kFloat).clone();
    }
    for (int64_t block = 0; block < kBlocks; ++block) {
      for (const models::LinearSpec& spec : models::block_layout(decoder.config(), block).linears)
        tensors.at(spec.name + ".weight") = models::dense_weight(decoder.block_weights(block).at(spec.id));
    }
    return tensors;
  }

  // Of a linear as the search found them; of a norm as the stored one, rounded to its type, really has them.
  static at::Tensor scales(int64_t block, const std::string& smooth) {
    const std::string name = fmt::format("model.layers.{}.{}", block, smooth);
    if (!smooth.ends_with("layernorm")) return search().scales.at(name).scales;
    return base_tensors().at(name + ".weight") / model_tensors().at(name + ".weight");
  }
  // What AWQ multiplied a projection's weight by: [out, in].
  static at::Tensor factors(int64_t block, const std::string& projection) {
    if (projection == "self_attn.o_proj") return scales(block, "self_attn.v_proj").unsqueeze(0);
    if (projection == "mlp.down_proj") return scales(block, "mlp.up_proj").unsqueeze(0);
    const at::Tensor columns =
        scales(block, projection.starts_with("mlp") ? "post_attention_layernorm" : "input_layernorm").unsqueeze(0);
    if (projection == "mlp.up_proj") return columns / scales(block, "mlp.up_proj").unsqueeze(1);
    if (projection != "self_attn.v_proj") return columns;
    // Every value row feeds the heads that share it, with one scale.
    const at::Tensor by_head =
        scales(block, "self_attn.v_proj").view({kKvHeads, kHeads / kKvHeads, kHeadDim}).select(1, 0).reshape({-1, 1});
    return columns / by_head;
  }

  // The base with these projections as the quantized model has them, in the base's units; with all but a few of them, embedding,
  // head and last norm are the quantized model's, too, which stores them in float16.
  static Tensors with_quantized(const std::set<std::pair<int64_t, std::string>>& quantized) {
    Tensors tensors = base_tensors();
    const Tensors rounded = model_tensors();
    if (quantized.size() > kProjections.size()) {
      for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"})
        tensors.at(name) = rounded.at(name);
    }
    for (const auto& [block, projection] : quantized) {
      const std::string name = fmt::format("model.layers.{}.{}.weight", block, projection);
      tensors.at(name) = rounded.at(name) / factors(block, projection);
    }
    return tensors;
  }
  static std::set<std::pair<int64_t, std::string>> all_projections() {
    std::set<std::pair<int64_t, std::string>> all;
    for (int64_t block = 0; block < kBlocks; ++block) {
      for (const std::string& projection : kProjections) all.emplace(block, projection);
    }
    return all;
  }

  Reference reference(const Tensors& tensors) {
    const fs::path folder = folder_.path() / std::to_string(mixtures_++);
    write_model(tensors, folder);
    const models::Decoder mixed = models::Decoder::load(models::Checkpoint(folder), {});
    const models::Decoder original = models::Decoder::load(models::Checkpoint(tiny().source()), {});
    const eval::TokenWindows windows = random_windows();
    std::vector<double> means;
    Reference out;
    for (int64_t w = 0; w < kWindows; ++w) {
      const at::Tensor ids =
          at::tensor(std::vector<int64_t>(windows.ids.begin() + w * kWindow, windows.ids.begin() + (w + 1) * kWindow)).unsqueeze(0);
      const auto log_probs = [&](const models::Decoder& decoder) {
        return at::log_softmax(decoder.logits(decoder.hidden_states(ids)).squeeze(0).to(at::kDouble), 1);
      };
      const at::Tensor p = log_probs(original);
      const at::Tensor q = log_probs(mixed);
      means.push_back((p.exp() * (p - q)).sum(1).mean().item<double>());
      out.kl += means.back() / kWindows;
      out.same_top += p.argmax(1).eq(q.argmax(1)).to(at::kDouble).mean().item<double>() / kWindows;
    }
    double squares = 0;
    for (const double mean : means) squares += (mean - out.kl) * (mean - out.kl);
    out.stderr_of_mean = std::sqrt(squares / (kWindows - 1) / kWindows);
    return out;
  }

  static void write_model(const Tensors& tensors, const fs::path& folder) {
    fs::create_directories(folder);
    write_tensors(tensors, folder);
    fs::copy_file(tiny().source() / "config.json", folder / "config.json");
  }
  static void write_tensors(const Tensors& tensors, const fs::path& folder) {
    std::vector<models::PlannedTensor> planned;
    for (const auto& [name, tensor] : tensors) planned.push_back({name, at::kFloat, tensor.sizes().vec()});
    models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
    for (const auto& [name, tensor] : tensors) writer.put(name, tensor.contiguous());
    writer.finish();
  }

  static void expect_equal(const DistributionDistance& found, const Reference& expected, const std::string& what) {
    SCOPED_TRACE(what);
    // The logits of both ways differ by what summing in another order does, and that counts the more the nearer they are to the
    // base's.
    const double noise = 1e-6 * std::sqrt(expected.kl);
    EXPECT_NEAR(found.kl.value, expected.kl, 3e-3 * expected.kl + noise);
    EXPECT_NEAR(found.kl.stderr_of_mean.value(), expected.stderr_of_mean, 1e-2 * expected.stderr_of_mean + noise);
    EXPECT_NEAR(found.same_top.value, expected.same_top, 1.5 / (kWindow * kWindows));
  }

  test::TemporaryFolder folder_;

 private:
  struct Shared {
    test::TemporaryFolder folder;
    test::TinyQuantization tiny;
    std::unique_ptr<test::TinyArtifact> artifact;
    SearchResult search;
  };
  // Larger logits, sharper attention and a second block that adds as much as the first, so that the error of every projection
  // shows.
  static void sharpen(const fs::path& source, const fs::path& scratch) {
    Tensors tensors = tensors_of(source);
    for (auto& [name, tensor] : tensors) {
      const bool late =
          name.starts_with("model.layers.1.") && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"));
      tensor *= late ? 10 : name.ends_with("q_norm.weight") ? 4 : name == "lm_head.weight" ? 8 : 1;
    }
    fs::create_directories(scratch / "sharp");
    write_tensors(tensors, scratch / "sharp");
    for (const auto& entry : fs::directory_iterator(scratch / "sharp"))
      fs::copy_file(entry.path(), source / entry.path().filename(), fs::copy_options::overwrite_existing);
  }
  static Shared& shared() {
    static Shared* made = [] {
      auto* all = new Shared;
      sharpen(all->tiny.source(), all->folder.path());
      const fs::path file = all->folder.path() / "search.safetensors";
      all->artifact = all->tiny.make(
          given_settings(ConfigNode::parse(
              "{format: awq-gemm, bits: 4, group_size: 32, save_search: " + dump_json(Json(file.string())) + "}", "test")),
          0);
      all->search = read_search(file);
      return all;
    }();
    return *made;
  }
  int mixtures_ = 0;
};

TEST_F(SensitivityTest, OneBlockAtATimeEqualsCheckpointsWithThatBlock) {
  const Sensitivity found = measure(by(SensitivityBy::kBlock));
  const Tensors rounded = model_tensors();
  expect_equal(found.whole, reference(rounded), "whole");
  ASSERT_EQ(found.parts.size(), static_cast<size_t>(kBlocks));
  for (int64_t block = 0; block < kBlocks; ++block) {
    const std::string prefix = fmt::format("model.layers.{}", block);
    const eval::PartCost& part = found.parts[static_cast<size_t>(block)];
    EXPECT_EQ(part.part, prefix);
    Tensors only = base_tensors();
    Tensors all_but = rounded;
    for (const auto& [name, tensor] : base_tensors()) {
      if (!name.starts_with(prefix + ".")) continue;
      only.at(name) = rounded.at(name);  // its norms, too
      all_but.at(name) = tensor;
    }
    expect_equal(part.only, reference(only), "only " + prefix);
    expect_equal(part.all_but, reference(all_but), "all but " + prefix);
  }
}

TEST_F(SensitivityTest, OneProjectionAtATimeEqualsCheckpointsWithThatProjection) {
  const Sensitivity found = measure(by(SensitivityBy::kProjection));
  EXPECT_EQ(found.fallback, "");
  EXPECT_EQ(found.estimated_groups, 0);
  ASSERT_EQ(found.parts.size(), kBlocks * kProjections.size());
  double moved = 0;
  int visible = 0;
  for (size_t i = 0; i < found.parts.size(); ++i) {
    const auto block = static_cast<int64_t>(i / kProjections.size());
    const std::string& projection = kProjections[i % kProjections.size()];
    const eval::PartCost& part = found.parts[i];
    EXPECT_EQ(part.part, fmt::format("model.layers.{}.{}", block, projection));
    moved += (factors(block, projection) - 1).abs().mean().item<double>();
    expect_equal(part.only, reference(with_quantized({{block, projection}})), "only " + part.part);
    visible += part.only.kl.value > 1e-7;
    auto others = all_projections();
    others.erase({block, projection});
    expect_equal(part.all_but, reference(with_quantized(others)), "all but " + part.part);
  }
  EXPECT_GE(visible, 8) << "too small for the comparison to mean anything";
  EXPECT_GT(moved, 1) << "no scale was moved: the test shows little";
}

TEST_F(SensitivityTest, OneKindAtATimeEqualsCheckpointsWithThatKind) {
  const Sensitivity found = measure(by(SensitivityBy::kKind));
  ASSERT_EQ(found.parts.size(), kProjections.size());
  for (size_t i = 0; i < kProjections.size(); ++i) {
    EXPECT_EQ(found.parts[i].part, kProjections[i]);
    expect_equal(found.parts[i].only, reference(with_quantized({{0, kProjections[i]}, {1, kProjections[i]}})),
                 "only " + kProjections[i]);
    auto others = all_projections();
    for (int64_t block = 0; block < kBlocks; ++block) others.erase({block, kProjections[i]});
    expect_equal(found.parts[i].all_but, reference(with_quantized(others)), "all but " + kProjections[i]);
  }
}

TEST_F(SensitivityTest, EstimatedScalesAreNearlyThoseOfTheSearch) {
  SensitivityOptions estimated = by(SensitivityBy::kProjection);
  estimated.known_scales = {};
  const Sensitivity found = measure(estimated);
  const Sensitivity exact = measure(by(SensitivityBy::kProjection));
  EXPECT_EQ(found.fallback, "");
  EXPECT_GT(found.estimated_groups, 0);
  EXPECT_GT(found.scale_uncertainty, 0);
  EXPECT_LT(found.scale_uncertainty, 0.01);
  for (size_t i = 0; i < found.parts.size(); ++i)
    EXPECT_NEAR(found.parts[i].only.kl.value, exact.parts[i].only.kl.value, 0.25 * exact.parts[i].only.kl.value)
        << found.parts[i].part;
  EXPECT_THAT(eval::to_table(found), HasSubstr("are estimated"));
  EXPECT_EQ(eval::to_json(found).at("estimated_groups"), found.estimated_groups);
}

TEST_F(SensitivityTest, EmbeddingAndHeadArePartsWhereTheyDiffer) {
  Tensors rounded = model_tensors();
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) rounded.at(name) = at::round(rounded.at(name) * 40) / 40;
  write_model(rounded, folder_.path() / "rounded");
  const Sensitivity found = eval::measure_sensitivity(test::bare_language_model(folder_.path() / "rounded"), base(),
                                                      random_windows(), by(SensitivityBy::kBlock));
  ASSERT_EQ(found.parts.size(), 4U);
  for (const auto& [part, tensor] :
       {std::pair{found.parts.front(), "model.embed_tokens"}, std::pair{found.parts.back(), "lm_head"}}) {
    EXPECT_EQ(part.part, tensor);
    const std::string name = std::string(tensor) + ".weight";
    Tensors only = base_tensors();
    Tensors all_but = rounded;
    all_but.at(name) = only.at(name);
    only.at(name) = rounded.at(name);
    expect_equal(part.only, reference(only), "only " + name);
    expect_equal(part.all_but, reference(all_but), "all but " + name);
  }
}

TEST_F(SensitivityTest, MemoryAndBatchesChangeNothing) {
  const Sensitivity kept = measure(by(SensitivityBy::kBlock));
  SensitivityOptions small = by(SensitivityBy::kBlock);
  small.kept_bytes = 2 * kWindow * test::kTinyVocab * 4;  // of one batch
  int64_t last = 0;
  small.progress = [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  };
  const Sensitivity computed_again = measure(small);
  EXPECT_EQ(eval::to_json(kept), eval::to_json(computed_again));
  small.progress = {};
  small.batch_tokens = 1;  // one window
  const Sensitivity single = measure(small);
  for (size_t i = 0; i < kept.parts.size(); ++i)
    EXPECT_NEAR(single.parts[i].only.kl.value, kept.parts[i].only.kl.value, 1e-3 * kept.parts[i].only.kl.value);
}

TEST_F(SensitivityTest, WhatIsNotTheBaseScaledAndRoundedIsExchangedByBlocksOnly) {
  Tensors other = model_tensors();
  at::Tensor& weight = other.at("model.layers.1.self_attn.o_proj.weight");
  weight = weight.flip(0).contiguous();
  write_model(other, folder_.path() / "other");
  const eval::LanguageModel strange = test::bare_language_model(folder_.path() / "other");
  SensitivityOptions options = by(SensitivityBy::kProjection);
  options.known_scales = {};
  const Sensitivity found = eval::measure_sensitivity(strange, base(), random_windows(), options);
  EXPECT_EQ(found.by, SensitivityBy::kBlock);
  EXPECT_THAT(found.fallback, HasSubstr("model.layers.1.self_attn.o_proj"));
  EXPECT_EQ(found.parts.size(), static_cast<size_t>(kBlocks));
  EXPECT_THAT(eval::to_table(found), HasSubstr("by block, since"));

  // Scales of another search are seen, too.
  options.known_scales = [](const models::ScalingGroup& group) { return find_scales(search(), group.smooth_name)->scales * 1.5; };
  EXPECT_THAT(measure(options).fallback, HasSubstr("another search"));
  // A quantized base can be exchanged by blocks.
  EXPECT_THAT(eval::measure_sensitivity(base(), model(), random_windows(), by(SensitivityBy::kKind)).fallback,
              HasSubstr("quantized itself"));
}

TEST_F(SensitivityTest, ModelsOfAnotherShapeOrBasisAreRefused) {
  const auto error = [&](const fs::path& folder, ErrorKind kind) {
    return test::message_of([&] { eval::measure_sensitivity(test::bare_language_model(folder), base(), random_windows()); }, kind);
  };
  EXPECT_THAT(error(SALIENT_SOURCE_DIR "/models/demo", ErrorKind::kInvalidArgument), HasSubstr("vocab_size"));
  Tensors rotated = model_tensors();
  at::Tensor& embedding = rotated.at("model.embed_tokens.weight");
  embedding = embedding.roll({1}, {1}).contiguous();
  write_model(rotated, folder_.path() / "rotated");
  EXPECT_THAT(error(folder_.path() / "rotated", ErrorKind::kCheckFailed), HasSubstr("rotated"));
  Tensors broken = model_tensors();
  broken.at("model.layers.1.mlp.down_proj.weight").fill_(3e38);
  write_model(broken, folder_.path() / "broken");
  EXPECT_THAT(error(folder_.path() / "broken", ErrorKind::kCheckFailed), HasSubstr("NaN"));
}

TEST_F(SensitivityTest, StoppedItGoesOnFromTheStore) {
  const Sensitivity whole = measure(by(SensitivityBy::kProjection));
  const eval::LanguageModel quantized = model();
  const eval::LanguageModel original = base();
  const eval::TokenWindows windows = random_windows();
  const SensitivityInputs inputs{quantized, original, {quantized.folder, "model hash"}, "base hash", windows, "text hash", ""};
  const fs::path file = folder_.path() / "s.db";
  int measured = 0;
  const auto run = [&](int stop_after) {
    Store store(file);
    SensitivityRecords records(store, inputs);
    SensitivityOptions options = by(SensitivityBy::kProjection);
    options.known = [&](const std::string& protocol) { return records.find(protocol); };
    options.on_measured = [&](const std::string& protocol, const DistributionDistance& distance) {
      records.put(protocol, distance);
      if (++measured == stop_after) throw std::runtime_error("killed");
    };
    return eval::measure_sensitivity(quantized, original, windows, options);
  };
  EXPECT_THROW(run(9), std::runtime_error);
  EXPECT_THROW(run(9 + 4), std::runtime_error);
  const Sensitivity resumed = run(0);
  EXPECT_EQ(measured, 1 + 2 * kBlocks * static_cast<int>(kProjections.size()));  // none of them twice
  EXPECT_EQ(eval::to_json(resumed), eval::to_json(whole));
  EXPECT_EQ(eval::to_json(run(0)), eval::to_json(whole));
  EXPECT_EQ(measured, 1 + 2 * kBlocks * static_cast<int>(kProjections.size()));

  Store store(file);
  const std::vector<ResultRecord> rows =
      store.list_results({.model = "", .task = "sensitivity", .metric = "kl_divergence", .run_id = std::nullopt, .limit = 0});
  EXPECT_EQ(rows.size(), static_cast<size_t>(measured));
  const auto row =
      std::find_if(rows.begin(), rows.end(), [](const auto& r) { return r.protocol == "only model.layers.1.mlp.down_proj"; });
  ASSERT_NE(row, rows.end());
  EXPECT_EQ(row->compared_with, original.name);
  EXPECT_EQ(row->n, kWindow * kWindows);
  EXPECT_EQ(row->value, whole.parts.back().only.kl.value);
  // Another text, another base: nothing is known.
  SensitivityInputs other_text = inputs;
  other_text.text_sha256 = "another";
  EXPECT_EQ(SensitivityRecords(store, other_text).size(), 0U);
  SensitivityInputs other_base = inputs;
  other_base.base_hash = "another";
  EXPECT_EQ(SensitivityRecords(store, other_base).size(), 0U);
}

}  // namespace
}  // namespace salient::pipeline
