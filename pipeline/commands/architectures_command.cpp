#include <string>
#include <vector>

#include "common/error.h"
#include "common/table.h"
#include "models/decoder/architecture.h"
#include "models/decoder/wrappers.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

using models::LinearSlot;
using models::NormSlot;

struct ArchitectureRow {
  std::string model_type;
  std::string models;
  std::string attention;
  std::string mlp;
};

std::string attention_of(const models::TensorNames& names) {
  std::string text = !names[LinearSlot::kKvBProj].empty() ? "latent" : "heads";
  if (!names[LinearSlot::kQkvProj].empty()) text += ", fused qkv";
  if (!names[NormSlot::kQuery].empty()) text += ", q/k norms";
  if (!names[models::ParameterSlot::kSinks].empty()) text += ", sinks";
  if (!names.linear_attention_output.empty()) text += "; gated delta rule";
  return text;
}

std::string mlp_of(const models::TensorNames& names) {
  if (!names.fused_down.empty())
    return names.shared_expert.empty() ? "experts (3-D tensors)" : "experts (3-D tensors), shared expert";
  if (!names.expert.empty()) return names.shared_expert.empty() ? "experts" : "experts, shared expert";
  if (!names[LinearSlot::kGateUpProj].empty()) return "gated, fused";
  return names[LinearSlot::kGateProj].empty() ? "plain" : "gated";
}

// Of a multimodal model: what its text model is; the first of several.
ArchitectureRow row_of(const models::Wrapper& wrapper) {
  const models::TextModel& text = *wrapper.text_models.front();
  models::DecoderConfig decoder;
  decoder.names = *models::find_architecture(text.architecture).names;
  if (text.configure != nullptr) text.configure(decoder);
  std::vector<std::string_view> types;
  for (const models::TextModel* model : wrapper.text_models) types.push_back(model->architecture);
  return {std::string(wrapper.model_type), fmt::format("{} (its text model: {})", wrapper.models, fmt::join(types, ", ")),
          attention_of(decoder.names), mlp_of(decoder.names)};
}

std::vector<ArchitectureRow> collect() {
  std::vector<ArchitectureRow> rows;
  for (const models::Architecture& row : models::architectures()) {
    rows.push_back({std::string(row.model_type), std::string(row.models), attention_of(*row.names), mlp_of(*row.names)});
  }
  for (const models::Wrapper& wrapper : models::wrappers()) rows.push_back(row_of(wrapper));
  return rows;
}

std::string to_markdown(const std::vector<ArchitectureRow>& rows) {
  std::string text = "| model_type | models | attention | MLP |\n|---|---|---|---|\n";
  for (const ArchitectureRow& row : rows)
    text += fmt::format("| `{}` | {} | {} | {} |\n", row.model_type, row.models, row.attention, row.mlp);
  return text;
}

}  // namespace

void architectures_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"architectures", "", "Lists the architectures that can be quantized and evaluated, by the model_type of config.json.",
       "  salient architectures\n  salient architectures --json\n"},
      {{"json", "", "print the result as JSON"}, {"markdown", "", "print it as the README has it"}}, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::vector<ArchitectureRow> rows = collect();
  if (arguments.flag("markdown")) return print_text(to_markdown(rows));
  if (arguments.flag("json")) {
    Json list = Json::array();
    for (const ArchitectureRow& row : rows) {
      list.push_back({{"model_type", row.model_type}, {"models", row.models}, {"attention", row.attention}, {"mlp", row.mlp}});
    }
    return print_json(list);
  }
  std::vector<std::vector<std::string>> cells;
  for (const ArchitectureRow& row : rows) cells.push_back({row.model_type, row.models, row.attention, row.mlp});
  print_text(format_table({"Model type", "Models", "Attention", "MLP"}, cells));
}

}  // namespace salient::pipeline
