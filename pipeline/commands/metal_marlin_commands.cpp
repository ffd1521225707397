#include "pipeline/commands/metal_marlin_commands.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/error.h"
#include "common/table.h"
#include "common/text.h"
#include "models/io/npz.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/session.h"
#include "pipeline/metal_marlin.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using namespace metal_marlin;

const OptionRow kModelRow = {"model-path,weights,model", "PATH", "a .safetensors or .npz file, or a folder of .safetensors files"};
const OptionRow kActivationsRow = {
    "activations-path,activations", "FILE",
    ".npz of arrays [..., in_features], or [in_features] statistics, named as the matrices, with or without .weight"};
const OptionRow kMethodRow = {"activation-method,method", "NAME",
                              "importance of an input channel: mean or max of |x|, or rms (default)"};
const OptionRow kRatioRow = {"salient-ratio", "R", "0 to 1; default 0.01"};
const OptionRow kLayoutRow = {"weight-layout", "NAME",
                              "auto (default): safetensors hold [out, in], .npz files [in, out]; or in_out, out_in"};
const OptionRow kMissingRow = {"allow-missing", "",
                               "matrices without activations are rounded to nearest (or left out) instead of failing"};
const OptionRow kJsonRow = {"json", "", "print the result as JSON"};

double number_or(const Arguments& arguments, const std::string& name, double fallback) {
  if (!arguments.has(name)) return fallback;
  const std::string text = arguments.text(name);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(ErrorKind::kInvalidArgument, "--{} is '{}', expected a number such as {}", name, text, fallback);
  }
  return value;
}

ActivationMethod method_of(const Arguments& arguments) {
  return parse_activation_method(arguments.text_or("activation-method", "rms"));
}

AwqModelOptions model_options(const Arguments& arguments) {
  AwqModelOptions options;
  options.quantize.group_size = arguments.integer_or("group-size", kAwqDefaultGroupSize, -1, 1 << 20);
  options.quantize.salient_ratio = number_or(arguments, "salient-ratio", kAwqSalientRatio);
  options.quantize.activation_method = method_of(arguments);
  options.layout = parse_weight_layout(arguments.text_or("weight-layout", "auto"));
  options.allow_missing = arguments.flag("allow-missing");
  return options;
}

std::string short_number(double value) { return fmt::format("{:.4g}", value); }

}  // namespace

void awq_quantize_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"awq-quantize", "",
       "Metal Marlin's AWQ: every matrix of a model as packed 4-bit codes, scales, zeros and q_scale, out of recorded activations. "
       "Embeddings, norms,\n"
       "biases and lm_head stay as they are. For checkpoints that inference engines load, use `salient quantize`.",
       "  salient awq-quantize --model-path model --output-path out --activations-path activations.npz --group-size 128 "
       "--salient-ratio 0.01\n"
       "  salient awq-quantize --weights w.npz --activations acts.npz --out q.npz --method max --compressed\n"},
      {kModelRow,
       {"output-path,out", "PATH", "a folder, for <file>.awq.safetensors; or a name ending in .npz, for one archive"},
       kActivationsRow,
       {"group-size", "N", "input channels that share a scale: 64, 128 (default), 256 or another multiple of 8; -1: all"},
       kRatioRow,
       kMethodRow,
       {"scale-grid", "N", "factors tried for each salient channel; default 20"},
       {"zero-point", "", "asymmetric ranges"},
       kLayoutRow,
       kMissingRow,
       {"compressed", "", ".npz output deflated, as np.savez_compressed does"},
       {"dry-run", "", "check names and shapes, write nothing"},
       {"verbose", "", "a log line for each tensor"},
       kJsonRow},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  AwqModelOptions options = model_options(arguments);
  options.quantize.scale_grid = static_cast<int>(arguments.integer_or("scale-grid", 20, 1, 1000));
  options.quantize.zero_point = arguments.flag("zero-point");
  options.compressed = arguments.flag("compressed");
  options.dry_run = arguments.flag("dry-run");
  options.verbose = arguments.flag("verbose");
  const Json stats = awq_quantize_model(arguments.text("model-path"),
                                        options.dry_run ? arguments.text_or("output-path", "") : arguments.text("output-path"),
                                        arguments.text("activations-path"), options);
  if (arguments.flag("json")) return print_json(stats);
  if (!options.dry_run) {
    std::vector<std::vector<std::string>> rows;
    for (const Json& layer : stats["layers"]) {
      const bool measured = layer.contains("output_error");
      rows.push_back({layer["name"].get<std::string>(), fmt::format("{}", layer["in_features"].get<int64_t>()),
                      fmt::format("{}", layer["out_features"].get<int64_t>()),
                      measured ? short_number(layer["rtn_output_error"].get<double>()) : "-",
                      measured ? short_number(layer["output_error"].get<double>()) : "-",
                      fmt::format("{}", layer["scaled_channels"].get<int64_t>())});
    }
    print_text(format_table({"Matrix", "In", "Out", "Nearest", "Error", "Scaled"}, rows));
  }
  for (const Json& file : stats["files"]) print_text(file.get<std::string>());
  print_text(fmt::format("{} matrices quantized ({} to nearest, without activations), {} tensors kept, {} -> {} ({:.2f} x)",
                         stats["quantized_count"].get<int64_t>(), stats["rounded_to_nearest"].get<int64_t>(),
                         stats["skipped_count"].get<int64_t>(), human_bytes(stats["original_bytes"].get<uint64_t>()),
                         human_bytes(stats["quantized_bytes"].get<uint64_t>()), stats["compression_ratio"].get<double>()));
}

