// Search results as files: what was found is applied again to the bit, and llm-awq's results do what llm-awq's apply_scale and
// apply_clip do.
#include "pipeline/search_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "common/error.h"
#include "models/io/safetensors.h"
#include "support/run_program.h"
#include "support/stopped_quantization.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kLlmAwq = fs::path(SALIENT_SOURCE_DIR) / "tests/data/search/llm_awq.pt";
const std::string kSmall = "group_size: 32, n_grid: 4, refine: false, clip_steps: 4, self_generated: 0, max_calib_seq_len: 64";

// Quantizes the tiny model; without `calibration` no rows are given.
class Search : public ::testing::Test {
 protected:
  static const test::TinyQuantization& tiny() {
    static const test::TinyQuantization model;
    return model;
  }
  QuantizeJobResult quantize(const fs::path& source, const std::string& name, const std::string& settings,
                             bool calibration = true) {
    const QuantizationConfig config =
        make_quantization_config(override_settings(given_settings(ConfigNode::parse("{" + kSmall + "}", "base")),
                                                   given_settings(ConfigNode::parse("{" + settings + "}", "test"))),
                                 "test");
    check_stored(config.awq);
    QuantizeJob job;
    if (calibration) job.calibration_file = tiny().calibration() / "train.jsonl";
    job.model.model_folder = source;
    job.model.output = path(name);
    job.model.on_message = [this](const std::string& line) { messages_ += line + "\n"; };
    apply_to_job(config, job);
    job.model.on_progress = on_progress_;
    return run_quantize_job(std::move(job));
  }
  QuantizeJobResult quantize(const std::string& name, const std::string& settings, bool calibration = true) {
    return quantize(tiny().source(), name, settings, calibration);
  }
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  std::string weights(const std::string& name) const { return test::file_bytes(path(name) / "model.safetensors"); }
  std::string save_to(const std::string& name) const { return "save_search: " + dump_json(Json(path(name).string())); }
  std::string load_from(const std::string& name) const { return "search: " + dump_json(Json(path(name).string())); }

  test::TemporaryFolder folder_;
  std::string messages_;
  std::function<void(int64_t done, int64_t total)> on_progress_;
};

TEST_F(Search, AppliedAgainGivesTheSameBytes) {
  const QuantizeJobResult searched = quantize("searched", "bits: 3, format: compressed-tensors, " + save_to("found.search"));
  const SearchResult found = read_search(path("found.search"));
  EXPECT_EQ(found.model_type, "qwen3");
  // Two norms and up_proj -> down_proj, v_proj -> o_proj in each of two blocks.
  EXPECT_EQ(found.scales.size(), 8u);
  EXPECT_GT(found.clips.size(), 0u);
  EXPECT_THAT(found.scales.at("model.layers.1.mlp.up_proj").balance, ::testing::ElementsAre("model.layers.1.mlp.down_proj"));
  EXPECT_FALSE(at::equal(found.scales.at("model.layers.0.input_layernorm").scales, at::ones({test::kTinyHidden})));

  const auto clipped = [](const QuantizeJobResult& result) {
    std::vector<double> shares;
    for (const LinearReport& report : result.model.reports) shares.push_back(report.clipped_share);
    return shares;
  };
  const QuantizeJobResult again = quantize("again", "bits: 3, format: compressed-tensors, " + load_from("found.search"));
  EXPECT_TRUE(weights("again") == weights("searched"));
  EXPECT_EQ(clipped(again), clipped(searched));
  EXPECT_THAT(clipped(again), ::testing::Contains(::testing::Gt(0.0)));
  quantize("neither", "bits: 3, format: compressed-tensors, clip: false, scale: false");
  EXPECT_FALSE(weights("again") == weights("neither"));
  // Saved again, it is the same.
  quantize("third", "bits: 3, format: compressed-tensors, " + load_from("found.search") + ", " + save_to("second.search"));
  const models::SafetensorsFile first(path("found.search")), second(path("second.search"));
  ASSERT_EQ(first.tensors().size(), second.tensors().size());
  for (const auto& [name, info] : first.tensors()) EXPECT_TRUE(at::equal(first.view(name), second.view(name))) << name;
}

TEST_F(Search, OneSearchServesOtherFormatsWithoutCalibration) {
  quantize("searched", "bits: 4, " + save_to("found.search"));
  for (const char* format : {"awq-gemm", "compressed-tensors", "dequantized"}) {
    const std::string settings = fmt::format("rounding: nearest, format: {}, {}", format, load_from("found.search"));
    quantize(std::string("calibrated_") + format, settings);
    messages_.clear();
    const QuantizeJobResult free = quantize(std::string("free_") + format, settings, /*calibration=*/false);
    EXPECT_TRUE(weights(std::string("free_") + format) == weights(std::string("calibrated_") + format)) << format;
    EXPECT_THAT(messages_, HasSubstr("no calibration"));
    for (const LinearReport& report : free.model.reports) {
      EXPECT_GT(report.error, 0) << report.name;
      EXPECT_TRUE(report.salience_quantiles.empty()) << report.name;
    }
  }
  EXPECT_THROW(quantize("needs", "bits: 4, " + load_from("found.search"), /*calibration=*/false), Error);  // rounding gram
  quantize("gguf", "rounding: nearest, format: gguf-q8_0, " + load_from("found.search"), /*calibration=*/false);
  EXPECT_TRUE(fs::is_regular_file(path("gguf") / "model-Q8_0.gguf"));
}

TEST_F(Search, TheSummarySaysWhatWasTakenFromIt) {
  quantize("searched", "bits: 4, " + save_to("found.search"));
  using Case = std::pair<std::vector<std::string>, std::string>;
  for (const auto& [options, said] :
       {Case{{"--search", "found.search", "--rounding", "nearest"}, "scales and clip ranges as given, no calibration"},
        Case{{"--search", "found.search", "--rounding", "nearest", "--no-clip"}, ", scales as given, no calibration"},
        Case{{"--search", "found.search", "--rounding", "nearest", "--no-scale"}, ", clip ranges as given, no calibration"}}) {
    std::vector<std::string> words = {"quantize", "--model", tiny().source().string(), "--out", "out", "--group-size", "32"};
    words.insert(words.end(), options.begin(), options.end());
    const test::ProgramResult result = test::run_program(words, folder_.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr(said));
    fs::remove_all(path("out"));
  }
}

TEST_F(Search, TheResultHasAPlaceOfItsOwn) {
  for (const char* inside : {"out/found.search", "out.partial/found.search"}) {
    EXPECT_THAT(
        test::message_of([&] { quantize("out", "method: rtn, scale: true, " + save_to(inside)); }, ErrorKind::kInvalidArgument),
        HasSubstr("the folder of the artifact"));
    EXPECT_FALSE(fs::exists(path("out")));
  }
  EXPECT_THAT(test::message_of([&] { quantize("alone.search", "format: awq-search, " + save_to("found.search")); },
                               ErrorKind::kInvalidArgument),
              HasSubstr("save_search"));
}

TEST_F(Search, TheFormatOfThatNameLeavesTheFileAlone) {
  quantize("searched", "bits: 3, format: compressed-tensors, " + save_to("found.search"));
  quantize("alone.search", "bits: 3, format: awq-search");
  EXPECT_TRUE(fs::is_regular_file(path("alone.search")));
  EXPECT_FALSE(fs::exists(path("alone.search.partial")));
  EXPECT_LT(fs::file_size(path("alone.search")), fs::file_size(path("searched") / "model.safetensors") / 2);
  const models::SafetensorsFile first(path("found.search")), second(path("alone.search"));
  ASSERT_EQ(first.tensors().size(), second.tensors().size());
  for (const auto& [name, info] : first.tensors()) EXPECT_TRUE(at::equal(first.view(name), second.view(name))) << name;
  EXPECT_THAT(test::message_of([&] { quantize("alone.search", "bits: 3, format: awq-search"); }, ErrorKind::kInvalidArgument),
              HasSubstr("exists already"));
  EXPECT_THAT(test::message_of([&] { quantize("other", save_to("found.search")); }, ErrorKind::kInvalidArgument),
              HasSubstr("found.search"));
}