void awq_dequantize_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"awq-dequantize", "",
       "The inverse of awq-quantize: matrices as floats, in the layout that they had. Reads Metal Marlin's own .awq.safetensors, "
       "too.",
       "  salient awq-dequantize --model-path out --output-path restored --dtype float16\n"},
      {kModelRow,
       {"output-path,out", "DIR", "folder for <file>.safetensors or <file>.npz; files that are there already are not replaced"},
       {"dtype", "NAME", "float16 (default), float32, or bfloat16 (not in .npz)"},
       kJsonRow},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::string name = arguments.text_or("dtype", "float16");
  std::optional<at::ScalarType> dtype;
  if (name == "float16") dtype = at::kHalf;
  if (name == "float32") dtype = at::kFloat;
  if (name == "bfloat16") dtype = at::kBFloat16;
  if (!dtype) fail(ErrorKind::kInvalidArgument, "--dtype is '{}', expected float16, float32 or bfloat16", name);
  const Json stats = awq_dequantize_model(arguments.text("model-path"), arguments.text("output-path"), *dtype);
  if (arguments.flag("json")) return print_json(stats);
  for (const Json& file : stats["files"]) print_text(file.get<std::string>());
  print_text(fmt::format("{} matrices dequantized, {} tensors kept", stats["dequantized_count"].get<int64_t>(),
                         stats["kept_count"].get<int64_t>()));
}

void activation_stats_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"activation-stats", "", "The importance of each input channel, for every array of an activation file.",
       "  salient activation-stats --activations-path activations.npz --activation-method rms --output-path stats.npz\n"},
      {kActivationsRow,
       kMethodRow,
       {"output-path,out", "FILE", ".npz for the statistics, float32 [in_features] each; default: only print"},
       kJsonRow},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const ActivationMethod method = method_of(arguments);
  const models::NpzFile file(arguments.text("activations-path"));
  std::optional<models::NpzWriter> writer;
  if (arguments.has("output-path")) writer.emplace(arguments.text("output-path"), /*compressed=*/true);
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const std::string& name : file.names()) {
    const at::Tensor stats = with_context(fmt::format("{}: '{}'", file.path().string(), name),
                                          [&] { return compute_activation_stats(file.read(name), method); });
    if (writer) writer->add(name, stats);
    const double largest = stats.max().item<double>();
    const double median = stats.median().item<double>();
    all.push_back({{"name", name},
                   {"in_features", stats.numel()},
                   {"median", median},
                   {"max", largest},
                   {"max_channel", stats.argmax().item<int64_t>()}});
    rows.push_back({name, fmt::format("{}", stats.numel()), short_number(median), short_number(largest),
                    fmt::format("{}", stats.argmax().item<int64_t>())});
  }
  if (writer) writer->commit();
  if (arguments.flag("json")) return print_json({{"activation_method", std::string(to_string(method))}, {"layers", all}});
  print_text(format_table({"Array", "Channels", "Median", "Max", "At"}, rows));
}

void salient_weights_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"salient-weights", "",
       "Which weights are salient: the largest products of magnitude and channel importance, for every matrix of a model.",
       "  salient salient-weights --model-path w.npz --activations-path acts.npz --salient-ratio 0.01 --output-path masks.npz\n"},
      {kModelRow,
       kActivationsRow,
       kRatioRow,
       kMethodRow,
       kLayoutRow,
       kMissingRow,
       {"output-path,out", "FILE", ".npz for <matrix>.salient_mask (bool [in, out]) and <matrix>.importance (float32 [in])"},
       kJsonRow},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  AwqModelOptions options = model_options(arguments);
  options.quantize.group_size = 8;  // only sizes that no packing could hold are left out
  std::optional<models::NpzWriter> writer;
  if (arguments.has("output-path")) writer.emplace(arguments.text("output-path"), /*compressed=*/true);
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for_each_matrix(arguments.text("model-path"), arguments.text("activations-path"), options, [&](const ModelMatrix& matrix) {
    if (!matrix.activations.defined()) return;
    const SalientWeights found = with_context(matrix.name, [&] {
      const at::Tensor stats = matrix.activations.dim() == 1
                                   ? matrix.activations
                                   : compute_activation_stats(matrix.activations, options.quantize.activation_method);
      return find_salient_weights(matrix.weights, stats, options.quantize.salient_ratio);
    });
    if (writer) {
      writer->add(matrix.name + ".salient_mask", found.salient_mask);
      writer->add(matrix.name + ".importance", found.per_channel_importance);
    }
    const at::Tensor by_channel = found.salient_mask.sum(1);
    const int64_t salient = by_channel.sum().item<int64_t>();
    const int64_t channels = by_channel.gt(0).sum().item<int64_t>();
    Json top = Json::array();
    const at::Tensor order = by_channel.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
    for (int64_t i = 0; i < std::min<int64_t>(5, channels); ++i) top.push_back(order[i].item<int64_t>());
    rows.push_back({matrix.name, fmt::format("{}", matrix.weights.numel()), fmt::format("{}", salient), fmt::format("{}", channels),
                    fmt::format("{}", top.dump())});
    all.push_back({{"name", matrix.name},
                   {"weights", matrix.weights.numel()},
                   {"salient_weights", salient},
                   {"salient_channels", channels},
                   {"top_channels", top}});
  });
  if (writer) writer->commit();
  if (arguments.flag("json")) return print_json({{"salient_ratio", options.quantize.salient_ratio}, {"layers", all}});
  print_text(format_table({"Matrix", "Weights", "Salient", "In channels", "Most in"}, rows));
}

}  // namespace salient::pipeline