TEST_F(Search, AStoppedJobLosesNothingOfIt) {
  quantize("whole.search", "bits: 3, format: awq-search");
  on_progress_ = [](int64_t done, int64_t) {
    if (done == 1) throw test::Stopped{};
  };
  EXPECT_THROW(quantize("stopped.search", "bits: 3, format: awq-search"), test::Stopped);
  EXPECT_FALSE(fs::exists(path("stopped.search")));
  on_progress_ = nullptr;
  EXPECT_EQ(quantize("stopped.search", "bits: 3, format: awq-search").model.resumed_blocks, 1);
  EXPECT_TRUE(test::file_bytes(path("stopped.search")) == test::file_bytes(path("whole.search")));
}

// A mixture: experts have groups and clip ranges of their own; nothing reaches an expert without tokens but what is given. Experts
// are linears of their own in qwen3_moe, one 3-D tensor in granitemoe; "dequantized" keeps that, packed they become linears.
class SearchMixture : public Search, public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(SearchMixture, AppliedAgainGivesTheSameBytes) {
  const auto& [model_type, format] = GetParam();
  const fs::path source = path("mixture");
  test::write_golden_checkpoint(read_json_file(test::golden_file(model_type)).at("cases").at(0), source);
  const int64_t vocab = read_json_file(source / "config.json").at("vocab_size").get<int64_t>();
  std::string text;
  for (int64_t row = 0; row < 16; ++row) {
    Json ids = Json::array();
    for (int64_t i = 0; i < 40; ++i) ids.push_back((row * 31 + i * 7) % vocab);
    text += dump_json(Json{{"tokens", ids}}) + "\n";
  }
  write_file(path("rows.jsonl"), text);
  const auto run = [&](const std::string& name, const std::string& settings, bool calibration) {
    const QuantizationConfig config = make_quantization_config(
        given_settings(ConfigNode::parse(
            "{group_size: 8, bits: 3, rounding: nearest, n_grid: 4, clip_steps: 4, self_generated: 0, " + settings + "}", "test")),
        "test");
    QuantizeJob job;
    if (calibration) job.calibration_file = path("rows.jsonl");
    job.model.model_folder = source;
    job.model.output = path(name);
    apply_to_job(config, job);
    run_quantize_job(std::move(job));
  };
  const std::string as = fmt::format("format: {}, ", format);
  run("searched", as + save_to("found.search"), true);
  run("free", as + load_from("found.search"), false);
  run("unclipped", as + "clip: false, " + load_from("found.search"), false);
  const SearchResult found = read_search(path("found.search"));
  EXPECT_TRUE(std::any_of(found.scales.begin(), found.scales.end(),
                          [](const auto& group) { return group.first.find(".experts.") != std::string::npos; }));
  const auto clipped = [](const auto& clip) { return clip.first.find(".experts.") != std::string::npos; };
  EXPECT_TRUE(std::any_of(found.clips.begin(), found.clips.end(), clipped))
      << "no expert was clipped: the test shows less than it says";
  EXPECT_TRUE(weights("free") == weights("searched"));
  // It is the experts that clips change.
  const models::Checkpoint with(path("searched")), without(path("unclipped"));
  const auto changed = [&](const std::string& name) {
    const bool expert = name.find(".experts.") != std::string::npos || name.find("_linear.") != std::string::npos;
    return expert && !at::equal(with.view(name), without.view(name));
  };
  const std::vector<std::string> names = with.names();
  EXPECT_TRUE(std::any_of(names.begin(), names.end(), changed));
}

INSTANTIATE_TEST_SUITE_P(Layouts, SearchMixture,
                         ::testing::Values(std::pair{"qwen3_moe", "dequantized"}, std::pair{"granitemoe", "dequantized"},
                                           std::pair{"granitemoe", "compressed-tensors"}),
                         [](const auto& each) {
                           return fmt::format("{}_{}", each.param.first, each.param.second[0] == 'd' ? "floats" : "packed");
                         });

// The reference in float64 (llm-awq d6e797a, awq/quantize/auto_scale.py: scale_ln_fcs, scale_fc_fc; auto_clip.py: apply_clip).
class Reference {
 public:
  explicit Reference(const fs::path& source) : checkpoint_(source) {
    const Json given = read_json_file(fs::path(kLlmAwq).replace_extension(".json"));
    for (const Json& entry : given.at("scale")) {
      const at::Tensor s = at::tensor(entry.at(2).get<std::vector<double>>(), at::kDouble);
      at::Tensor& smooth = tensor(entry.at(0).get<std::string>());
      smooth = smooth.dim() == 1 ? smooth / s : smooth / s.unsqueeze(1);
      for (const Json& name : entry.at(1)) {
        at::Tensor& weight = tensor(name.get<std::string>());
        weight = weight * s.unsqueeze(0);
      }
    }
    for (const Json& entry : given.at("clip")) {
      std::vector<at::Tensor> rows;
      for (const Json& row : entry.at(1)) rows.push_back(at::tensor(row.get<std::vector<double>>(), at::kDouble));
      const at::Tensor limit = at::stack(rows).unsqueeze(2);
      at::Tensor& weight = tensor(entry.at(0).get<std::string>());
      const at::Tensor groups = weight.view({weight.size(0), limit.size(1), -1});
      const at::Tensor clamped = at::minimum(at::maximum(groups, -limit), limit);
      clipped += (clamped != groups).sum().item<int64_t>();
      weight = clamped.view(weight.sizes());
    }
  }
  at::Tensor& tensor(const std::string& module) {
    at::Tensor& found = tensors[module];
    if (!found.defined()) found = checkpoint_.view(module + ".weight").to(at::kDouble).clone();
    return found;
  }
  std::map<std::string, at::Tensor> tensors;
  int64_t clipped = 0;

 private:
  models::Checkpoint checkpoint_;
};

TEST_F(Search, LlmAwqsResultIsAppliedAsLlmAwqDoes) {
  const std::string settings = "search: " + dump_json(Json(kLlmAwq.string())) + ", format: smoothed, export_compatible: true";
  const QuantizeJobResult result = quantize("applied", settings, /*calibration=*/false);
  Reference reference(tiny().source());
  EXPECT_GT(reference.clipped, 100);
  const models::Checkpoint applied(path("applied"));
  for (const auto& [module, expected] : reference.tensors) {
    const at::Tensor found = applied.view(module + ".weight").to(at::kDouble);
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-6 * expected.abs().max().item<double>()) << module;
  }
  EXPECT_EQ(reference.tensors.size(), 8u);
  // What the file does not name is as it was.
  const models::Checkpoint source(tiny().source());
  for (const char* name :
       {"model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.1.input_layernorm.weight"})
    EXPECT_TRUE(at::equal(applied.view(name), source.view(name))) << name;
  EXPECT_GT(result.model.reports.size(), 0u);
}

TEST_F(Search, WhatDoesNotBelongToTheModelIsNamed) {
  const auto refused = [&](SearchResult search, const std::string& settings = "") {
    fs::remove(path("bad.search"));
    write_search(path("bad.search"), search);
    return test::message_of([&] { quantize("bad", "rounding: nearest, " + load_from("bad.search") + settings, false); },
                            ErrorKind::kInvalidArgument);
  };
  SearchResult whole = read_search(kLlmAwq);
  const std::string norm = "model.layers.0.input_layernorm";
  const auto changed = [&](auto&& change) {
    SearchResult search = whole;
    change(search);
    return search;
  };
  EXPECT_THAT(refused(changed([](auto& s) { s.model_type = "llama"; })), AllOf(HasSubstr("llama"), HasSubstr("qwen3")));
  EXPECT_THAT(refused(changed([&](auto& s) { s.scales[norm].scales = at::ones({64}); })),
              AllOf(HasSubstr(norm), HasSubstr("[64]"), HasSubstr("[128]")));
  EXPECT_THAT(refused(changed([&](auto& s) { s.scales[norm].scales = at::zeros({128}); })),
              AllOf(HasSubstr(norm), HasSubstr("positive")));
  EXPECT_THAT(refused(changed([&](auto& s) { s.scales[norm].balance.pop_back(); })), AllOf(HasSubstr(norm), HasSubstr("v_proj")));
  EXPECT_THAT(refused(changed([&](auto& s) { s.scales["model.layers.7.input_layernorm"] = s.scales[norm]; })),
              HasSubstr("model.layers.7.input_layernorm"));
  EXPECT_THAT(refused(changed([&](auto& s) { s.clips["model.layers.0.mlp.no_proj"] = s.clips.begin()->second; })),
              HasSubstr("no_proj"));
  EXPECT_THAT(refused(whole, ", group_size: 64"), AllOf(HasSubstr("v_proj"), HasSubstr("--no-clip")));
  EXPECT_THAT(refused(whole, ", clip: false, scale: false"), HasSubstr("nothing of it would be used"));
  // Query heads share the rows of v_proj: they cannot have scales of their own.
  SearchResult tied;
  at::Tensor different = at::ones({128});
  different[0] = 2;
  tied.scales["model.layers.0.self_attn.v_proj"] = {{"model.layers.0.self_attn.o_proj"}, "given", 0, different};
  tied.settings = Json::object();
  EXPECT_THAT(refused(tied), AllOf(HasSubstr("v_proj"), HasSubstr("different scales")));
}

TEST_F(Search, DamagedFilesAreRefused) {
  const auto message = [&](const std::string& name) {
    return test::message_of([&] { read_search(path(name)); }, ErrorKind::kCorruption);
  };
  models::write_safetensors(path("a.safetensors"), {{"x", at::ones({2})}});
  EXPECT_THAT(message("a.safetensors"), HasSubstr("no search result"));
  const std::map<std::string, std::string> metadata = {{"format", "awq-search"}, {"settings", "{}"}, {"groups", "{}"}};
  models::write_safetensors(path("b"), {{"scales.norm", at::ones({2})}}, metadata);
  EXPECT_THAT(message("b"), HasSubstr("scales.norm"));
  models::write_safetensors(path("c"), {{"clip_low.q", at::ones({2, 2})}}, metadata);
  EXPECT_THAT(message("c"), HasSubstr("'q'"));
  models::write_safetensors(path("d"),
                            {{"clip_low.q", at::full({2, 2}, 3, at::kByte)},
                             {"clip_high.q", at::zeros({2, 2}, at::kByte)},
                             {"clip_values.q", at::ones({2})}},
                            metadata);
  EXPECT_THAT(message("d"), HasSubstr("beyond the 2 values"));
  std::string bytes = test::file_bytes(kLlmAwq);
  write_file(path("cut.pt"), bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(message("cut.pt"), HasSubstr("torch.save"));
}

TEST(FoundClip, ManyDifferentFactorsAreKeptAsTheyAre) {
  const at::Tensor low = at::linspace(0.1, 1, 300).view({100, 3}), high = at::ones({100, 3});
  const FoundClip clip = pack_clip({low, high});
  EXPECT_FALSE(clip.values.defined());
  const quant::ClipRange range = unpack_clip(clip, at::ones({100, 6}));
  EXPECT_TRUE(at::equal(range.low, low));
  EXPECT_TRUE(at::equal(range.high, high));
}

}  // namespace
}  // namespace salient::pipeline
